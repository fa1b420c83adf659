#include "server/worker/config.h"

#include <unistd.h>

#include "base/strv.h"
#include "server/options.h"

/* Web uses a worker whose version is its own, or a later one with the same first number. */
#define WORKER_VERSION "3.0"

static int64_t ms_of(int64_t ns)
{
	return ns / 1000000;
}

static uint32_t at_least_one(uint64_t n)
{
	return n < 1 ? 1 : n > 1000 ? 1000 : (uint32_t)n;
}

void worker_config_init(struct worker_config *ret_config, const struct options *options)
{
	static char here[] = "127.0.0.1:2222";
	static char *here_alone[] = { here, NULL };
	static const struct strv default_hosts = { here_alone, 1 };

	*ret_config = (struct worker_config){
		.name = options->worker_name,
		.team = options->team,
		.tags = &options->worker_tags,
		.version = WORKER_VERSION,
		.resource_types_dir = options->resource_types,
		.certs_dir = options->certs_dir,
		.http_proxy = options->http_proxy,
		.https_proxy = options->https_proxy,
		.no_proxy = options->no_proxy,
		.max_active_tasks = options->max_active_tasks,
		.is_ephemeral = options->ephemeral,
		.tsa_hosts = options->tsa_hosts.n_items ? &options->tsa_hosts : &default_hosts,
		.tsa_public_key = options->tsa_public_key,
		.tsa_private_key = options->tsa_private_key,
		.ssh_program = options->ssh_program,
		.rebalance_ms = ms_of(options->rebalance_interval),
		.drain_ms = ms_of(options->drain_timeout),
		.sweep_ms = ms_of(options->sweep_interval),
		.request_timeout_ms = ms_of(options->request_timeout),
		.max_container_sweeps = at_least_one(options->container_sweeps),
		.max_volume_sweeps = at_least_one(options->volume_sweeps),
		.work_dir = options->work_dir,
	};
	if (!*ret_config->name) {
		gethostname(ret_config->host_name, sizeof(ret_config->host_name) - 1);
		ret_config->name = ret_config->host_name;
	}
}

#include "server/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/footprint.h"
#include "base/log.h"
#include "server/health.h"
#include "server/http.h"
#include "server/options.h"
#include "server/p2p.h"
#include "server/worker/worker.h"
#include "volumes/volumes.h"

struct listeners {
	const struct options *options;
	int argc;
	char **argv;
	int self_fd; /* this program */
	struct p2p_config p2p;
	struct server *garden, *volumes;
	struct worker *worker;
	char garden_at[64], volumes_at[64];
};

int listeners_ms(int64_t ns)
{
	return ns / 1000000 > INT_MAX ? INT_MAX : (int)(ns / 1000000);
}

/* /proc/self/exe, held open above the descriptors that a spawned program gets. */
static int open_self(void)
{
	AUTO_FD int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10);
}

int listeners_new(const struct options *options, int argc, char **argv,
	struct listeners **ret_listeners, struct err *err)
{
	struct listeners *listeners = calloc(1, sizeof(*listeners));
	int r;

	if (!listeners)
		return err_system(err, -ENOMEM, "listeners");
	*listeners = (struct listeners){ .options = options,
		.argc = argc,
		.argv = argv,
		.p2p = { .interface_pattern = options->p2p_pattern,
			.family = (int)options->p2p_family,
			.targets = &options->p2p_targets },
		.self_fd = open_self() };
	r = p2p_check(&listeners->p2p, err);
	if (r < 0)
		listeners_free(listeners);
	else
		*ret_listeners = listeners;
	return r;
}

/* ---- before there is anything to serve ------------------------------------------------------- */

static struct server_config garden_config_of(const struct options *options)
{
	return (struct server_config){ .service = SERVICE_GARDEN,
		.bind_ip = options->bind_ip,
		.port = (uint16_t)options->bind_port,
		.socket_path = *options->bind_socket ? options->bind_socket : NULL,
		.socket_mode = (mode_t)options->socket_mode,
		.header_timeout_ms = listeners_ms(options->header_timeout),
		.body_timeout_ms = listeners_ms(options->body_timeout),
		.idle_timeout_ms = listeners_ms(options->idle_timeout),
		.stall_ms = listeners_ms(options->stall_time) };
}

static struct server_config volumes_config_of(const struct listeners *listeners)
{
	struct server_config config = garden_config_of(listeners->options);

	config.service = SERVICE_VOLUMES;
	config.p2p = &listeners->p2p;
	config.bind_ip = listeners->options->volumes_bind_ip;
	config.port = (uint16_t)listeners->options->volumes_bind_port;
	config.socket_path = NULL;
	return config;
}

static void stop_ourselves(void)
{
	kill(getpid(), SIGTERM);
}

int listeners_open(void *arg, struct err *err)
{
	struct listeners *listeners = arg;
	struct server_config garden = garden_config_of(listeners->options);
	struct server_config volumes = volumes_config_of(listeners);
	struct worker_spec spec = { .self_exe_fd = listeners->self_fd,
		.garden_at = listeners->garden_at,
		.volumes_at = listeners->volumes_at,
		.argc = listeners->argc - 1,
		.argv = listeners->argv + 1,
		.envp = environ,
		.left = stop_ourselves };
	int r = server_listen(&volumes, &listeners->volumes, listeners->volumes_at, err);

	if (r < 0)
		return err_context(err, r, "--baggageclaim-bind-ip, --baggageclaim-bind-port");
	r = server_listen(&garden, &listeners->garden, listeners->garden_at, err);
	return r < 0 || !listeners->options->is_worker
		? r
		: worker_start(&spec, &listeners->worker, err);
}

/* ---- while it runs --------------------------------------------------------------------------- */

static struct health_config health_config_of(const struct listeners *listeners)
{
	const struct options *options = listeners->options;

	return (struct health_config){ .health_ip = options->health_ip,
		.debug_ip = options->debug_ip,
		.health_port = (uint16_t)options->health_port,
		.debug_port = (uint16_t)options->debug_port,
		.timeout_ms = listeners_ms(options->health_timeout),
		.work_dir = options->work_dir,
		.garden_at = listeners->garden_at,
		.volumes_at = listeners->volumes_at,
		.worker = listeners->worker,
		.start_s = time(NULL) };
}

/* The signal that ends the server. */
static int await_end(const sigset_t *stop, struct worker *worker)
{
	for (;;) {
		int signo;

		sigwait(stop, &signo);
		if (signo == SIGUSR1)
			worker_land(worker);
		else if (signo == SIGUSR2)
			worker_retire(worker);
		else
			return signo;
	}
}

/* Nobody comes any more, and whoever is there goes. */
static void stop_all(struct listeners *listeners, struct volumes *volumes)
{
	worker_drain(listeners->worker);
	volumes_halt(volumes);
	server_stop(listeners->garden);
	server_stop(listeners->volumes);
	worker_stop(listeners->worker);
	listeners->garden = listeners->volumes = NULL;
	listeners->worker = NULL;
}

int listeners_run(
	struct listeners *listeners, struct backend *backend, const sigset_t *stop, struct err *err)
{
	struct health_config health_config = health_config_of(listeners);
	struct server_config shared = garden_config_of(listeners->options);
	struct health *health = NULL;
	int r;

	shared.backend = backend;
	shared.volumes = backend_volumes(backend);
	r = server_serve(listeners->volumes, backend, shared.volumes, err);
	if (r == 0)
		r = server_serve(listeners->garden, backend, shared.volumes, err);
	if (r == 0)
		r = health_start(&health_config, &shared, &health, err);
	if (r == 0) {
		LOG(LOG_INFO, "serving", KV_STR("address", listeners->garden_at),
			KV_STR("baggageclaim", listeners->volumes_at),
			KV_STR("work-dir", listeners->options->work_dir));
		footprint_shrink();
		LOG(LOG_INFO, "stopping", KV_INT("signal", await_end(stop, listeners->worker)));
	}
	health_stop(health);
	stop_all(listeners, shared.volumes);
	return r;
}

void listeners_free(struct listeners *listeners)
{
	server_stop(listeners->garden);
	server_stop(listeners->volumes);
	worker_stop(listeners->worker);
	auto_fd(&listeners->self_fd);
	free(listeners);
}

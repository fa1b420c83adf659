#include "server/worker/sweep.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/strv.h"
#include "server/json.h"
#include "server/worker/config.h"
#include "server/worker/gateway.h"
#include "server/worker/local_api.h"

#define COMMAND_MS 120000
#define MAX_ANSWER_BYTES (16 << 20)
/* A packet of SSH ends at 256 KiB, in OpenSSH as in Go; some of it is taken by what surrounds the command. */
#define MAX_COMMAND_BYTES (256 * 1024 - 512)

enum sweep_kind { SWEEP_CONTAINERS, SWEEP_VOLUMES, N_SWEEP_KINDS };

struct sweeper {
	const struct gateway *gateway;
	bool (*current)(void *arg, unsigned *ret_id);
	void *arg;
	enum sweep_kind kind;
	struct local_api *api; /* NULL before the first round */
	bool is_too_long; /* said so already */
};

static const struct kind {
	const char *path, *list, *report, *sweep;
} kinds[] = { [SWEEP_CONTAINERS] = { "/containers", "Handles", "report-containers",
		      "sweep-containers" },
	[SWEEP_VOLUMES] = { "/volumes", NULL, "report-volumes", "sweep-volumes" } };

/* Strings, or objects with a handle; null is an empty list. */
static int add_handles(struct strv *handles, const json_t *array)
{
	const json_t *item;
	size_t i;
	int r = 0;

	if (!json_is_null(array) && !json_is_array(array))
		return -EBADMSG;
	json_array_foreach(array, i, item)
	{
		const char *handle = json_string_value(
			json_is_object(item) ? json_object_get(item, "handle") : item);

		r = handle ? strv_add(handles, handle) : -EBADMSG;
		if (r < 0)
			break;
	}
	return r;
}

/* All that there are here. */
static int list(struct sweeper *sweeper, struct strv *ret_handles, struct err *err)
{
	const struct kind *kind = &kinds[sweeper->kind];
	AUTO_BUF struct buf body;
	AUTO_JSON json_t *json = NULL;
	int r = local_api_get(sweeper->api, kind->path, &body, err);

	if (r == 0)
		r = json_parse(body.data, body.len, &json, err);
	if (r < 0)
		return r;
	r = add_handles(ret_handles, kind->list ? json_object_get(json, kind->list) : json);
	return r < 0 ? err_system(err, r, "GET %s", kind->path) : 0;
}

/* In one command or not at all: what is left out would be given up by the cluster. */
static int report(struct sweeper *sweeper, unsigned id, const struct strv *handles, struct err *err)
{
	const char *command = kinds[sweeper->kind].report;
	AUTO_STRV struct strv words = { 0 };
	AUTO_BUF struct buf answer;
	size_t n_bytes = strlen(command);
	int r;

	for (size_t i = 0; i < handles->n_items; i++)
		n_bytes += 1 + strlen(handles->items[i]);
	if (n_bytes > MAX_COMMAND_BYTES)
		return err_set(err, ERR_INVALID, E2BIG,
			"%s: %zu handles are %zu bytes, and the protocol ends at %d; "
			"the cluster forgets none of them until there are fewer",
			command, handles->n_items, n_bytes, MAX_COMMAND_BYTES);
	r = strv_add(&words, command);
	if (r == 0)
		r = strv_copy(&words, handles);
	if (r < 0)
		return err_system(err, r, "%s", command);
	buf_init(&answer, 65536);
	return gateway_run(sweeper->gateway, id, &words, COMMAND_MS, &answer, err);
}

/* Those that the cluster has given up. */
static int ask(struct sweeper *sweeper, unsigned id, struct strv *ret_handles, struct err *err)
{
	const char *command = kinds[sweeper->kind].sweep;
	AUTO_STRV struct strv words = { 0 };
	AUTO_BUF struct buf answer;
	AUTO_JSON json_t *json = NULL;
	int r = strv_add(&words, command);

	buf_init(&answer, MAX_ANSWER_BYTES);
	if (r < 0)
		return err_system(err, r, "%s", command);
	r = gateway_run(sweeper->gateway, id, &words, COMMAND_MS, &answer, err);
	if (r < 0)
		return r;
	json = json_loadb(
		buf_str(&answer), answer.len, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, NULL);
	r = json ? add_handles(ret_handles, json) : -EBADMSG;
	return r < 0
		? err_set(err, ERR_INVALID, EBADMSG, "%s: the answer is no list of handles: %.100s",
			  command, buf_str(&answer))
		: 0;
}

static void container_stays(const char *handle, const char *why)
{
	LOG(LOG_WARN, "worker.container-not-destroyed", KV_STR("handle", handle),
		KV_STR("error", why));
}

static void volume_stays(const char *handle, const char *why)
{
	LOG(LOG_WARN, "worker.volume-not-destroyed", KV_STR("handle", handle),
		KV_STR("error", why));
}

static int destroy(struct sweeper *sweeper, const struct strv *handles, struct err *err)
{
	const struct worker_config *config = sweeper->gateway->config;
	int r;

	if (sweeper->kind == SWEEP_CONTAINERS)
		return local_api_delete_all(sweeper->api, "/containers", handles,
			config->max_container_sweeps, container_stays, err);
	r = local_api_delete_all(
		sweeper->api, "/volumes", handles, config->max_volume_sweeps, volume_stays, err);
	return r < 0 ? r : local_api_post(sweeper->api, "/volumes/cleanup-orphans", err);
}

static void complain(const char *event, const struct err *err)
{
	LOG(LOG_WARN, event, KV_STR("error", err->msg));
}

/* Not before it is needed: libcurl would be loaded while the worker is to be registered. */
static int open_api(struct sweeper *sweeper, struct err *err)
{
	const struct worker_config *config = sweeper->gateway->config;

	if (!sweeper->api)
		sweeper->api = local_api_new(
			sweeper->kind == SWEEP_CONTAINERS ? config->garden_at : config->volumes_at,
			config->request_timeout_ms);
	return sweeper->api ? 0 : err_system(err, -ENOMEM, "libcurl");
}

/* Over the connection id. */
static void run_round(struct sweeper *sweeper, unsigned id)
{
	AUTO_STRV struct strv handles = { 0 }, given_up = { 0 };
	struct err err = { 0 };
	int r = open_api(sweeper, &err);

	if (r == 0)
		r = list(sweeper, &handles, &err);
	if (r < 0) {
		complain("worker.sweep-failed", &err);
		return;
	}
	r = report(sweeper, id, &handles, &err);
	if (r < 0 && (r != -E2BIG || !sweeper->is_too_long))
		complain("worker.report-failed", &err);
	sweeper->is_too_long = r == -E2BIG;
	r = ask(sweeper, id, &given_up, &err);
	if (r == 0)
		r = destroy(sweeper, &given_up, &err);
	if (r < 0)
		complain("worker.sweep-failed", &err);
	else
		LOG(LOG_DEBUG, "worker.swept", KV_STR("what", kinds[sweeper->kind].path + 1),
			KV_INT("there", (int64_t)handles.n_items),
			KV_INT("destroyed", (int64_t)given_up.n_items));
}

static void *run(void *arg)
{
	struct sweeper *sweeper = arg;
	int64_t interval_ms = sweeper->gateway->config->sweep_ms;
	int64_t next_ms = clock_ms() + interval_ms;
	unsigned id;

	for (;;) {
		int64_t left_ms = next_ms - clock_ms();

		if (left_ms > 0)
			poll(NULL, 0, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
		next_ms = clock_ms() + interval_ms;
		if (sweeper->current(sweeper->arg, &id))
			run_round(sweeper, id);
	}
	return NULL;
}

static int start(struct sweeper *sweeper)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, run, sweeper);

	if (r == 0)
		pthread_detach(thread);
	return -r;
}

int sweepers_start(const struct gateway *gateway, bool (*current)(void *arg, unsigned *ret_id),
	void *arg, struct err *err)
{
	static struct sweeper sweepers[N_SWEEP_KINDS];
	int r = 0;

	for (unsigned kind = 0; gateway->config->sweep_ms > 0 && kind < N_SWEEP_KINDS && r == 0;
		kind++) {
		sweepers[kind] = (struct sweeper){
			.gateway = gateway, .current = current, .arg = arg, .kind = kind
		};
		r = start(&sweepers[kind]);
	}
	return r < 0 ? err_system(err, r, "threads for sweeping") : 0;
}

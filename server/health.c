/* Beside p2p.c the only user of libcurl: the APIs are asked over their own sockets, as clients do. */
#include "server/health.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "backend.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/strv.h"
#include "server/json.h"
#include "server/request.h"
#include "server/router.h"
#include "server/watching.h"
#include "server/worker/worker.h"

/* Below that a step soon fails for want of it. */
#define LEAST_FREE_BYTES (64u << 20)
#define LEAST_FREE_INODES 1000u

struct health {
	struct server *health_port, *debug_port;
};

/* ---- do the APIs answer? --------------------------------------------------------------------- */

enum { GARDEN, VOLUMES, N_APIS };

struct probe {
	CURL *easy;
	char url[96];
	char text[CURL_ERROR_SIZE];
	bool has_ended, is_well;
};

static size_t drop(char *data, size_t size, size_t n, void *arg)
{
	(void)data;
	(void)arg;
	return size * n;
}

/* libcurl's own would be inherited by what is started meanwhile. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *at)
{
	(void)arg;
	(void)purpose;
	return socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
}

/* What counts is that an answer comes, whatever it says. */
static int add_probe(CURLM *multi, struct probe *probe, const char *address, const char *path)
{
	snprintf(probe->url, sizeof(probe->url), "http://%s/%s", address, path);
	probe->easy = curl_easy_init();
	if (!probe->easy)
		return -ENOMEM;
	curl_easy_setopt(probe->easy, CURLOPT_URL, probe->url);
	curl_easy_setopt(probe->easy, CURLOPT_PROXY, "");
	curl_easy_setopt(probe->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(probe->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(probe->easy, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(probe->easy, CURLOPT_ERRORBUFFER, probe->text);
	curl_easy_setopt(probe->easy, CURLOPT_PRIVATE, probe);
	return curl_multi_add_handle(multi, probe->easy) ? -ENOMEM : 0;
}

static void note_ends(CURLM *multi)
{
	struct probe *probe;
	CURLMsg *end;
	int n_left;

	while ((end = curl_multi_info_read(multi, &n_left))) {
		curl_easy_getinfo(end->easy_handle, CURLINFO_PRIVATE, (char **)&probe);
		probe->has_ended = true;
		probe->is_well = end->data.result == CURLE_OK;
		if (!probe->is_well && !*probe->text)
			snprintf(probe->text, sizeof(probe->text), "%s",
				curl_easy_strerror(end->data.result));
	}
}

static void wait_for_probes(CURLM *multi, int timeout_ms)
{
	int64_t end_ms = clock_ms() + timeout_ms;
	int n_running = 1;

	while (n_running && clock_ms() < end_ms) {
		if (curl_multi_perform(multi, &n_running))
			return;
		note_ends(multi);
		if (n_running)
			curl_multi_poll(multi, NULL, 0, (int)(end_ms - clock_ms()), NULL);
	}
}

static void ask_apis(const struct health_config *config, struct probe probes[N_APIS])
{
	CURLM *multi = curl_multi_init();

	memset(probes, 0, N_APIS * sizeof(*probes));
	if (multi && add_probe(multi, &probes[GARDEN], config->garden_at, "ping") == 0 &&
		add_probe(multi, &probes[VOLUMES], config->volumes_at, "volumes") == 0)
		wait_for_probes(multi, config->timeout_ms);
	for (int i = 0; i < N_APIS; i++) {
		if (!probes[i].has_ended && !*probes[i].text)
			snprintf(probes[i].text, sizeof(probes[i].text), "no answer within %d ms",
				config->timeout_ms);
		if (probes[i].is_well)
			probes[i].text[0] = '\0';
		if (multi && probes[i].easy)
			curl_multi_remove_handle(multi, probes[i].easy);
		curl_easy_cleanup(probes[i].easy);
	}
	curl_multi_cleanup(multi);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* As Concourse's worker has it. */
static void answer_as_worker(struct request *request)
{
	struct probe probes[N_APIS];

	ask_apis(request_health(request), probes);
	reply_json(request, probes[GARDEN].is_well && probes[VOLUMES].is_well ? 200 : 503,
		json_pack("{s:{s:b,s:s}, s:{s:b,s:s}}", "garden", "healthy", probes[GARDEN].is_well,
			"response_error", probes[GARDEN].text, "baggageclaim", "healthy",
			probes[VOLUMES].is_well, "response_error", probes[VOLUMES].text));
}

static void add_check(json_t *checks, const char *name, const char *reason, bool *is_well)
{
	*is_well &= !*reason;
	json_array_append_new(checks,
		json_pack("{s:s, s:b, s:s}", "name", name, "ok", !*reason, "reason", reason));
}

static void check_disk(const char *work_dir, char *reason, size_t n_bytes)
{
	struct statvfs fs;

	if (statvfs(work_dir, &fs) < 0)
		snprintf(reason, n_bytes, "%.180s: %s", work_dir, strerrordesc_np(errno));
	else if ((uint64_t)fs.f_bavail * fs.f_frsize < LEAST_FREE_BYTES)
		snprintf(reason, n_bytes, "%.180s: only %llu bytes are free", work_dir,
			(unsigned long long)fs.f_bavail * fs.f_frsize);
	else if (fs.f_files && fs.f_favail < LEAST_FREE_INODES)
		snprintf(reason, n_bytes, "%.180s: only %llu inodes are free", work_dir,
			(unsigned long long)fs.f_favail);
}

static void check_containers(struct backend *backend, char *reason, size_t n_bytes)
{
	AUTO_STRV struct strv handles = { 0 };
	uint64_t memory, disk, max;
	struct err err = { 0 };

	backend_capacity(backend, &memory, &disk, &max);
	if (container_list(backend, NULL, 0, &handles, &err) < 0)
		snprintf(reason, n_bytes, "%s", err.msg);
	else if (handles.n_items >= max)
		snprintf(reason, n_bytes, "there are %zu containers, and no more can be made",
			handles.n_items);
}

/* Whether it lives, or whether it can take work. */
static void answer_checks(struct request *request, bool with_room)
{
	const struct health_config *config = request_health(request);
	char disk[512] = "", containers[512] = "";
	struct err record = { 0 };
	struct probe probes[N_APIS];
	json_t *checks = json_array();
	bool is_well = true;

	ask_apis(config, probes);
	add_check(checks, "garden", probes[GARDEN].text, &is_well);
	add_check(checks, "baggageclaim", probes[VOLUMES].text, &is_well);
	if (with_room) {
		check_disk(config->work_dir, disk, sizeof(disk));
		add_check(checks, "disk", disk, &is_well);
		check_containers(request_backend(request), containers, sizeof(containers));
		add_check(checks, "containers", containers, &is_well);
		backend_check(request_backend(request), &record);
		add_check(checks, "record", record.msg, &is_well);
	}
	if (with_room && config->worker)
		add_check(checks, "cluster",
			worker_is_registered(config->worker)
				? ""
				: "the cluster has not registered this worker: see the log",
			&is_well);
	reply_json(request, is_well ? 200 : 503,
		json_pack("{s:s, s:o}", "status", is_well ? "ok" : "failing", "checks", checks));
}

void handle_health(struct request *request)
{
	const char *path = request->path_text;

	if (!strcmp(path, "/healthz"))
		answer_checks(request, false);
	else if (!strcmp(path, "/readyz"))
		answer_checks(request, true);
	else if (!strcmp(path, "/metrics"))
		watching_metrics(request);
	else
		answer_as_worker(request);
}

void handle_debug(struct request *request)
{
	watching_debug(request);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int start_one(const struct health_config *config, const struct server_config *shared,
	enum service service, struct server **ret_server, struct err *err)
{
	bool is_debug = service == SERVICE_DEBUG;
	struct server_config one = *shared;
	char address[64];
	int r;

	one.service = service;
	one.health = config;
	one.socket_path = NULL;
	one.bind_ip = is_debug ? config->debug_ip : config->health_ip;
	one.port = is_debug ? config->debug_port : config->health_port;
	if (!one.port)
		return 0;
	r = server_start(&one, ret_server, address, err);
	if (r < 0)
		return err_context(err, r,
			is_debug ? "--debug-bind-ip, --debug-bind-port"
				 : "--healthcheck-bind-ip, --healthcheck-bind-port");
	LOG(LOG_INFO, is_debug ? "serving-debug" : "serving-health", KV_STR("address", address));
	return 0;
}

int health_start(const struct health_config *config, const struct server_config *shared,
	struct health **ret_health, struct err *err)
{
	struct health *health = calloc(1, sizeof(*health));
	int r = health ? start_one(config, shared, SERVICE_HEALTH, &health->health_port, err)
		       : err_system(err, -ENOMEM, "health");

	if (r == 0)
		r = start_one(config, shared, SERVICE_DEBUG, &health->debug_port, err);
	if (r < 0)
		health_stop(health);
	else
		*ret_health = health;
	return r;
}

void health_stop(struct health *health)
{
	if (!health)
		return;
	server_stop(health->health_port);
	server_stop(health->debug_port);
	free(health);
}

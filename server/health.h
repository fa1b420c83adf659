/* health.h - the two ports for those who watch a worker. The health port answers any path and method:
 * 200 or 503 and a document that says whether both APIs answer, as Concourse's worker does; /healthz the
 * same as a list of checks, /readyz with those that say whether work can be taken, /metrics as text for
 * Prometheus. The debug port shows threads, descriptors, memory and containers as text. */
#pragma once
#include <stdint.h>

struct err;
struct health;
struct server_config;
struct worker;

struct health_config {
	const char *health_ip, *debug_ip;
	uint16_t health_port, debug_port; /* 0: none */
	int timeout_ms; /* of both APIs together */
	const char *work_dir;
	const char *garden_at, *volumes_at; /* "ip:port" */
	struct worker *worker; /* of a cluster; NULL: none */
	int64_t start_s; /* since 1970 */
};

/* Serves when this returns. shared: deadlines, backend and volumes. Both are borrowed. */
int health_start(const struct health_config *config, const struct server_config *shared,
	struct health **ret_health, struct err *err);
void health_stop(struct health *health);

/* config.h - what a worker is told about itself and its cluster: the options of `cloche worker`, as plain values.
 * Made once, before the first thread, and constant from then on. Everything is borrowed from the options. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct options;
struct strv;

struct worker_config {
	/* who it is: the JSON document that is registered */
	char host_name[65]; /* the name of a worker that is given none */
	const char *name, *team; /* team "": of all teams */
	const struct strv *tags;
	const char *version; /* of the protocol between web and its workers */
	const char *resource_types_dir; /* "": none */
	const char *certs_dir; /* "": none */
	const char *http_proxy, *https_proxy, *no_proxy; /* "": none */
	uint64_t max_active_tasks; /* 0: as many as web gives it */
	int64_t start_time_s; /* since 1970 */
	bool is_ephemeral;

	/* the cluster */
	const struct strv *tsa_hosts; /* HOST:PORT */
	const char *tsa_public_key, *tsa_private_key; /* files */
	const char *ssh_program;
	int64_t rebalance_ms; /* 0: never */
	int64_t drain_ms; /* how long a connection that was replaced may go on */
	int64_t sweep_ms;
	int64_t request_timeout_ms; /* of calls to the two local APIs; 0: none */
	uint32_t max_container_sweeps, max_volume_sweeps; /* at a time */

	/* this host */
	const char *work_dir;
	const char *garden_at, *volumes_at; /* IP:PORT of the two local APIs */
};

/* The part of it that comes from options; start_time_s, garden_at and volumes_at are the caller's to set. It is not to
 * be copied: the name may point into it. */
void worker_config_init(struct worker_config *ret_config, const struct options *options);

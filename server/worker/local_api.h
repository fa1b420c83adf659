/* local_api.h - calls to one of this host's two APIs over a connection that is kept. Threads: one for each. */
#pragma once
#include <stdint.h>

struct buf;
struct err;
struct local_api;
struct strv;

/* at is IP:PORT, as the server names its own address. timeout_ms of one call; 0: none. NULL: no memory, or no libcurl. */
struct local_api *local_api_new(const char *at, int64_t timeout_ms);
void local_api_free(struct local_api *api);

/* ERR_INVALID with the start of the answer for a status that is not 2xx. */
int local_api_get(struct local_api *api, const char *path, struct buf *ret_body, struct err *err);
int local_api_post(struct local_api *api, const char *path, struct err *err);

/* DELETE prefix/name for all of the names, max_at_a_time at a time. failed is told of each that was not done; what is
 * gone already is done. */
int local_api_delete_all(struct local_api *api, const char *prefix, const struct strv *names,
	uint32_t max_at_a_time, void (*failed)(const char *name, const char *why), struct err *err);

/* http.h - the HTTP server: libmicrohttpd with a thread per connection, an accept thread of our
 * own, deadlines, and what the library lets through (design.md 3). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct backend;
struct p2p_config;
struct err;
struct server;

struct volumes;

/* What a server serves: one of two sets of routes, each on an address of its own. */
struct server_config {
	bool is_volumes; /* the volume API; else Garden */
	struct backend *backend;
	struct volumes *volumes;
	const struct p2p_config *p2p;
	const char *bind_ip, *socket_path; /* socket_path NULL: none */
	uint16_t port; /* 0: a free one */
	mode_t socket_mode;
	int header_timeout_ms, body_timeout_ms, idle_timeout_ms;
	int stall_ms; /* a reader that holds up others for this long is cut off */
};

/* Serves when this returns; address is then "ip:port" (at least 64 bytes). */
int server_start(const struct server_config *config, struct server **ret_server, char *address,
	struct err *err);
/* Stops accepting, lets plain requests finish, ends streams by FIN, frees. */
void server_stop(struct server *server);

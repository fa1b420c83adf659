/* http.h - the HTTP server: libmicrohttpd with a thread per connection, an accept thread of our
 * own, deadlines, and what the library lets through (design.md 3). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct backend;
struct health_config;
struct p2p_config;
struct err;
struct server;

struct volumes;

/* What a server serves: one of the sets of routes, each on an address of its own. */
enum service { SERVICE_GARDEN, SERVICE_VOLUMES, SERVICE_HEALTH, SERVICE_DEBUG };

struct server_config {
	enum service service;
	struct backend *backend;
	struct volumes *volumes;
	const struct p2p_config *p2p;
	const struct health_config *health; /* of SERVICE_HEALTH and SERVICE_DEBUG */
	const char *bind_ip, *socket_path; /* socket_path NULL: none */
	uint16_t port; /* 0: a free one */
	mode_t socket_mode;
	int header_timeout_ms, body_timeout_ms, idle_timeout_ms;
	int stall_ms; /* a reader that holds up others for this long is cut off */
};

/* Listens when this returns; address is then "ip:port" (at least 64 bytes). Connections wait. */
int server_listen(const struct server_config *config, struct server **ret_server, char *address,
	struct err *err);
/* Serves when this returns, from these. */
int server_serve(
	struct server *server, struct backend *backend, struct volumes *volumes, struct err *err);
/* Both, with what config names. */
int server_start(const struct server_config *config, struct server **ret_server, char *address,
	struct err *err);
/* Stops accepting, lets plain requests finish, ends streams by FIN, frees. NULL is allowed. */
void server_stop(struct server *server);

/* connections.h - who is connected: listening, accepting, limits, and deadlines that a trickle of
 * bytes cannot stretch. One thread; the connections themselves live in threads of the HTTP library,
 * which report their phase. */
#pragma once
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct connection;
struct connections;
struct err;

enum phase {
	PHASE_HEADER, /* new: the whole head must come within the timeout */
	PHASE_BODY, /* the whole body */
	PHASE_IDLE, /* between two requests, up to the end of the next head */
	PHASE_BUSY, /* a handler runs: no deadline; the stop waits for it */
	PHASE_STREAM, /* hijacked: no deadline; the stop ends it */
	PHASE_UPLOAD, /* a body without end is being read: no deadline; the stop cuts it off */
	N_PHASES
};

struct connections_config {
	const char *bind_ip, *socket_path; /* socket_path NULL: none */
	uint16_t port;
	mode_t socket_mode;
	unsigned n_max; /* connections at a time; 0: as many as descriptors allow */
	int timeout_ms[N_PHASES]; /* 0: none */
	void (*on_accept)(void *arg, int take_fd, const struct sockaddr *address, socklen_t len);
	void *arg;
};

/* Listens; address becomes "ip:port" (64 bytes). */
int connections_open(const struct connections_config *config, struct connections **ret,
	char *address, struct err *err);
/* Starts to accept. */
int connections_serve(struct connections *connections, struct err *err);
/* Accepts no more, makes the stop descriptor readable, waits (30 s at most) until no handler runs.
 */
void connections_stop(struct connections *connections);
void connections_close(struct connections *connections); /* after the last connection_leave */
int connections_stop_fd(const struct connections *connections);

struct connection *connection_enter(
	struct connections *connections, int fd); /* PHASE_HEADER; NULL: no memory */
void connection_set_phase(struct connection *connection, enum phase phase);
void connection_leave(struct connection *connection); /* before fd is closed */

/* session.h - one connection to one of the cluster's gateways, from the start of ssh to its end. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/worker/gateway.h"

enum session_state {
	SESSION_CONNECTING, /* ssh is on its way */
	SESSION_REGISTERING, /* connected; the cluster looks at us */
	SESSION_REGISTERED,
	SESSION_LEAVING, /* no longer registered; what goes on through the tunnels may end */
};

enum session_news {
	SESSION_NOTHING,
	SESSION_IS_REGISTERED, /* for the first time */
	SESSION_LOST, /* it is of no use any more; reason says why */
	SESSION_LEFT, /* the cluster has ended the registration: landed, retired, or forgotten */
};

struct lines {
	char text[1024];
	size_t len;
};

struct session {
	enum session_state state;
	unsigned id;
	const char *at; /* borrowed */
	struct child connection, registration; /* ssh itself; forward-worker in it */
	int64_t since_ms; /* in this state */
	bool is_told; /* that we want to land or retire */
	uint64_t n_bytes; /* LEAVING: what had come through at since_ms */
	struct lines log, events;
	char reason[256]; /* why it is of no use: ssh's last word, or what it means */
	bool is_explained;
};

/* at stays the caller's. */
int session_start(struct session *ret_session, const struct gateway *gateway, unsigned id,
	const char *at, struct err *err);
/* All at once. */
void session_end(struct session *session, const struct gateway *gateway);

/* Call when the directory of the gateway has changed: a connection that is ready goes on to register. */
enum session_news session_look(
	struct session *session, const struct gateway *gateway, const struct worker_config *config);
/* Of descriptors[0..3], which stand for those of session_descriptors, any may be ready. */
enum session_news session_handle(struct session *session);
/* The registration ends; what goes on may go on. */
void session_leave(struct session *session);
/* How many connections of the cluster's go through it. */
unsigned session_n_tunnelled(const struct session *session);
/* Of one that has left: whether more has come through since since_ms than signs of life; if so, its time begins anew. */
bool session_goes_on(struct session *session);

#define SESSION_N_FDS 4
/* -1 where there is none. */
void session_descriptors(const struct session *session, int fds[SESSION_N_FDS]);

/* link.h - the server's ends of its sockets to shims: calls with answers, and events. One thread
 * reads all sockets; callers wait on their own call. Threads: any may call. Locks: links_lock is
 * innermost but for db; the event callbacks run with it held, must not block and must not call into
 * this module except link_post. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/msg.h"
#include "shim/protocol.h"

struct err;
struct links;
struct link;

#define LINK_TIMEOUT_MS 10000

struct link_events {
	void (*exited)(void *owner, const struct msg *msg);
	void (*dead)(void *owner, const struct msg *msg); /* msg NULL: the shim itself is gone */
	void (*hit)(void *owner, const struct msg *msg);
};

/* The answer to a call; answer_done closes what nobody has taken. Its room is there before the call is sent: what
 * was done must not be lost for want of memory. */
struct answer {
	unsigned char body[sizeof(struct msg_process)]; /* the longest that is read */
	int fds[MSG_MAX_FDS];
	unsigned n_fds;
	int64_t at_us; /* clock_us, when it came */
};
void answer_done(struct answer *answer);
/* Copies the fixed part, zero-filled behind what was sent. */
void answer_body(const struct answer *answer, void *ret, size_t n_bytes);

int links_open(const struct link_events *events, struct links **ret_links, struct err *err);
void links_close(struct links *links); /* after every link is closed */

/* take_fd: a connected SOCK_SEQPACKET. Events carry owner until link_close returns. */
int link_open(
	struct links *links, int take_fd, void *owner, struct link **ret_link, struct err *err);
void link_close(struct link *link); /* NULL is allowed */

/* Sends now; the answer is fetched by link_wait with the number returned (> 0), or -errno. */
int64_t link_send(struct link *link, const struct msg *msg);
/* 0, -ETIMEDOUT (ERR_TIMEOUT), -ESRCH: the container is gone. answer may be NULL. */
int link_wait(
	struct link *link, int64_t seq, int timeout_ms, struct answer *ret_answer, struct err *err);
/* Both. */
int link_call(struct link *link, const struct msg *msg, struct answer *ret_answer, struct err *err);
/* Without waiting for room or an answer. */
void link_post(struct link *link, const struct msg *msg);
/* Waits for room, but there is no answer. 0 or -errno. */
int link_tell(struct link *link, const struct msg *msg);

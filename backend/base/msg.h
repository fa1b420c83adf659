/* msg.h - messages with descriptors over a SOCK_SEQPACKET pair: a head, a body, up to MSG_MAX_FDS
 * descriptors. A body over MSG_INLINE_BYTES travels in a sealed memfd, since a SEQPACKET ends near
 * 208 KiB. Bodies are C structs with fixed-width members and grow at the end only: msg_body() fills
 * what an older peer did not send with zero, so both directions of an upgrade work.
 * Needs no heap: for the server, the shim and init alike. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define MSG_MAX_FDS 8
#define MSG_INLINE_BYTES 65536
#define MSG_BODY_MAX (8u << 20)

struct msg_head {
	uint32_t magic, seq, body_bytes;
	uint16_t type, in_memfd;
};

struct msg {
	uint16_t type;
	uint32_t seq; /* a reply carries the number of its request */
	void *body; /* writable; valid until msg_done or the next msg_recv into the same space */
	size_t body_bytes;
	int fds[MSG_MAX_FDS];
	unsigned n_fds;
	void *map; /* set when the body came in a memfd */
};

/* Blocks while the socket is full. 0, -EMSGSIZE, or what sendmsg said (-EPIPE: the peer is gone).
 */
int msg_send(int sock_fd, const struct msg *msg);
/* The same, but -EAGAIN instead of blocking. */
int msg_post(int sock_fd, const struct msg *msg);

/* Blocks for one message; its body lies in space (at least MSG_INLINE_BYTES) or is mapped.
 * 0, -ENODATA: the peer has closed, -EPROTO: not ours, or an errno. Call msg_done after success.
 * flags: 0 or MSG_DONTWAIT. */
int msg_recv(int sock_fd, struct msg *msg, void *space, int flags);

/* Closes the descriptors that nobody has taken (set to -1) and unmaps. */
void msg_done(struct msg *msg);

/* Copies the fixed part of the body into a struct of n_bytes, zero-filled behind what was sent. */
void msg_body(const struct msg *msg, void *ret, size_t n_bytes);

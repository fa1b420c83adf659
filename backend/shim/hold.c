#include "shim/hold.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "linux/tcp.h"
#include "shim/shim.h"

struct held {
	TAILQ_ENTRY(held) entry;
	struct msg_hold about;
	int fd;
	uint64_t end; /* the offset behind which our FIN goes; of no use before has_end */
	bool has_end, is_orphan, has_peer_end;
	bool is_poured; /* has no FIN yet: its process has ended, and all of its output is to come first */
};

static void drop(struct shim *shim, struct held *held)
{
	TAILQ_REMOVE(&shim->helds, held, entry);
	shim->n_helds--;
	auto_fd(&held->fd);
	free(held);
}

/* Of the server that is there. */
static struct held *find(struct shim *shim, uint32_t id)
{
	struct held *held;

	TAILQ_FOREACH (held, &shim->helds, entry)
		if (held->about.id == id && !held->is_orphan)
			return held;
	return NULL;
}

/* Processes have to be started too. */
static bool takes_too_much(int fd)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd > limit.rlim_cur / 4 * 3;
}

void hold_take(struct shim *shim, struct msg *msg)
{
	struct held *held = NULL;

	if (msg->n_fds == 1 && !takes_too_much(msg->fds[0]))
		held = calloc(1, sizeof(*held));
	if (!held)
		return;
	msg_body(msg, &held->about, sizeof(held->about));
	held->fd = TAKE_FD(msg->fds[0]);
	TAILQ_INSERT_HEAD(&shim->helds, held, entry);
	shim->n_helds++;
}

void hold_end(struct shim *shim, struct msg *msg)
{
	struct msg_hold_end body;
	struct held *held;

	msg_body(msg, &body, sizeof(body));
	held = find(shim, body.id);
	if (held) {
		held->end = body.end;
		held->has_end = true;
	}
}

void hold_let_go(struct shim *shim, struct msg *msg)
{
	struct msg_hold_end body;
	struct held *held;

	msg_body(msg, &body, sizeof(body));
	held = find(shim, body.id);
	if (held)
		drop(shim, held);
}

/* ---- after the server's end ------------------------------------------------------------------ */

static bool is_stream(const struct held *held)
{
	return held->about.is_tcp && held->about.stream < N_STREAMS;
}

/* NULL: all of it was delivered. */
static struct ring *ring_of(struct shim *shim, const struct held *held)
{
	struct proc *proc = shim_find(shim, held->about.token);

	return proc && proc->rings[held->about.stream].shared ? &proc->rings[held->about.stream]
							      : NULL;
}

/* Nobody else moves the tail now: a server that comes lets nobody read before all is settled. */
static void note(struct shim *shim, const struct held *held, uint64_t acked)
{
	struct ring *ring = ring_of(shim, held);

	if (!ring || acked > atomic_load(&ring->shared->head))
		return;
	if (acked > atomic_load(ring->resume))
		atomic_store(ring->resume, acked);
	if (acked > atomic_load(&ring->shared->tail))
		ring_release(ring, acked);
}

/* True once nothing more of it can be acknowledged. */
static bool look(struct shim *shim, const struct held *held)
{
	struct tcp_peer peer;
	uint64_t acked;

	if (!is_stream(held) || !tcp_look(held->fd, &peer))
		return true;
	acked = held->about.start;
	if (peer.acked_bytes > held->about.base)
		acked += peer.acked_bytes - held->about.base;
	if (acked > held->end)
		acked = held->end; /* the FIN was counted too */
	note(shim, held, acked);
	return peer.is_closed || (acked == held->end && !held->is_poured);
}

/* What the next write takes; 0: nothing for now, or the end, which is then written. */
static size_t next_piece(struct shim *shim, struct held *held, const unsigned char **ret_data)
{
	struct ring *ring = ring_of(shim, held);
	bool is_closed = !ring || atomic_load(&ring->shared->closed);
	size_t n = ring ? ring_peek(ring, held->end, ret_data) : 0;

	if (n == 0 && is_closed) {
		held->is_poured = false;
		shutdown(held->fd, SHUT_WR);
	}
	return n;
}

/* Its client may have heard of the exit, and will not ask again: an end before all of the output would
 * be taken for the end of it. */
static void pour(struct shim *shim, struct held *held)
{
	const unsigned char *data;
	ssize_t n = 1;

	while (held->is_poured && n > 0) {
		size_t n_bytes = next_piece(shim, held, &data);

		n = n_bytes ? send(held->fd, data, n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
		held->end += n > 0 ? (uint64_t)n : 0;
	}
	if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM) {
		held->is_poured = false;
		shutdown(held->fd, SHUT_WR);
	}
}

static bool has_exited(struct shim *shim, const struct held *held)
{
	struct proc *proc = shim_find(shim, held->about.token);

	return proc && proc->state == PROCESS_EXITED;
}

static void end_one(struct shim *shim, struct held *held)
{
	uint64_t given;

	held->is_orphan = true;
	if (!held->has_end && tcp_given(held->fd, &given)) {
		held->end = held->about.start +
			(given > held->about.base ? given - held->about.base : 0);
		held->is_poured = is_stream(held) && has_exited(shim, held);
	}
	if (held->is_poured)
		pour(shim, held);
	else
		shutdown(held->fd, SHUT_WR);
	look(shim, held);
}

void hold_all_ends(struct shim *shim)
{
	struct held *held;

	TAILQ_FOREACH (held, &shim->helds, entry)
		if (!held->is_orphan)
			end_one(shim, held);
}

unsigned hold_settle(struct shim *shim, uint32_t token, bool is_over)
{
	struct held *held, *next;
	unsigned n = 0;

	for (held = TAILQ_FIRST(&shim->helds); held; held = next) {
		next = TAILQ_NEXT(held, entry);
		if (held->about.token != token || !held->is_orphan || look(shim, held))
			continue;
		if (is_over) {
			tcp_give_up(held->fd);
			drop(shim, held);
		} else {
			n++;
		}
	}
	return n;
}

/* Behind a peer's FIN the socket is always ready, and only an edge tells of the last acknowledgement. Without
 * room for that it is looked at when the next server asks. */
static void await_close(struct shim *shim, const struct held *held)
{
	struct epoll_event edge = { .events = EPOLLET };

	if (shim->closing_fd < 0)
		shim->closing_fd = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(shim->closing_fd, EPOLL_CTL_ADD, held->fd, &edge);
}

size_t hold_fill_polls(struct shim *shim, struct pollfd *polls, size_t n_room)
{
	const unsigned char *data;
	struct held *held;
	size_t n = 0;

	if (n_room)
		polls[n++] = (struct pollfd){ .fd = shim->closing_fd, .events = POLLIN };
	TAILQ_FOREACH (held, &shim->helds, entry) {
		if (!held->is_orphan || n == n_room)
			continue;
		polls[n] = (struct pollfd){ .fd = held->has_peer_end ? -1 : held->fd,
			.events = POLLIN };
		if (held->is_poured && next_piece(shim, held, &data)) {
			polls[n].fd = held->fd;
			polls[n].events = held->has_peer_end ? POLLOUT : POLLIN | POLLOUT;
		}
		n++;
	}
	return n;
}

/* What the peer still says is read away: left unread, it would make a RST of our end. */
static void hear(struct shim *shim, struct held *held)
{
	char nowhere[16384];
	ssize_t n = recv(held->fd, nowhere, sizeof(nowhere), MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	if (!held->has_peer_end)
		await_close(shim, held);
	held->has_peer_end = true;
	if (look(shim, held))
		drop(shim, held);
}

/* True: one of those behind a peer's FIN may be closed. */
static bool has_edge(const struct shim *shim, const struct pollfd *closing)
{
	struct epoll_event edges[16];

	return closing->revents && epoll_wait(shim->closing_fd, edges, N_ELEMENTS(edges), 0) > 0;
}

void hold_serve(struct shim *shim, const struct pollfd *polls, size_t n_polls)
{
	bool is_edge = n_polls && has_edge(shim, &polls[0]);
	struct held *held, *next;
	size_t n = 1;

	for (held = TAILQ_FIRST(&shim->helds); held && n < n_polls; held = next) {
		next = TAILQ_NEXT(held, entry);
		if (!held->is_orphan)
			continue;
		if (polls[n].revents & POLLOUT)
			pour(shim, held);
		if (polls[n++].revents & ~POLLOUT || (held->has_peer_end && is_edge))
			hear(shim, held);
	}
}

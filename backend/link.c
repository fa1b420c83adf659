#include "link.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "shim/protocol.h"

/* A call that has been sent; it lives until somebody has waited for it. */
struct pending {
	TAILQ_ENTRY(pending) entry;
	uint32_t seq;
	bool is_done, is_lost;
	struct answer answer;
};

struct link {
	TAILQ_ENTRY(link) entry;
	struct links *links;
	void *owner;
	int fd;
	uint32_t next_seq;
	bool is_gone, is_closed;
	bool has_news; /* for those who wait: they are woken when the socket is empty */
	pthread_cond_t answered;
	TAILQ_HEAD(pending_list, pending) calls;
};

struct links {
	pthread_mutex_t lock; /* guards everything below and every link */
	pthread_t thread;
	int epoll_fd, wake_fd;
	bool is_ending;
	struct link_events events;
	TAILQ_HEAD(link_list, link)
	closed; /* freed by the thread, which may still hold events for them */
	_Alignas(16) unsigned char space[MSG_INLINE_BYTES];
};

void answer_done(struct answer *answer)
{
	for (unsigned i = 0; i < answer->n_fds; i++)
		auto_fd(&answer->fds[i]);
	*answer = (struct answer){ 0 };
}

void answer_body(const struct answer *answer, void *ret, size_t n_bytes)
{
	msg_body(&(struct msg){ .body = (void *)answer->body, .body_bytes = sizeof(answer->body) },
		ret, n_bytes);
}

/* ---- the reading thread, lock held ----------------------------------------------------------- */

static void finish_call(struct link *link, struct msg *msg)
{
	struct pending *call;

	TAILQ_FOREACH (call, &link->calls, entry)
		if (call->seq == msg->seq)
			break;
	if (!call || call->is_done) /* a second answer is none */
		return;
	call->is_done = true;
	link->has_news = true;
	call->answer.at_us = clock_us();
	msg_body(msg, call->answer.body, sizeof(call->answer.body));
	call->answer.n_fds = msg->n_fds;
	for (unsigned i = 0; i < msg->n_fds; i++)
		call->answer.fds[i] = TAKE_FD(msg->fds[i]);
}

static void lose_calls(struct link *link)
{
	struct pending *call;

	TAILQ_FOREACH (call, &link->calls, entry)
		call->is_lost = !call->is_done;
	link->has_news = true;
}

static void link_gone(struct link *link)
{
	if (link->is_gone)
		return;
	link->is_gone = true;
	epoll_ctl(link->links->epoll_fd, EPOLL_CTL_DEL, link->fd, NULL);
	lose_calls(link);
	link->links->events.dead(link->owner, NULL);
}

static void dispatch(struct link *link, struct msg *msg)
{
	switch (msg->type) {
	case MSG_REPLY:
		finish_call(link, msg);
		break;
	case MSG_EXITED:
		link->links->events.exited(link->owner, msg);
		break;
	case MSG_HIT:
		link->links->events.hit(link->owner, msg);
		break;
	case MSG_DEAD:
		lose_calls(link);
		link->links->events.dead(link->owner, msg);
		break;
	default:
		break;
	}
}

static void read_link(struct link *link)
{
	struct msg msg;
	int r = 0;

	while (!link->is_closed && r == 0) {
		r = msg_recv(link->fd, &msg, link->links->space, MSG_DONTWAIT);
		if (r == 0) {
			dispatch(link, &msg);
			msg_done(&msg);
		}
	}
	if (r == -ENODATA || r == -EPROTO)
		link_gone(link);
	if (link->has_news)
		pthread_cond_broadcast(&link->answered);
	link->has_news = false;
}

static void free_closed(struct links *links)
{
	struct link *link;

	while ((link = TAILQ_FIRST(&links->closed))) {
		TAILQ_REMOVE(&links->closed, link, entry);
		close(link->fd);
		pthread_cond_destroy(&link->answered);
		free(link);
	}
}

static void *read_links(void *arg)
{
	struct links *links = arg;
	struct epoll_event events[16];
	uint64_t count;

	for (;;) {
		int n = epoll_wait(links->epoll_fd, events, N_ELEMENTS(events), -1);

		pthread_mutex_lock(&links->lock);
		for (int i = 0; i < n; i++) {
			if (!events[i].data.ptr)
				(void)!read(links->wake_fd, &count, sizeof(count));
			else
				read_link(events[i].data.ptr);
		}
		free_closed(links);
		if (links->is_ending)
			break;
		pthread_mutex_unlock(&links->lock);
	}
	pthread_mutex_unlock(&links->lock);
	return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

int links_open(const struct link_events *events, struct links **ret_links, struct err *err)
{
	struct links *links = calloc(1, sizeof(*links));
	struct epoll_event wake = { .events = EPOLLIN };

	if (!links)
		return err_system(err, -ENOMEM, "shim links");
	TAILQ_INIT(&links->closed);
	links->events = *events;
	pthread_mutex_init(&links->lock, NULL);
	links->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	links->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (links->epoll_fd < 0 || links->wake_fd < 0 ||
		epoll_ctl(links->epoll_fd, EPOLL_CTL_ADD, links->wake_fd, &wake) < 0 ||
		pthread_create(&links->thread, NULL, read_links, links)) {
		int r = -errno;

		auto_fd(&links->epoll_fd);
		auto_fd(&links->wake_fd);
		free(links);
		return err_system(err, r, "shim links");
	}
	*ret_links = links;
	return 0;
}

static void wake(struct links *links)
{
	uint64_t one = 1;

	(void)!write(links->wake_fd, &one, sizeof(one));
}

void links_close(struct links *links)
{
	if (!links)
		return;
	pthread_mutex_lock(&links->lock);
	links->is_ending = true;
	pthread_mutex_unlock(&links->lock);
	wake(links);
	pthread_join(links->thread, NULL);
	close(links->epoll_fd);
	close(links->wake_fd);
	pthread_mutex_destroy(&links->lock);
	free(links);
}

static uint32_t random_seq(void)
{
	uint32_t seq = 0;

	if (getrandom(&seq, sizeof(seq), 0) != sizeof(seq))
		seq = 1;
	return (seq >> 1) | 1;
}

int link_open(
	struct links *links, int take_fd, void *owner, struct link **ret_link, struct err *err)
{
	AUTO_FD int fd = take_fd;
	struct timeval timeout = { .tv_sec = LINK_TIMEOUT_MS / 1000 };
	struct epoll_event event = { .events = EPOLLIN };
	struct link *link = calloc(1, sizeof(*link));
	int r;

	if (!link)
		return err_system(err, -ENOMEM, "shim link");
	/* a shim may still answer what its last server has asked */
	*link = (struct link){ .links = links, .owner = owner, .fd = fd, .next_seq = random_seq() };
	TAILQ_INIT(&link->calls);
	clock_cond_init(&link->answered);
	event.data.ptr = link;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	r = epoll_ctl(links->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
	if (r < 0) {
		pthread_cond_destroy(&link->answered);
		free(link);
		return err_system(err, r, "shim link");
	}
	(void)TAKE_FD(fd);
	*ret_link = link;
	return 0;
}

static void free_calls(struct link *link)
{
	struct pending *call;

	while ((call = TAILQ_FIRST(&link->calls))) {
		TAILQ_REMOVE(&link->calls, call, entry);
		answer_done(&call->answer);
		free(call);
	}
}

void link_close(struct link *link)
{
	struct links *links;

	if (!link)
		return;
	links = link->links;
	pthread_mutex_lock(&links->lock);
	if (!link->is_gone)
		epoll_ctl(links->epoll_fd, EPOLL_CTL_DEL, link->fd, NULL);
	link->is_closed = true;
	free_calls(link);
	TAILQ_INSERT_TAIL(&links->closed, link, entry);
	pthread_mutex_unlock(&links->lock);
	wake(links);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* The call is known before the answer can come. Sending happens outside of the lock: it may block.
 */
int64_t link_send(struct link *link, const struct msg *msg)
{
	struct pending *call = link ? calloc(1, sizeof(*call)) : NULL;
	struct msg numbered = *msg;
	int r;

	if (!call)
		return link ? -ENOMEM : -ESRCH; /* not adopted, and not removed either */
	pthread_mutex_lock(&link->links->lock);
	call->seq = numbered.seq = link->next_seq++;
	call->is_lost = link->is_gone;
	TAILQ_INSERT_TAIL(&link->calls, call, entry);
	pthread_mutex_unlock(&link->links->lock);
	r = msg_send(link->fd, &numbered);
	if (r == 0)
		return numbered.seq;
	pthread_mutex_lock(&link->links->lock);
	TAILQ_REMOVE(&link->calls, call, entry);
	pthread_mutex_unlock(&link->links->lock);
	answer_done(&call->answer);
	free(call);
	return r;
}

static struct pending *find_call(struct link *link, int64_t seq)
{
	struct pending *call;

	TAILQ_FOREACH (call, &link->calls, entry)
		if (call->seq == (uint32_t)seq)
			return call;
	return NULL;
}

int link_wait(
	struct link *link, int64_t seq, int timeout_ms, struct answer *ret_answer, struct err *err)
{
	struct timespec deadline = clock_deadline(timeout_ms);
	struct answer answer = { 0 };
	struct pending *call;
	int r = 0;

	pthread_mutex_lock(&link->links->lock);
	call = find_call(link, seq);
	while (call && !call->is_done && !call->is_lost && r == 0)
		r = pthread_cond_timedwait(&link->answered, &link->links->lock, &deadline);
	if (!call)
		r = EINVAL;
	else if (call->is_done)
		r = 0;
	else if (call->is_lost)
		r = ESRCH;
	if (call) {
		TAILQ_REMOVE(&link->calls, call, entry);
		answer = call->answer;
		free(call);
	}
	pthread_mutex_unlock(&link->links->lock);
	if (r == 0 && ret_answer)
		*ret_answer = answer;
	else
		answer_done(&answer);
	if (r == ETIMEDOUT)
		return err_set(err, ERR_TIMEOUT, r, "the container's shim does not answer");
	return r ? err_set(err, ERR_SYSTEM, r, "the container is dead") : 0;
}

int link_call(struct link *link, const struct msg *msg, struct answer *ret_answer, struct err *err)
{
	int64_t seq = link_send(link, msg);

	if (seq == -EAGAIN)
		return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the container's shim does not answer");
	if (seq < 0)
		return err_system(err, (int)seq, "message to the container's shim");
	return link_wait(link, seq, LINK_TIMEOUT_MS, ret_answer, err);
}

void link_post(struct link *link, const struct msg *msg)
{
	if (link)
		msg_post(link->fd, msg);
}

int link_tell(struct link *link, const struct msg *msg)
{
	return link ? msg_send(link->fd, msg) : -ESRCH;
}

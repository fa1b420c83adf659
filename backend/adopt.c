#include "adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/msg.h"
#include "base/registry.h"
#include "container.h"
#include "link.h"
#include "pea.h"
#include "process.h"

#define RETRY_MS 5 /* behind a shim whose queue is full of dead servers */

/* ---- processes ------------------------------------------------------------------------------- */

/* Two of one name: a run that timed out came true after all. The container matters more. */
static int enter_table(struct container *container, struct process *process, struct err *err)
{
	int r;

	pthread_mutex_lock(&container->table_lock);
	r = registry_add(container->processes, process->id, process);
	if (container->next_token <= process->token)
		container->next_token = process->token + 1;
	pthread_mutex_unlock(&container->table_lock);
	if (r == 0)
		return 1;
	LOG(LOG_WARN, "process-not-adopted", KV_STR("handle", container->handle),
		KV_STR("process", process->id));
	process_put(process);
	return r == -EEXIST ? 0 : err_system(err, r, "adopt a process");
}

/* It may be another one of that name, see above. */
static int end_process(struct container *container, uint32_t token, const struct msg_process *told)
{
	struct msg_end end = { told->exited, told->usage };
	struct process *process = process_find(container, told->process_id);

	if (process && process->token == token) {
		pthread_mutex_lock(&container->table_lock);
		container_note_end(container, process->id, &end);
		pthread_mutex_unlock(&container->table_lock);
		process_set_exited(process, &end);
	}
	process_put(process);
	return 0;
}

/* Takes what of fds it needs. 1: it is in the table. */
static int add_process(struct container *container, uint32_t token, struct msg_process *told,
	int fds[3], struct err *err)
{
	struct process *process;

	told->process_id[sizeof(told->process_id) - 1] = '\0';
	process = process_new(container, told->process_id, token, told->tty, TAKE_FD(fds[0]),
		TAKE_FD(fds[1]), TAKE_FD(fds[2]));
	if (!process)
		return err_system(err, -ENOMEM, "adopt");
	process->is_started = process->is_unsettled = true;
	process->is_pea = pea_is_one(container, token);
	return enter_table(container, process, err);
}

static int ask_for(struct container *container, uint32_t token, struct msg_process *ret_told,
	int fds[3], struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	struct msg_token body = { .token = token };
	int r = link_call(container->link,
		&(struct msg){ .type = MSG_ADOPT, .body = &body, .body_bytes = sizeof(body) },
		&answer, err);

	if (r < 0)
		return r;
	answer_body(&answer, ret_told, sizeof(*ret_told));
	ret_told->process_id[sizeof(ret_told->process_id) - 1] = '\0';
	for (unsigned i = 0; fds && i < answer.n_fds && i < 3; i++)
		fds[i] = TAKE_FD(answer.fds[i]);
	return 0;
}

/* Through the link, so that it may end meanwhile. */
static int adopt_process(struct container *container, uint32_t token, struct err *err)
{
	struct msg_process told;
	int fds[3] = { -1, -1, -1 };
	int r = ask_for(container, token, &told, fds, err);

	if (r == 0)
		r = add_process(container, token, &told, fds, err);
	if (r <= 0)
		return r;
	/* an exit that was told before the table knew the process was told to nobody: ask again */
	if (told.state != PROCESS_EXITED && ask_for(container, token, &told, NULL, err) < 0)
		return -ESRCH;
	return told.state == PROCESS_EXITED ? end_process(container, token, &told) : 0;
}

/* ---- the answer in one piece ------------------------------------------------------------------- */

struct welcome {
	struct msg_welcome_all all;
	struct msg *msg;
	unsigned next_fd;
};

/* By what the shim knows of the struct. */
static void copy_told(const struct welcome *welcome, uint32_t n, struct msg_told *ret)
{
	const char *from = (const char *)welcome->msg->body + sizeof(welcome->all) +
		(size_t)n * welcome->all.told_bytes;
	size_t n_bytes = welcome->all.told_bytes;

	memset(ret, 0, sizeof(*ret));
	memcpy(ret, from, n_bytes < sizeof(*ret) ? n_bytes : sizeof(*ret));
}

static int take_next(struct welcome *welcome)
{
	unsigned n = welcome->next_fd++;

	return n < welcome->msg->n_fds ? TAKE_FD(welcome->msg->fds[n]) : -1;
}

static int add_told(struct container *container, struct welcome *welcome, struct err *err)
{
	int r = 0;

	for (uint32_t n = 0; n < welcome->all.n_told && r >= 0; n++) {
		int fds[3] = { -1, -1, -1 };
		struct msg_told told;

		copy_told(welcome, n, &told);
		for (unsigned i = 0; i < told.n_fds && i < 3; i++)
			fds[i] = take_next(welcome);
		r = FAULT(adopt_told, err);
		if (r == 0 && !told.is_partial)
			r = add_process(container, told.token, &told.process, fds, err);
	}
	return r < 0 ? r : 0;
}

/* What must not happen before there is a link. */
static int finish_told(struct container *container, struct welcome *welcome, struct err *err)
{
	int r = 0;

	for (uint32_t n = 0; n < welcome->all.n_told && r == 0; n++) {
		struct msg_told told;

		copy_told(welcome, n, &told);
		if (told.is_partial)
			r = adopt_process(container, told.token, err);
		else if (told.process.state == PROCESS_EXITED)
			r = end_process(container, told.token, &told.process);
	}
	return r;
}

/* The shim has the files still; what has changed, it is given anew. */
static void adopt_watch(struct container *container, const struct msg_watched *watched)
{
	if (!watched->given || watched->memory_limit_bytes != container->limits.memory_bytes ||
		watched->explains != container->backend->config.explains_oom) {
		container_watch(container);
		return;
	}
	pthread_mutex_lock(&container->table_lock);
	container->watch.n_oom_kills = watched->oom_kills;
	container->watch.n_pids_hits = watched->pids_hits;
	container->watch.has_been_oom = watched->oom_kills > 0;
	pthread_mutex_unlock(&container->table_lock);
}

static int open_link(struct adoption *adoption)
{
	struct container *container = adoption->container;

	if (fcntl(adoption->fd, F_SETFL, 0) < 0)
		return err_system(&adoption->err, -errno, "socket of the shim");
	return link_open(container->backend->links, TAKE_FD(adoption->fd), container,
		&container->link, &adoption->err);
}

/* Events wait in the socket until the table knows whom they are about. */
static int take_all(struct adoption *adoption, struct msg *msg)
{
	struct container *container = adoption->container;
	struct welcome welcome = { .msg = msg, .next_fd = 2 };
	int r;

	msg_body(msg, &welcome.all, sizeof(welcome.all));
	if (welcome.all.told_bytes < offsetof(struct msg_told, process.usage) ||
		msg->body_bytes <
			sizeof(welcome.all) + (uint64_t)welcome.all.n_told * welcome.all.told_bytes)
		return err_set(&adoption->err, ERR_SYSTEM, EPROTO, "the shim's answer is cut");
	r = add_told(container, &welcome, &adoption->err);
	if (r == 0)
		r = open_link(adoption);
	if (r < 0)
		return r;
	adopt_watch(container, &welcome.all.watch);
	return finish_told(container, &welcome, &adoption->err);
}

/* The answer of an older shim, or of one without memory. */
static int take_tokens(struct adoption *adoption, struct msg *msg)
{
	AUTO_FREE struct msg_welcome *welcome = calloc(1, sizeof(*welcome));
	int r = welcome ? open_link(adoption) : err_system(&adoption->err, -ENOMEM, "adopt");

	if (r < 0)
		return r;
	msg_body(msg, welcome, sizeof(*welcome));
	for (uint32_t i = 0; i < welcome->n_tokens && i < N_ELEMENTS(welcome->tokens) && r == 0;
		i++)
		r = adopt_process(adoption->container, welcome->tokens[i], &adoption->err);
	container_watch(adoption->container);
	return r;
}

static int take_answer(struct adoption *adoption, struct msg *msg)
{
	struct container *container = adoption->container;
	struct msg_welcome_all head; /* both answers begin alike */
	int r;

	msg_body(msg, &head, sizeof(head));
	if (head.reply.code < 0 || head.protocol != SHIM_PROTOCOL || msg->n_fds < 2)
		return err_set(&adoption->err, ERR_SYSTEM, EPROTO,
			"the shim is not ours, or not of our version");
	container->root_fd = TAKE_FD(msg->fds[0]);
	container->kick_fd = TAKE_FD(msg->fds[1]);
	r = head.reply.value == WELCOME_ALL ? take_all(adoption, msg) : take_tokens(adoption, msg);
	if (r == 0)
		pea_recover(container);
	if (r == 0 && head.state == SHIM_DEAD)
		container_on_dead(container, &(struct msg){ .type = MSG_DEAD });
	return r;
}

/* ---- all shims --------------------------------------------------------------------------------- */

/* -EAGAIN: its queue is full. */
static int greet(struct backend *backend, struct adoption *adoption)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct msg_hello hello = { .protocol = SHIM_PROTOCOL, .wants_all = 1 };
	int r;

	if (adoption->fd < 0)
		adoption->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", backend->run_fd,
		adoption->id);
	if (adoption->fd < 0 ||
		connect(adoption->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	r = FAULT(adopt_connected, NULL);
	if (r < 0)
		return r;
	snprintf(hello.nonce, sizeof(hello.nonce), "%s", adoption->nonce);
	/* it may still answer what its last server has asked */
	if (getrandom(&adoption->seq, sizeof(adoption->seq), 0) < 0)
		adoption->seq = (unsigned)clock_us();
	return msg_post(adoption->fd,
		&(struct msg){ .type = MSG_HELLO,
			.seq = adoption->seq,
			.body = &hello,
			.body_bytes = sizeof(hello) });
}

static void note_greeting(struct adoption *adoption, int r)
{
	adoption->result = r;
	if (r == -EAGAIN)
		err_set(&adoption->err, ERR_TIMEOUT, ETIMEDOUT,
			"the container's shim does not answer");
	else if (r < 0)
		err_system(&adoption->err, r, "connect to the shim");
}

/* One that was not reached yet is tried again until the deadline. */
static void insist(struct backend *backend, struct adoption *adoption, int64_t deadline_ms)
{
	while (adoption->result == -EAGAIN && clock_ms() < deadline_ms) {
		poll(NULL, 0, RETRY_MS);
		note_greeting(adoption, greet(backend, adoption));
	}
}

/* Events of before are in the answer. */
static int hear(struct adoption *adoption, int64_t deadline_ms, struct msg *msg, void *space)
{
	struct pollfd fd = { .fd = adoption->fd, .events = POLLIN };

	for (;;) {
		int64_t left_ms = deadline_ms - clock_ms();
		int r = msg_recv(adoption->fd, msg, space, MSG_DONTWAIT);

		if (r == 0 && msg->type == MSG_REPLY && msg->seq == adoption->seq)
			return 0;
		if (r == 0)
			msg_done(msg);
		else if (r != -EAGAIN)
			return err_system(&adoption->err, r, "the container's shim");
		else if (poll(&fd, 1, left_ms < 0 ? 0 : (int)left_ms) == 0)
			return err_set(&adoption->err, ERR_TIMEOUT, ETIMEDOUT,
				"the container's shim does not answer");
	}
}

static void adopt(struct adoption *adoption, int64_t deadline_ms, void *space)
{
	struct msg msg;

	if (adoption->result == 0)
		adoption->result = hear(adoption, deadline_ms, &msg, space);
	if (adoption->result == 0) {
		adoption->result = take_answer(adoption, &msg);
		msg_done(&msg);
	}
}

static void *greet_all(void *arg)
{
	struct adoptions *adoptions = arg;

	for (size_t i = 0; i < adoptions->n_all; i++) {
		struct adoption *adoption = &adoptions->all[i];

		note_greeting(adoption, greet(adoptions->backend, adoption));
		pthread_mutex_lock(&adoptions->lock);
		adoptions->n_greeted++;
		pthread_cond_signal(&adoptions->more);
		pthread_mutex_unlock(&adoptions->lock);
	}
	return NULL;
}

void adopt_begin(struct adoptions *adoptions)
{
	pthread_mutex_init(&adoptions->lock, NULL);
	pthread_cond_init(&adoptions->more, NULL);
	adoptions->n_greeted = 0;
	for (size_t i = 0; i < adoptions->n_all; i++)
		adoptions->all[i].fd = -1;
	adoptions->has_thread = adoptions->n_all > 1 &&
		pthread_create(&adoptions->thread, NULL, greet_all, adoptions) == 0;
}

static void await_greeting(struct adoptions *adoptions, size_t i)
{
	pthread_mutex_lock(&adoptions->lock);
	while (adoptions->n_greeted <= i)
		pthread_cond_wait(&adoptions->more, &adoptions->lock);
	pthread_mutex_unlock(&adoptions->lock);
}

void adopt_finish(struct adoptions *adoptions)
{
	static unsigned char space[MSG_INLINE_BYTES] __attribute__((aligned(16)));
	int64_t deadline_ms = clock_ms() + LINK_TIMEOUT_MS;

	if (!adoptions->has_thread)
		greet_all(adoptions);
	for (size_t i = 0; i < adoptions->n_all; i++) {
		struct adoption *adoption = &adoptions->all[i];

		await_greeting(adoptions, i);
		if (adoption->container) {
			insist(adoptions->backend, adoption, deadline_ms);
			adopt(adoption, deadline_ms, space);
		}
		auto_fd(&adoption->fd);
	}
	if (adoptions->has_thread)
		pthread_join(adoptions->thread, NULL);
	pthread_cond_destroy(&adoptions->more);
	pthread_mutex_destroy(&adoptions->lock);
}

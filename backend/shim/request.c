/* What the shim does when it is told: the server's requests, each allowed in some states only, and
 * init's answers. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/fault.h"
#include "linux/sys.h"
#include "shim/hold.h"
#include "shim/shim.h"

/* ---- sending --------------------------------------------------------------------------------- */

void shim_send(struct shim *shim, const struct msg *msg)
{
	if (shim->server_fd >= 0)
		msg_send(shim->server_fd, msg); /* one that is gone is noticed when it is read */
}

void shim_reply(struct shim *shim, uint32_t seq, int code, uint32_t step)
{
	struct msg_reply body = { .code = code, .step = step };

	shim_send(shim,
		&(struct msg){
			.type = MSG_REPLY, .seq = seq, .body = &body, .body_bytes = sizeof(body) });
}

struct proc *shim_find(const struct shim *shim, uint32_t token)
{
	struct proc *proc;

	TAILQ_FOREACH (proc, &shim->procs, entry)
		if (proc->token == token)
			return proc;
	return NULL;
}

void shim_add(struct shim *shim, struct proc *proc)
{
	TAILQ_INSERT_TAIL(&shim->procs, proc, entry);
	shim->n_procs++;
}

static void drop(struct shim *shim, struct proc *proc)
{
	TAILQ_REMOVE(&shim->procs, proc, entry);
	shim->n_procs--;
	proc_free(proc);
}

static struct proc *find_for(struct shim *shim, const struct msg *msg)
{
	struct msg_token body;

	msg_body(msg, &body, sizeof(body));
	return shim_find(shim, body.token);
}

/* ---- init ------------------------------------------------------------------------------------ */

/* Init may be about to tell us something and have no room for it: to wait for it blindly would be
 * to wait for each other. */
static int send_to_init(struct shim *shim, const struct msg *msg)
{
	int r = -EPIPE;

	while (shim->init_fd >= 0 && (r = msg_post(shim->init_fd, msg)) == -EAGAIN) {
		struct pollfd init = { .fd = shim->init_fd, .events = POLLIN | POLLOUT };

		if (poll(&init, 1, -1) > 0 && init.revents & (POLLIN | POLLHUP | POLLERR))
			shim_hear_init(shim);
	}
	return shim->init_fd < 0 ? -EPIPE : r;
}

static void forward_to_init(struct shim *shim, struct msg *msg)
{
	int r = send_to_init(shim, msg);

	if (r < 0)
		shim_reply(shim, msg->seq, r == -EPIPE ? -ESRCH : r, 0);
}

/* ---- processes ------------------------------------------------------------------------------- */

/* The blob goes on behind a token; the space in front of it is the end of struct msg_run. */
static int pass_to_init(struct shim *shim, struct msg *msg, uint32_t token, const int child_fds[4])
{
	char *blob = (char *)msg->body + sizeof(struct msg_run);
	struct msg_token head = { .token = token };
	struct msg exec = { .type = MSG_EXEC,
		.seq = msg->seq,
		.body = blob - sizeof(head),
		.body_bytes = msg->body_bytes - sizeof(struct msg_run) + sizeof(head),
		.n_fds = 4 };
	int r;

	memcpy(exec.body, &head, sizeof(head));
	memcpy(exec.fds, child_fds, sizeof(int) * 4);
	r = send_to_init(shim, &exec);
	return r == -EPIPE ? -ESRCH : r;
}

/* For reports. The blob is init's to check; here only what is used must be sound. */
static void take_name(struct proc *proc, const struct msg *msg)
{
	const char *blob = (const char *)msg->body + sizeof(struct msg_run);

	if (program_check(blob, msg->body_bytes - sizeof(struct msg_run)) == 0)
		proc_take_name(proc, (const void *)blob);
}

static void request_run(struct shim *shim, struct msg *msg)
{
	int child_fds[4] = { -1, -1, -1, -1 }, r = -EPROTO;
	struct msg_run run;
	struct proc *proc = NULL;

	msg_body(msg, &run, sizeof(run));
	if (msg->body_bytes > sizeof(run) && (r = FAULT(run_received, NULL)) == 0)
		proc = proc_new(&run, shim->pts_fd, child_fds, &r);
	if (proc) {
		proc->run_seq = msg->seq;
		take_name(proc, msg);
		proc->mark = watch_begin(&shim->watch);
		r = pass_to_init(shim, msg, run.token, child_fds);
	}
	for (int i = 0; i < 4; i++)
		auto_fd(&child_fds[i]);
	if (r < 0) {
		proc_free(proc);
		shim_reply(shim, msg->seq, r, STEP_STDIO);
		return;
	}
	shim_add(shim, proc);
	(void)FAULT(run_told, NULL);
}

static void started(struct shim *shim, struct proc *proc)
{
	struct msg_process body = { .state = PROCESS_RUNNING, .tty = proc->tty };
	int input_fd = proc->tty ? proc->streams[STREAM_OUT].fd : proc->stdin_fd;

	proc->state = PROCESS_RUNNING;
	if (proc->is_doomed)
		kill(proc->pid, SIGKILL);
	(void)FAULT(run_succeeded, NULL);
	shim_send(shim,
		&(struct msg){ .type = MSG_REPLY,
			.seq = proc->run_seq,
			.body = &body,
			.body_bytes = sizeof(body),
			.fds = { proc->ring_fd, proc->data_fd, input_fd },
			.n_fds = 3 });
}

void shim_child_reported(struct shim *shim, struct proc *proc)
{
	struct child_report report = { .step = STEP_JOIN };
	ssize_t n = read(proc->report_fd, &report, sizeof(report));

	if (n < 0)
		return;
	auto_fd(&proc->report_fd);
	if (n == 0 && pea_has_begun(proc)) {
		started(shim, proc);
		return;
	}
	shim_reply(shim, proc->run_seq, n == sizeof(report) ? -report.code : -EPROTO, report.step);
	drop(shim, proc);
}

static void init_execed(struct shim *shim, const struct msg *msg)
{
	struct msg_execed body;
	struct proc *proc;

	msg_body(msg, &body, sizeof(body));
	proc = shim_find(shim, body.token);
	if (!proc || body.pid >= 0)
		return;
	shim_reply(shim, proc->run_seq, body.pid, STEP_STDIO);
	drop(shim, proc);
}

static void announce(struct shim *shim, struct proc *proc)
{
	shim_send(shim,
		&(struct msg){
			.type = MSG_EXITED, .body = &proc->end, .body_bytes = sizeof(proc->end) });
}

/* What init knows of the end, and what the groups know. */
static void end_proc(struct shim *shim, struct proc *proc, struct msg_end *end)
{
	char words[WATCH_WORDS_BYTES];

	memcpy(end->usage.name, proc->name, sizeof(end->usage.name));
	watch_end(proc->has_watch ? &proc->watch : &shim->watch, &proc->mark, end, words);
	proc_exited(proc, end, words, clock_ms());
}

void shim_exited(struct shim *shim, struct msg_end *end)
{
	struct proc *proc = shim_find(shim, end->exited.token);

	if (proc && proc->report_fd >= 0) {
		shim_child_reported(shim, proc); /* it is dead: its report is complete */
		proc = shim_find(shim, end->exited.token);
	}
	if (!proc)
		return;
	end_proc(shim, proc, end);
	(void)FAULT(exit_noted, NULL);
	announce(shim, proc);
}

static void init_exited(struct shim *shim, const struct msg *msg)
{
	struct msg_end body;

	msg_body(msg, &body, sizeof(body));
	shim_exited(shim, &body);
}

static void request_signal(struct shim *shim, struct msg *msg)
{
	if (!pea_signal(shim, msg))
		forward_to_init(shim, msg);
}

static void request_close_stdin(struct shim *shim, struct msg *msg)
{
	struct proc *proc = find_for(shim, msg);

	if (proc)
		auto_fd(&proc->stdin_fd);
	shim_reply(shim, msg->seq, proc ? 0 : -ESRCH, 0);
}

static void request_opened(struct shim *shim, struct msg *msg)
{
	struct msg_signal body;
	struct proc *proc;

	msg_body(msg, &body, sizeof(body));
	proc = shim_find(shim, body.token);
	if (proc && body.signo >= 0 && body.signo < N_STREAMS && proc->rings[body.signo].shared)
		atomic_store(&proc->rings[body.signo].shared->opened, 1);
	shim_reply(shim, msg->seq, proc ? 0 : -ESRCH, 0);
}

static void request_watch(struct shim *shim, struct msg *msg)
{
	struct msg_watch body;

	msg_body(msg, &body, sizeof(body));
	shim_reply(shim, msg->seq, watch_take(&shim->watch, &body, msg->fds, msg->n_fds), 0);
}

static void request_forget(struct shim *shim, struct msg *msg)
{
	struct proc *proc = find_for(shim, msg);

	if (proc && proc->state == PROCESS_EXITED) {
		proc_forget(proc);
		shim_retire(shim, proc);
	}
	shim_reply(shim, msg->seq, 0, 0);
}

/* The tail moves over what everybody has: at the head, with the end said, nobody needs the rings.
 * The server's FORGET says the same, but is lost when the socket has no room. */
static bool is_delivered(const struct proc *proc)
{
	for (int i = 0; i < N_STREAMS; i++) {
		const struct ring_head *ring = proc->rings[i].shared;

		if (!ring || !atomic_load(&ring->closed) ||
			atomic_load(&ring->tail) != atomic_load(&ring->head))
			return false;
	}
	return true;
}

/* Without memory for the small record it stays a large one. */
void shim_retire(struct shim *shim, struct proc *proc)
{
	size_t id_bytes = strlen(proc->process_id) + 1;
	struct ended *ended;

	if (proc->state == PROCESS_EXITED && proc->ring_fd >= 0 && is_delivered(proc))
		proc_forget(proc);
	if (proc->state != PROCESS_EXITED || proc->ring_fd >= 0 ||
		proc->streams[STREAM_OUT].fd >= 0 || proc->streams[STREAM_ERR].fd >= 0)
		return;
	ended = calloc(1, sizeof(*ended) + id_bytes);
	if (!ended)
		return;
	ended->end = proc->end;
	ended->tty = proc->tty;
	memcpy(ended->process_id, proc->process_id, id_bytes);
	TAILQ_INSERT_HEAD(&shim->ended, ended, entry); /* the newest are listed first */
	drop(shim, proc);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void say_dead(struct shim *shim)
{
	struct msg_dead body = { .wait_status = shim->init_status };

	shim_send(
		shim, &(struct msg){ .type = MSG_DEAD, .body = &body, .body_bytes = sizeof(body) });
	if (shim->must_end)
		_exit(0);
}

void shim_container_died(struct shim *shim)
{
	struct proc *proc, *next;
	int64_t now_ms = clock_ms();

	auto_fd(&shim->init_fd);
	shim->state = SHIM_DEAD;
	for (proc = TAILQ_FIRST(&shim->procs); proc; proc = next) {
		next = TAILQ_NEXT(proc, entry);
		if (proc->report_fd >= 0) {
			shim_reply(shim, proc->run_seq, -ESRCH, STEP_STDIO);
			drop(shim, proc);
			continue;
		}
		if (proc->state != PROCESS_EXITED) {
			struct msg_end end = { .exited = { .token = proc->token,
						       .exit_status = 137,
						       .wait_status = SIGKILL,
						       .reason = EXIT_CONTAINER_DEAD } };

			end_proc(shim, proc, &end);
			proc_finish(proc, now_ms);
			announce(shim, proc);
		} else {
			proc_finish(proc, now_ms);
		}
	}
	say_dead(shim);
}

/* Killing process 1 kills the pid namespace; a builder that has not finished dies with us watching.
 */
static void request_bye(struct shim *shim, struct msg *msg)
{
	(void)msg;
	shim->must_end = true;
	if (shim->builder_fd >= 0 && shim->builder_pid > 0)
		kill(shim->builder_pid, SIGKILL);
	if (shim->init_pid > 0 && shim->state != SHIM_DEAD)
		kill(shim->init_pid, SIGKILL);
	else
		say_dead(shim);
}

/* ---- clients of a server before ---------------------------------------------------------------- */

static void request_settle(struct shim *shim, struct msg *msg)
{
	struct msg_reply reply = { 0 };
	struct msg_settle body;

	msg_body(msg, &body, sizeof(body));
	reply.value = hold_settle(shim, body.token, body.is_over);
	shim_send(shim,
		&(struct msg){ .type = MSG_REPLY,
			.seq = msg->seq,
			.body = &reply,
			.body_bytes = sizeof(reply) });
}

/* ---- dispatch -------------------------------------------------------------------------------- */

#define IN(state) (1u << (state))
#define ANY (IN(N_SHIM_STATES) - 1)

static const struct request {
	uint16_t type;
	unsigned states; /* in which it is allowed; else -EBUSY */
	void (*handle)(struct shim *shim, struct msg *msg);
} requests[] = {
	{ MSG_HELLO, ANY, shim_hello },
	{ MSG_PREPARE, IN(SHIM_EMPTY), birth_prepare },
	{ MSG_BIRTH, IN(SHIM_PREPARED), birth_finish },
	{ MSG_START, IN(SHIM_BORN), forward_to_init },
	{ MSG_RUN, IN(SHIM_RUNNING), request_run },
	{ MSG_REFRESH, IN(SHIM_RUNNING), birth_refresh },
	{ MSG_USERNS, IN(SHIM_RUNNING), birth_userns },
	{ MSG_RUN_IMAGE, IN(SHIM_RUNNING), pea_request },
	{ MSG_SIGNAL, IN(SHIM_RUNNING), request_signal },
	{ MSG_KILL_ALL, IN(SHIM_RUNNING), forward_to_init },
	{ MSG_CLOSE_STDIN, ANY, request_close_stdin },
	{ MSG_OPENED, ANY, request_opened },
	{ MSG_FORGET, ANY, request_forget },
	{ MSG_ADOPT, ANY, shim_adopt },
	{ MSG_WATCH, ANY, request_watch },
	{ MSG_HOLD, ANY, hold_take },
	{ MSG_HOLD_END, ANY, hold_end },
	{ MSG_LET_GO, ANY, hold_let_go },
	{ MSG_SETTLE, ANY, request_settle },
	{ MSG_BYE, ANY, request_bye },
};

void shim_request(struct shim *shim, struct msg *msg)
{
	for (size_t i = 0; i < N_ELEMENTS(requests); i++) {
		if (requests[i].type != msg->type)
			continue;
		if (!shim->is_greeted && msg->type != MSG_HELLO)
			shim_reply(shim, msg->seq, -EACCES, 0);
		else if (!(requests[i].states & IN(shim->state)))
			shim_reply(shim, msg->seq, shim->state == SHIM_DEAD ? -ESRCH : -EBUSY, 0);
		else
			requests[i].handle(shim, msg);
		return;
	}
	shim_reply(shim, msg->seq, -ENOSYS, 0);
}

void shim_from_init(struct shim *shim, struct msg *msg)
{
	switch (msg->type) {
	case MSG_READY:
		birth_ready(shim, msg);
		break;
	case MSG_EXECED:
		init_execed(shim, msg);
		break;
	case MSG_EXITED:
		init_exited(shim, msg);
		break;
	case MSG_REPLY:
		shim_send(shim, msg);
		break;
	default:
		break;
	}
}

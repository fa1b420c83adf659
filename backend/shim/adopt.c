/* What the shim tells a server that comes back. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/fault.h"
#include "shim/shim.h"

static void add_token(struct msg_welcome *welcome, uint32_t token)
{
	if (welcome->n_tokens < N_ELEMENTS(welcome->tokens))
		welcome->tokens[welcome->n_tokens++] = token;
}

static void describe_ended(const struct ended *ended, struct msg_process *ret)
{
	ret->exited = ended->end.exited;
	ret->usage = ended->end.usage;
	ret->state = PROCESS_EXITED;
	ret->tty = ended->tty;
	memcpy(ret->process_id, ended->process_id, strlen(ended->process_id) + 1);
}

static void describe_proc(const struct proc *proc, struct msg *answer, struct msg_process *ret)
{
	int input_fd = proc->tty ? proc->streams[STREAM_OUT].fd : proc->stdin_fd;

	ret->exited = proc->end.exited;
	ret->usage = proc->end.usage;
	ret->state = proc->state;
	ret->tty = proc->tty;
	memcpy(ret->process_id, proc->process_id, sizeof(ret->process_id));
	if (proc->ring_fd < 0)
		return;
	answer->fds[answer->n_fds++] = proc->ring_fd;
	answer->fds[answer->n_fds++] = proc->data_fd;
	if (input_fd >= 0)
		answer->fds[answer->n_fds++] = input_fd;
}

/* ---- all of it in one answer ------------------------------------------------------------------- */

/* Of those that are told: as many as a list of tokens would hold. */
static uint32_t count_told(const struct shim *shim)
{
	const struct ended *ended;
	const struct proc *proc;
	uint32_t n = 0;

	TAILQ_FOREACH (proc, &shim->procs, entry)
		n += proc->report_fd < 0;
	TAILQ_FOREACH (ended, &shim->ended, entry)
		n++;
	return n < N_ELEMENTS(((struct msg_welcome *)0)->tokens)
		? n
		: N_ELEMENTS(((struct msg_welcome *)0)->tokens);
}

/* Its descriptors, if they still fit. */
static void tell_proc(const struct proc *proc, struct msg *answer, struct msg_told *ret)
{
	struct msg own = { 0 };

	ret->token = proc->token;
	describe_proc(proc, &own, &ret->process);
	if (answer->n_fds + own.n_fds > MSG_MAX_FDS) {
		ret->is_partial = 1;
		return;
	}
	memcpy(answer->fds + answer->n_fds, own.fds, own.n_fds * sizeof(own.fds[0]));
	answer->n_fds += own.n_fds;
	ret->n_fds = (uint16_t)own.n_fds;
}

static void tell_all(const struct shim *shim, struct msg *answer, struct msg_told *told, uint32_t n)
{
	const struct ended *ended;
	const struct proc *proc;

	TAILQ_FOREACH (proc, &shim->procs, entry)
		if (proc->report_fd < 0 && n) {
			tell_proc(proc, answer, told++);
			n--;
		}
	TAILQ_FOREACH (ended, &shim->ended, entry)
		if (n) {
			told->token = ended->end.exited.token;
			describe_ended(ended, &told++->process);
			n--;
		}
}

/* False: there is no memory for it. */
static bool welcome_all(struct shim *shim, uint32_t seq)
{
	uint32_t n = count_told(shim);
	struct msg_welcome_all *all = calloc(1, sizeof(*all) + n * sizeof(struct msg_told));
	struct msg answer = { .type = MSG_REPLY,
		.seq = seq,
		.body = all,
		.body_bytes = sizeof(*all) + n * sizeof(struct msg_told),
		.fds = { shim->root_fd, shim->kick_fd },
		.n_fds = 2 };

	if (!all || FAULT(hello_full, NULL) < 0) {
		free(all);
		return false;
	}
	*all = (struct msg_welcome_all){ .reply.value = WELCOME_ALL,
		.protocol = SHIM_PROTOCOL,
		.state = shim->state,
		.init_pid = shim->init_pid,
		.n_told = n,
		.told_bytes = sizeof(struct msg_told) };
	watch_describe(&shim->watch, &all->watch);
	tell_all(shim, &answer, (struct msg_told *)(all + 1), n);
	if (FAULT(hello_cut, NULL) < 0)
		answer.body_bytes--;
	shim_send(shim, &answer);
	free(all);
	return true;
}

/* ---- requests ------------------------------------------------------------------------------------ */

static void welcome(struct shim *shim, uint32_t seq)
{
	static struct msg_welcome welcome;
	struct ended *ended;
	struct proc *proc;

	welcome = (struct msg_welcome){
		.protocol = SHIM_PROTOCOL, .state = shim->state, .init_pid = shim->init_pid
	};
	TAILQ_FOREACH (proc, &shim->procs, entry)
		if (proc->report_fd < 0)
			add_token(&welcome, proc->token);
	TAILQ_FOREACH (ended, &shim->ended, entry)
		add_token(&welcome, ended->end.exited.token);
	shim_send(shim,
		&(struct msg){ .type = MSG_REPLY,
			.seq = seq,
			.body = &welcome,
			.body_bytes = offsetof(struct msg_welcome, tokens) +
				welcome.n_tokens * sizeof(welcome.tokens[0]),
			.fds = { shim->root_fd, shim->kick_fd },
			.n_fds = 2 });
}

void shim_hello(struct shim *shim, struct msg *msg)
{
	struct msg_hello body;

	msg_body(msg, &body, sizeof(body));
	if (strncmp(body.nonce, shim->nonce, sizeof(body.nonce)) || shim->root_fd < 0) {
		shim_reply(shim, msg->seq, -EACCES, 0);
		return;
	}
	shim->is_greeted = true;
	if (!body.wants_all || !welcome_all(shim, msg->seq))
		welcome(shim, msg->seq);
}

static const struct ended *find_ended(const struct shim *shim, uint32_t token)
{
	const struct ended *ended;

	TAILQ_FOREACH (ended, &shim->ended, entry)
		if (ended->end.exited.token == token)
			return ended;
	return NULL;
}

void shim_adopt(struct shim *shim, struct msg *msg)
{
	struct msg_process body = { 0 };
	struct msg answer = {
		.type = MSG_REPLY, .seq = msg->seq, .body = &body, .body_bytes = sizeof(body)
	};
	const struct ended *ended;
	struct msg_token wanted;
	struct proc *proc;

	msg_body(msg, &wanted, sizeof(wanted));
	proc = shim_find(shim, wanted.token);
	ended = proc ? NULL : find_ended(shim, wanted.token);
	if (!proc && !ended) {
		shim_reply(shim, msg->seq, -ESRCH, 0);
		return;
	}
	if (proc)
		describe_proc(proc, &answer, &body);
	else
		describe_ended(ended, &body);
	shim_send(shim, &answer);
}

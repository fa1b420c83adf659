/* Processes of the container that have a root of their own. A throw-away child makes the root and the
 * process, which has us for a parent: init knows nothing of it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "shim/builder.h"
#include "shim/shim.h"

/* What lies behind struct msg_run_image. */
struct parts {
	void *plan, *program, *filter;
};

static size_t padded(size_t n_bytes)
{
	return (n_bytes + 7) / 8 * 8;
}

static int find_parts(const struct msg *msg, const struct msg_run_image *head, struct parts *ret)
{
	size_t program_at = sizeof(*head) + padded(head->plan_bytes);
	size_t filter_at = program_at + padded(head->program_bytes);
	char *body = msg->body;

	if (msg->body_bytes < sizeof(*head) || filter_at + head->filter_bytes != msg->body_bytes)
		return -EPROTO;
	*ret = (struct parts){ body + sizeof(*head), body + program_at, body + filter_at };
	if (plan_check(ret->plan, head->plan_bytes) < 0)
		return -EPROTO;
	return program_check(ret->program, head->program_bytes);
}

static int fork_builder(
	struct shim *shim, struct proc *proc, int proc_fd, const void *plan, struct pea *pea)
{
	struct builder builder = { .pea = pea,
		.argv0 = shim->argv0,
		.prepare = plan,
		.proc_fd = proc_fd,
		.report_fd = -1,
		.init_fd = -1 };
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	proc->is_pea = true;
	proc->pid_fd = ends[0];
	pea->pid_fd = ends[1];
	pid = fork();
	if (pid == 0)
		builder_program(&builder, shim->init_pid);
	close(ends[1]);
	return pid < 0 ? -errno : 0;
}

static int make(struct shim *shim, const struct msg *msg, struct proc **ret_proc)
{
	struct msg_run_image head;
	struct parts parts;
	struct proc *proc;
	struct pea pea = { .fds = { -1, -1, -1, -1 } };
	int r;

	msg_body(msg, &head, sizeof(head));
	r = msg->n_fds == 1 ? find_parts(msg, &head, &parts) : -EPROTO;
	if (r < 0)
		return r;
	proc = proc_new(&head.run, shim->pts_fd, pea.fds, &r);
	pea.program = parts.program;
	pea.filter = parts.filter;
	pea.filter_bytes = head.filter_bytes;
	pea.bounding = head.bounding;
	pea.effective = head.effective;
	if (proc)
		r = fork_builder(shim, proc, msg->fds[0], parts.plan, &pea);
	for (int i = 0; i < 4; i++)
		auto_fd(&pea.fds[i]);
	if (r < 0)
		proc_free(proc);
	else
		*ret_proc = proc;
	return r;
}

void pea_request(struct shim *shim, struct msg *msg)
{
	struct proc *proc;
	int r = make(shim, msg, &proc);

	if (r < 0) {
		shim_reply(shim, msg->seq, r, STEP_STDIO);
		return;
	}
	proc->run_seq = msg->seq;
	shim_add(shim, proc);
}

static void learn_pid(struct proc *proc)
{
	pid_t pid;

	if (proc->pid_fd < 0 || read(proc->pid_fd, &pid, sizeof(pid)) != sizeof(pid))
		return;
	proc->pid = pid;
	auto_fd(&proc->pid_fd);
}

bool pea_has_begun(struct proc *proc)
{
	if (!proc->is_pea)
		return true;
	learn_pid(proc);
	return proc->pid > 0;
}

/* Sends only what has not been reaped: its pid cannot be anybody else's. */
bool pea_signal(struct shim *shim, const struct msg *msg)
{
	struct msg_signal body;
	struct proc *proc;
	int r = -ESRCH;

	msg_body(msg, &body, sizeof(body));
	proc = shim_find(shim, body.token);
	if (!proc || !proc->is_pea)
		return false;
	if (proc->state != PROCESS_EXITED && pea_has_begun(proc))
		r = kill(proc->pid, body.signo) < 0 ? -errno : 0;
	else if (proc->report_fd >= 0 && body.signo == SIGKILL)
		proc->is_doomed = true; /* nobody waits for it any more */
	shim_reply(shim, msg->seq, r, 0);
	return true;
}

static uint64_t microseconds(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

/* One that was never let go has no proc: its builder is dead, and its report has said so. */
void pea_reaped(struct shim *shim, pid_t pid, int status, const struct rusage *use)
{
	struct msg_exited exited = { .wait_status = status,
		.user_us = microseconds(use->ru_utime),
		.system_us = microseconds(use->ru_stime),
		.max_rss_kb = (uint64_t)use->ru_maxrss };
	struct proc *proc;

	if (WIFSIGNALED(status)) {
		exited.exit_status = 128 + WTERMSIG(status);
		exited.reason = EXIT_SIGNAL;
	} else {
		exited.exit_status = WEXITSTATUS(status);
	}
	TAILQ_FOREACH (proc, &shim->procs, entry)
		if (proc->is_pea && proc->state != PROCESS_EXITED && pea_has_begun(proc) &&
			proc->pid == pid) {
			exited.token = proc->token;
			shim_exited(shim, &exited);
			return;
		}
}

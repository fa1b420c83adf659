/* Processes of the container that have a root of their own. A throw-away child makes the root and the
 * process, which has us for a parent: init knows nothing of it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/sys.h"
#include "shim/builder.h"
#include "shim/shim.h"

#define BLOCK_BYTES 512 /* getrusage(2) */

/* What lies behind struct msg_run_image. */
struct parts {
	void *plan, *program, *filter;
};

/* A message, taken apart. */
struct source {
	struct msg_run_image head;
	struct parts parts;
	int proc_fd, group_fd; /* group_fd -1: none */
	int *watch_fds;
	unsigned n_watch_fds;
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

/* Born in the group: who has killed that and sees it empty knows that nothing of this is left, and who
 * has removed it, that nothing comes of it. */
static pid_t fork_into(int group_fd)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group_fd
	};

	if (group_fd < 0) {
		pid_t pid = fork();

		return pid < 0 ? -errno : pid;
	}
	return sys_clone3(&args);
}

static int fork_builder(
	struct shim *shim, struct proc *proc, const struct source *source, struct pea *pea)
{
	struct builder builder = { .pea = pea,
		.argv0 = shim->argv0,
		.prepare = source->parts.plan,
		.proc_fd = source->proc_fd,
		.report_fd = -1,
		.init_fd = -1 };
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	proc->is_pea = true;
	proc->pid_fd = ends[0];
	pea->pid_fd = ends[1];
	pid = fork_into(source->group_fd);
	if (pid == 0)
		builder_program(&builder, shim->init_pid);
	close(ends[1]);
	return pid < 0 ? pid : 0;
}

/* The descriptors stay the message's, but for those of a watch. */
static int take_source(struct msg *msg, struct source *ret)
{
	unsigned n = 1;
	int r;

	*ret = (struct source){ .group_fd = -1 };
	msg_body(msg, &ret->head, sizeof(ret->head));
	r = find_parts(msg, &ret->head, &ret->parts);
	if (r == 0 && msg->n_fds < 1 + (ret->head.has_group ? 1u : 0u))
		r = -EPROTO;
	if (r < 0)
		return r;
	ret->proc_fd = msg->fds[0];
	if (ret->head.has_group)
		ret->group_fd = msg->fds[n++];
	ret->watch_fds = msg->fds + n;
	ret->n_watch_fds = msg->n_fds - n;
	return 0;
}

static int watch_own(struct proc *proc, const struct source *source)
{
	proc->has_watch = source->head.watch.given != 0;
	return proc->has_watch ? watch_take(&proc->watch, &source->head.watch, source->watch_fds,
					 source->n_watch_fds)
			       : 0;
}

static int make(struct shim *shim, struct msg *msg, struct proc **ret_proc)
{
	struct source source;
	struct proc *proc;
	struct pea pea = { .fds = { -1, -1, -1, -1 } };
	int r = take_source(msg, &source);

	if (r < 0)
		return r;
	proc = proc_new(&source.head.run, shim->pts_fd, pea.fds, &r);
	pea.program = source.parts.program;
	pea.filter = source.parts.filter;
	pea.filter_bytes = source.head.filter_bytes;
	pea.bounding = source.head.bounding;
	pea.effective = source.head.effective;
	if (proc)
		r = watch_own(proc, &source);
	if (proc && r == 0) {
		proc_take_name(proc, pea.program);
		r = fork_builder(shim, proc, &source, &pea);
	}
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
	proc->mark = watch_begin(proc->has_watch ? &proc->watch : &shim->watch);
	shim_add(shim, proc);
}

static void learn_pid(struct proc *proc)
{
	pid_t pid;

	if (!proc->pid && proc->pid_fd >= 0 && read(proc->pid_fd, &pid, sizeof(pid)) == sizeof(pid))
		proc->pid = pid;
	if (proc->pid && proc->pid_fd >= 0 &&
		read(proc->pid_fd, &pid, sizeof(pid)) == sizeof(pid)) {
		proc->inner_pid = pid;
		auto_fd(&proc->pid_fd);
	}
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
	struct msg_end end = { .exited = { .wait_status = status,
				       .user_us = microseconds(use->ru_utime),
				       .system_us = microseconds(use->ru_stime),
				       .max_rss_kb = (uint64_t)use->ru_maxrss },
		.usage = { .read_bytes = (uint64_t)use->ru_inblock * BLOCK_BYTES,
			.written_bytes = (uint64_t)use->ru_oublock * BLOCK_BYTES } };
	struct proc *proc;

	if (WIFSIGNALED(status)) {
		end.exited.exit_status = 128 + WTERMSIG(status);
		end.exited.reason = EXIT_SIGNAL;
	} else {
		end.exited.exit_status = WEXITSTATUS(status);
	}
	TAILQ_FOREACH (proc, &shim->procs, entry)
		if (proc->is_pea && proc->state != PROCESS_EXITED && pea_has_begun(proc) &&
			proc->pid == pid) {
			proc->is_doomed = false; /* the number may be anybody's */
			end.exited.token = proc->token;
			end.usage.pid = proc->inner_pid;
			shim_exited(shim, &end);
			return;
		}
}

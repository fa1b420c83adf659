/* Runs in a child of the shim: system calls only (tests/lint/child.allow). It stays in the host's
 * user namespace, so every mount that it makes is locked for the container, whose own mount tree is
 * a copy. */
#include "shim/builder.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/msg.h"
#include "linux/sys.h"
#include "shim/builder_work.h"

static unsigned char space[MSG_INLINE_BYTES] __attribute__((aligned(16)));

static int walk(struct work *work, uint32_t *step, bool in_helper)
{
	const struct plan_wire *plan = work->plan;
	int r = 0;

	for (; *step < plan->n_ops && r == 0; ++*step) {
		const struct op_wire *op = &plan->ops[*step];

		if (!(op->flags & OPF_IN_HELPER) == in_helper)
			break;
		r = builder_run[op->code](work, op);
		if (r == -ENOENT && op->flags & OPF_OPTIONAL)
			r = 0;
		work->report->step = *step;
	}
	return work->report->code = r;
}

/* A child of ours is born into the container's pid namespace; the network and ipc ones it enters.
 */
static int walk_in_helper(struct work *work, uint32_t *step)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return work->report->code = -errno;
	if (pid == 0) {
		work->report->code = sys_setns(work->init_pid_fd, CLONE_NEWNET | CLONE_NEWIPC);
		if (work->report->code == 0)
			walk(work, step, true);
		_exit(0);
	}
	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) != pid || status != 0)
		return work->report->code = -ECHILD;
	while (*step < work->plan->n_ops && work->plan->ops[*step].flags & OPF_IN_HELPER)
		++*step;
	return work->report->code;
}

/* kept_fd: what the shim shall hold; -1: nothing. */
static int report(const struct work *work, int kept_fd)
{
	return msg_send(work->builder->report_fd,
		&(struct msg){ .type = MSG_BUILT,
			.body = work->report,
			.body_bytes = sizeof(*work->report),
			.fds = { kept_fd },
			.n_fds = kept_fd >= 0 });
}

static void walk_all(struct work *work, const struct plan_wire *plan, bool is_birth)
{
	uint32_t step = 0;
	int r = 0;

	work->plan = plan;
	work->report->step = 0;
	work->report->code = 0;
	while (step < plan->n_ops && r == 0)
		r = plan->ops[step].flags & OPF_IN_HELPER ? walk_in_helper(work, &step)
							  : walk(work, &step, false);
	work->report->init_pid = work->init_pid;
	if (report(work, is_birth ? work->own_mnt_fd : -1) < 0 || r < 0)
		_exit(1);
}

static void prepare(struct work *work, const struct builder *builder)
{
	static int slots[MAX_SLOTS];

	*work = (struct work){ .builder = builder,
		.skeleton_fd = -1,
		.root_fd = -1,
		.init_pid_fd = -1,
		.userns_fd = -1,
		.host_mnt_fd = -1,
		.own_mnt_fd = -1,
		.slots = slots };
	for (int i = 0; i < MAX_SLOTS; i++)
		slots[i] = -1;
	umask(022);
	work->report = mmap(NULL, sizeof(*work->report), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (work->report == MAP_FAILED)
		_exit(1);
}

_Noreturn void builder_refresh(const struct builder *builder, pid_t init_pid)
{
	struct work work;

	prepare(&work, builder);
	work.init_pid = init_pid;
	walk_all(&work, builder->prepare, false);
	_exit(0);
}

/* The shim holds ends of other processes' pipes, which must not stay open for longer than there. */
static void keep_own(const struct builder *builder)
{
	const struct pea *pea = builder->pea;
	int keep[] = { pea->fds[0], pea->fds[1], pea->fds[2], pea->fds[3], pea->pid_fd,
		builder->proc_fd };

	sys_close_but(3, keep, N_ELEMENTS(keep));
}

_Noreturn void builder_program(const struct builder *builder, pid_t init_pid)
{
	struct work work;
	uint32_t step = 0;
	int r;

	keep_own(builder);
	prepare(&work, builder);
	work.init_pid = init_pid;
	work.plan = builder->prepare;
	r = work.init_pid_fd = sys_pidfd_open(init_pid);
	if (r >= 0)
		r = walk(&work, &step, false);
	if (r < 0)
		program_report(&work, STEP_OF_PLAN + work.report->step, -r);
	_exit(0);
}

_Noreturn void builder_main(const struct builder *builder)
{
	struct work work;
	struct msg msg;

	prepare(&work, builder);
	walk_all(&work, builder->prepare, false);
	if (msg_recv(builder->report_fd, &msg, space, 0) < 0 || msg.type != MSG_BIRTH ||
		plan_check(msg.body, msg.body_bytes) < 0)
		_exit(1);
	walk_all(&work, msg.body, true);
	_exit(0);
}

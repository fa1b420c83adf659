/* From the builder of a root to a process of the container, which the shim is the parent of. System
 * calls only (tests/lint/child.allow). */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/guard.h"
#include "linux/caps.h"
#include "linux/sys.h"
#include "shim/builder_work.h"
#include "shim/child.h"
#include "shim/child_rights.h"

_Noreturn void program_report(const struct work *work, uint32_t step, int code)
{
	struct child_report report = { step, code };
	ssize_t n = TEMP_FAILURE_RETRY(write(work->builder->pea->fds[3], &report, sizeof(report)));

	_exit(n == sizeof(report) ? 127 : 126);
}

static int result(int r)
{
	return r < 0 ? -errno : 0;
}

static int join_user_namespace(const struct work *work)
{
	return work->userns_fd < 0 ? 0 : sys_setns(work->userns_fd, CLONE_NEWUSER);
}

/* A copy that belongs to the container's user namespace: everything in it is locked. */
static int lock_mounts(const struct work *work)
{
	(void)work;
	return GUARD(LOCKED_MOUNTS) ? sys_unshare(CLONE_NEWNS) : 0;
}

/* The builder of an overlay keeps its capabilities whoever it is. */
static int forget_builder(const struct work *work)
{
	(void)work;
	return result(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0));
}

static int become_root(const struct work *work)
{
	(void)work;
	return rights_become_root();
}

static int limit(const struct work *work)
{
	(void)work;
	return rights_limit_files();
}

static int renew_keyring(const struct work *work)
{
	int r = sys_new_session_keyring();

	(void)work;
	return r < 0 ? r : 0;
}

static int load_filter(const struct work *work)
{
	return rights_load_filter(work->builder->pea->filter, work->builder->pea->filter_bytes);
}

static int limit_caps(const struct work *work)
{
	int r = GUARD(CAPS) ? caps_limit(work->builder->pea->bounding) : 0;

	if (r == 0 && GUARD(CAPS))
		r = caps_set(work->builder->pea->effective);
	return r < 0 ? r : result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

/* As init does it for itself and what it forks, in the same order. */
static int (*const join_steps[])(const struct work *work) = { join_user_namespace, lock_mounts,
	forget_builder, become_root, limit, renew_keyring, load_filter, limit_caps };

static bool tell_pid(const struct pea *pea, pid_t pid)
{
	return TEMP_FAILURE_RETRY(write(pea->pid_fd, &pid, sizeof(pid))) == sizeof(pid);
}

/* Not before the shim can know its number; the one that the container knows it by comes second. */
static _Noreturn void become(const struct work *work, int go_fd)
{
	const struct pea *pea = work->builder->pea;
	pid_t pid = getpid();
	char go;
	int r = 0;

	if (TEMP_FAILURE_RETRY(read(go_fd, &go, 1)) != 1 || !tell_pid(pea, pid))
		_exit(126);
	for (size_t i = 0; i < N_ELEMENTS(join_steps) && r == 0; i++)
		r = join_steps[i](work);
	if (r < 0)
		program_report(work, STEP_JOIN, -r);
	child_become(pea->program, pea->fds, pea->bounding);
}

int program_make(struct work *work, const struct op_wire *op)
{
	struct clone_args args = { .flags = CLONE_PARENT };
	int go[2];
	pid_t pid;

	(void)op;
	if (!work->builder->pea)
		return -EPROTO;
	if (pipe2(go, O_CLOEXEC) < 0)
		return -errno;
	pid = sys_clone3(&args);
	if (pid == 0) {
		close(go[1]);
		become(work, go[0]);
	}
	if (pid < 0)
		return pid;
	if (!tell_pid(work->builder->pea, pid) || TEMP_FAILURE_RETRY(write(go[1], "", 1)) != 1)
		return -EPIPE;
	return 0;
}

#include "shim/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/guard.h"
#include "linux/caps.h"
#include "linux/sys.h"
#include "shim/protocol.h"

#define REPORT_FD 3

static _Noreturn void die(uint32_t step, int code)
{
	struct child_report report = { step, code };
	ssize_t n = TEMP_FAILURE_RETRY(write(REPORT_FD, &report, sizeof(report)));

	_exit(n == sizeof(report) ? 127 : 126);
}

static void check(uint32_t step, int r)
{
	if (r < 0)
		die(step, -r);
}

static int result(int r)
{
	return r < 0 ? -errno : 0;
}

/* The four arrive with numbers above 3 (init holds only low ones), so no copy hits another. */
static void place_stdio(const int fds[4])
{
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			_exit(126);
	if (dup3(fds[3], REPORT_FD, O_CLOEXEC) < 0)
		_exit(126);
	check(STEP_STDIO, sys_close_from(REPORT_FD + 1));
}

static void reset_signals(void)
{
	sigset_t none;

	sys_default_signals();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void set_rlimits(const struct program_wire *program)
{
	for (int i = 0; i < N_RLIMITS; i++) {
		struct rlimit limit = { program->rlimits[i], program->rlimits[i] };

		if (program->rlimit_set >> i & 1)
			check(STEP_RLIMIT, result(setrlimit(i, &limit)));
	}
}

static int make_dirs(const struct program_wire *program, const char *dir, int depth);

/* A link of the image that leads nowhere: what it names is made, inside, where else. */
static int make_link_target(const struct program_wire *program, const char *link, int depth)
{
	char target[4096];
	size_t front = 0;
	ssize_t n;

	if (depth == 0)
		return -ELOOP;
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	if (target[0] == '/')
		return make_dirs(program, target, depth - 1);
	front = (size_t)(strrchr(link, '/') ? strrchr(link, '/') + 1 - link : 0);
	if (front + n >= sizeof(target))
		return -ENAMETOOLONG;
	memmove(target + front, target, n + 1);
	memcpy(target, link, front);
	return make_dirs(program, target, depth - 1);
}

static int make_dir(const struct program_wire *program, const char *dir, int depth)
{
	struct stat st;

	if (mkdir(dir, 0755) == 0)
		return result(lchown(dir, program->uid, program->gid));
	if (errno != EEXIST)
		return -errno;
	return stat(dir, &st) < 0 && errno == ENOENT ? make_link_target(program, dir, depth) : 0;
}

/* Makes what is missing of dir, each new part owned by the user, with the rights of the container's
 * root. A root switch lies behind us: links lead nowhere else. */
static int make_dirs(const struct program_wire *program, const char *dir, int depth)
{
	char part[4096];
	size_t len = strlen(dir);
	int r = 0;

	if (len >= sizeof(part))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= len && r == 0; i++)
		if (dir[i] == '/' || dir[i] == '\0') {
			memcpy(part, dir, i);
			part[i] = '\0';
			r = make_dir(program, part, depth);
		}
	return r;
}

static void enter_dir(const struct program_wire *program, const char *dir)
{
	if (chdir(dir) == 0)
		return;
	if (errno != ENOENT)
		die(STEP_DIR_ENTER, errno);
	check(STEP_DIR_MAKE, make_dirs(program, dir, 8));
	if (chdir(dir) < 0)
		die(STEP_DIR_ENTER, errno);
}

/* A directory outside of the root has no name here: CVE-2024-21626. */
static void verify_dir(void)
{
	char path[4096];
	int n = sys_getcwd(path, sizeof(path));

	if (n < 0 && n != -ERANGE)
		die(STEP_DIR_ENTER, -n);
	if (n > 0 && path[0] != '/')
		die(STEP_DIR_ENTER, EACCES);
}

static void become_user(const struct program_wire *program, const char *blob, uint64_t own_bounding)
{
	const gid_t *groups = (const void *)(blob + program->groups);

	check(STEP_GROUPS, result(setgroups(program->n_groups, groups)));
	check(STEP_GROUPS, result(setresgid(program->gid, program->gid, program->gid)));
	if (GUARD(CAPS) && program->bounding != own_bounding)
		check(STEP_CAPS, caps_limit(program->bounding));
	check(STEP_USER, result(setresuid(program->uid, program->uid, program->uid)));
	if (GUARD(CAPS))
		check(STEP_CAPS, caps_set(program->effective));
}

static void offsets_to_pointers(char *blob, uint32_t table, uint32_t n)
{
	uint64_t *slots = (uint64_t *)(void *)(blob + table);

	static_assert(sizeof(char *) == sizeof(uint64_t), "a slot holds a pointer");
	for (uint32_t i = 0; i < n; i++)
		slots[i] = (uint64_t)(uintptr_t)(blob + slots[i]);
}

/* 0 if name could be run (then it has been tried), -ENOENT if there is no such file, -EACCES. */
static int try_exec(const char *name, char **argv, char **envp)
{
	struct stat st;

	if (fstatat(AT_FDCWD, name, &st, 0) < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (S_ISDIR(st.st_mode) || faccessat(AT_FDCWD, name, X_OK, AT_EACCESS) < 0)
		return -EACCES;
	execve(name, argv, envp);
	if (errno == EACCES)
		return -EACCES;
	die(STEP_EXEC, errno);
}

static _Noreturn void search_and_exec(const char *path, char **argv, char **envp)
{
	char name[4096];
	size_t len = strlen(argv[0]);

	while (*path) {
		const char *end = strchrnul(path, ':');
		size_t n = end - path;

		if (n + len + 2 <= sizeof(name)) {
			memcpy(name, n ? path : ".", n ? n : 1);
			n = n ? n : 1;
			name[n] = '/';
			memcpy(name + n + 1, argv[0], len + 1);
			try_exec(name, argv, envp);
		}
		path = *end ? end + 1 : end;
	}
	die(STEP_LOOKUP,
		ENOENT); /* also if it lies there but may not be run: so says Go's LookPath */
}

_Noreturn void child_become(struct program_wire *program, const int fds[4], uint64_t own_bounding)
{
	char *blob = (char *)program;
	char **argv = (char **)(void *)(blob + program->argv);
	char **envp = (char **)(void *)(blob + program->envp);
	int r;

	place_stdio(fds);
	reset_signals();
	setsid();
	if (program->tty)
		check(STEP_TTY, result(ioctl(0, TIOCSCTTY, 0)));
	enter_dir(program, blob + program->dir);
	set_rlimits(program);
	become_user(program, blob, own_bounding);
	verify_dir();
	offsets_to_pointers(blob, program->argv, program->n_argv);
	offsets_to_pointers(blob, program->envp, program->n_envp);
	if (!strchr(argv[0], '/'))
		search_and_exec(blob + program->path, argv, envp);
	r = try_exec(argv[0], argv, envp);
	die(r == -EACCES ? STEP_EXEC : STEP_LOOKUP, -r);
}

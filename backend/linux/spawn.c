#include "linux/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>

#include "base/auto.h"

static int describe(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr, int stdin_fd,
	int err_fd, int extra_fd)
{
	sigset_t all, none;
	int r = 0;

	sigfillset(&all);
	sigemptyset(&none);
	if (stdin_fd >= 0)
		r = posix_spawn_file_actions_adddup2(actions, stdin_fd, 0);
	else
		r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_RDWR, 0);
	if (r == 0 && err_fd >= 0)
		r = posix_spawn_file_actions_adddup2(actions, err_fd, 2);
	else if (r == 0)
		r = posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_RDWR, 0);
	if (r == 0 && extra_fd >= 0)
		r = posix_spawn_file_actions_adddup2(actions, extra_fd, 3);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attr, &all);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attr, &none);
	if (r == 0)
		r = posix_spawnattr_setflags(
			attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	return r;
}

pid_t spawn_program(int exe_fd, const char *const argv[], int stdin_fd, int err_fd, int extra_fd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	char *const envp[] = { NULL };
	AUTO_FD int high_fd =
		fcntl(exe_fd, F_DUPFD_CLOEXEC, 10); /* not among those that are replaced */
	char path[32];
	pid_t pid = -1;
	int r;

	if (high_fd < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", high_fd);
	if (posix_spawn_file_actions_init(&actions))
		return -ENOMEM;
	if (posix_spawnattr_init(&attr)) {
		posix_spawn_file_actions_destroy(&actions);
		return -ENOMEM;
	}
	r = describe(&actions, &attr, stdin_fd, err_fd, extra_fd);
	if (r == 0)
		r = posix_spawn(&pid, path, &actions, &attr, (char *const *)argv, envp);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r ? -r : pid;
}

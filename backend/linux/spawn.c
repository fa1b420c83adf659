#include "linux/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>

#include "base/auto.h"

static int describe(posix_spawn_file_actions_t *actions, const struct spawn *spawn, int more_fd)
{
	const int given[] = { spawn->stdin_fd, spawn->stdout_fd, spawn->stderr_fd };
	int r = 0;

	for (int fd = 0; fd < 3 && r == 0; fd++)
		r = given[fd] >= 0
			? posix_spawn_file_actions_adddup2(actions, given[fd], fd)
			: posix_spawn_file_actions_addopen(actions, fd, "/dev/null", O_RDWR, 0);
	if (r == 0 && spawn->extra_fd >= 0)
		r = posix_spawn_file_actions_adddup2(actions, spawn->extra_fd, 3);
	if (r == 0 && more_fd > 0)
		r = posix_spawn_file_actions_adddup2(actions, more_fd, 4);
	return r;
}

static int prepare(posix_spawnattr_t *attr)
{
	sigset_t all, none;
	int r;

	sigfillset(&all);
	sigemptyset(&none);
	r = posix_spawnattr_setsigdefault(attr, &all);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attr, &none);
	if (r == 0)
		r = posix_spawnattr_setflags(
			attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	return r;
}

pid_t spawn_program(const struct spawn *spawn)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	char *const empty[] = { NULL };
	AUTO_FD int high_fd =
		fcntl(spawn->exe_fd, F_DUPFD_CLOEXEC, 10); /* not among those that are replaced */
	AUTO_FD int more_fd = spawn->more_fd > 0 ? fcntl(spawn->more_fd, F_DUPFD_CLOEXEC, 10) : -1;
	char path[32];
	pid_t pid = -1;
	int r;

	if (high_fd < 0 || (spawn->more_fd > 0 && more_fd < 0))
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", high_fd);
	if (posix_spawn_file_actions_init(&actions))
		return -ENOMEM;
	if (posix_spawnattr_init(&attr)) {
		posix_spawn_file_actions_destroy(&actions);
		return -ENOMEM;
	}
	r = describe(&actions, spawn, more_fd);
	if (r == 0)
		r = prepare(&attr);
	if (r == 0)
		r = posix_spawn(&pid, path, &actions, &attr, (char *const *)spawn->argv,
			spawn->envp ? spawn->envp : empty);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r ? -r : pid;
}

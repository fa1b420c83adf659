/* probe_hunt.c - root inside a container watches every process that appears, and tries to get hold of
 * those that have not yet become the program they will run: by ptrace, and through /proc. Runs until
 * its standard input ends, then prints "hits N seen N". */
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long hits, seen;

/* "" when it may not be read: the process is still protected. */
static void read_exe(int dir, char *target, size_t size)
{
	ssize_t n = readlinkat(dir, "exe", target, size - 1);

	target[n < 0 ? 0 : n] = 0;
}

static bool is_ours(const char *exe)
{
	return exe[0] && !strncmp(exe, "/memfd:", 7);
}

static bool try_open(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, flags | O_CLOEXEC);
	bool opened = fd >= 0;

	/* An open mem file of a process that has gone on to another program reads nothing. */
	if (opened)
		close(fd);
	return opened;
}

static void attack(int dir, pid_t pid)
{
	static const struct {
		const char *name;
		int flags;
	} ways[] = { { "fd", O_RDONLY | O_DIRECTORY }, { "cwd", O_PATH }, { "root", O_PATH },
		{ "mem", O_RDONLY }, { "mem", O_RDWR }, { "map_files", O_RDONLY | O_DIRECTORY },
		{ "exe", O_RDONLY }, { "exe", O_RDWR }, { "environ", O_RDONLY } };
	char exe[256];

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		if (!try_open(dir, ways[i].name, ways[i].flags))
			continue;
		read_exe(dir, exe, sizeof(exe));
		/* Directories of /proc open for everybody; what counts is whether they can be read. */
		if (is_ours(exe)) {
			printf("hit %s %s of %s\n", ways[i].name, exe,
				pid == 1 ? "init" : "a child");
			hits++;
		}
	}
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
		read_exe(dir, exe, sizeof(exe));
		if (is_ours(exe) || pid == 1) {
			printf("hit ptrace %s\n", exe);
			hits++;
		}
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
	}
}

static void look(const char *name)
{
	char path[64], exe[256];
	pid_t pid = (pid_t)strtol(name, NULL, 10);

	if (pid <= 0 || pid == getpid())
		return;
	snprintf(path, sizeof(path), "/proc/%d", pid);
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return;
	read_exe(dir, exe, sizeof(exe));
	if (!exe[0] || is_ours(exe)) {
		seen++;
		attack(dir, pid);
	}
	close(dir);
}

int cmd_hunt(int argc, char **argv)
{
	(void)argc, (void)argv;
	struct pollfd input = { .fd = 0, .events = POLLIN };

	printf("hunting\n");
	while (poll(&input, 1, 0) == 0) {
		DIR *proc = opendir("/proc");

		for (struct dirent *entry; proc && (entry = readdir(proc));)
			look(entry->d_name);
		if (proc)
			closedir(proc);
	}
	printf("hits %lu seen %lu\n", hits, seen);
	return 0;
}

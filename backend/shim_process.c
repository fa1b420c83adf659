#include "shim_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/parse.h"
#include "linux/sys.h"

/* Fields of a line of /proc/net/unix, from 0; behind them comes the name. */
enum { FIELD_FLAGS = 3, FIELD_INODE = 6, N_FIELDS };
#define LISTENS "00010000" /* what it has accepted, and what waits for that, bears its name too */

static void auto_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static void auto_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

/* "socket:[INODE]" if the line is of the socket that listens at that name. */
static bool match_line(char *line, const char *id, char ret_link[64])
{
	char *rest = line, *fields[N_FIELDS] = { NULL }, *slash;

	line[strcspn(line, "\n")] = '\0';
	slash = strrchr(line, '/');
	if (!slash || strcmp(slash + 1, id))
		return false;
	for (int i = 0; i < N_FIELDS && rest;) {
		fields[i] = strsep(&rest, " ");
		i += *fields[i] != '\0'; /* numbers are padded */
	}
	if (!fields[FIELD_INODE] || strcmp(fields[FIELD_FLAGS], LISTENS) != 0)
		return false;
	snprintf(ret_link, 64, "socket:[%.40s]", fields[FIELD_INODE]);
	return true;
}

static int find_socket(const char *id, char ret_link[64])
{
	FILE *file AUTO(auto_file) = fopen("/proc/net/unix", "re");
	AUTO_FREE char *line = NULL;
	size_t room = 0;

	if (!file)
		return -errno;
	while (getline(&line, &room, file) > 0)
		if (match_line(line, id, ret_link))
			return 0;
	return -ESRCH;
}

static bool holds(int proc_fd, const char *pid, const char *link)
{
	DIR *dir AUTO(auto_dir) = NULL;
	struct dirent *entry;
	char path[64], target[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = sys_open_at(proc_fd, path, O_RDONLY | O_DIRECTORY, 0, 0);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (entry = readdir(dir))) {
		n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = '\0';
		if (!strcmp(target, link))
			return true;
	}
	return false;
}

/* It cannot be another process by the time of the signal: the descriptor is of the one that was looked at. */
static bool kill_if_holder(int proc_fd, const char *name, const char *link)
{
	uint64_t pid;
	AUTO_FD int pid_fd = -1;

	if (parse_u64(name, INT32_MAX, &pid) < 0 || pid == 0 || pid == (uint64_t)getpid())
		return false;
	pid_fd = sys_pidfd_open((pid_t)pid);
	return pid_fd >= 0 && holds(proc_fd, name, link) &&
		pidfd_send_signal(pid_fd, SIGKILL, NULL, 0) == 0;
}

int shim_process_kill(const char *id)
{
	DIR *dir AUTO(auto_dir) = NULL;
	struct dirent *entry;
	char link[64];
	int n_killed = 0, r = find_socket(id, link);

	if (r < 0)
		return r == -ESRCH ? 0 : r;
	dir = opendir("/proc");
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		n_killed += kill_if_holder(dirfd(dir), entry->d_name, link);
	return n_killed;
}

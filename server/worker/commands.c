#include "server/worker/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "linux/sys.h"
#include "server/options.h"
#include "server/worker/cluster.h"
#include "server/worker/config.h"

#define N_OWN_WORDS 4 /* in front of the server's: cluster, GARDEN, VOLUMES, START */

int cluster_command(int argc, char **argv)
{
	AUTO(options_done) struct options options = { 0 };
	struct worker_config config;
	enum log_level level = LOG_INFO;
	struct err err = { 0 };
	uint64_t start_time;
	int r;

	if (argc <= N_OWN_WORDS || parse_u64(argv[4], INT64_MAX, &start_time) < 0) {
		fprintf(stderr, "usage: cloche cluster GARDEN VOLUMES START worker [OPTION...]\n");
		return 2;
	}
	r = options_parse(&options, argc - N_OWN_WORDS, argv + N_OWN_WORDS, environ, &err);
	if (r != 0) {
		fprintf(stderr, "cloche cluster: %s\n", err.msg);
		return 2;
	}
	log_level_parse(options.log_level, &level);
	log_open("cloche", level, 2);
	worker_config_init(&config, &options);
	config.garden_at = argv[2];
	config.volumes_at = argv[3];
	config.start_time_s = (int64_t)start_time;
	return cluster_main(&config);
}

/* Whoever holds the lock of the work directory; 0: nobody that can be seen from here. */
static pid_t find_server(const char *work_dir, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	AUTO_FREE char *path = NULL;
	AUTO_FD int fd = -1;

	if (asprintf(&path, "%s/lock", work_dir) < 0)
		return err_system(err, -ENOMEM, "%s", work_dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_system(err, -errno, "%s", path);
	if (fcntl(fd, F_GETLK, &lock) < 0)
		return err_system(err, -errno, "%s", path);
	if (lock.l_type == F_UNLCK || lock.l_pid <= 0)
		return err_set(err, ERR_NOT_FOUND, ESRCH, "no server serves %s", work_dir);
	return lock.l_pid;
}

static bool is_worker(pid_t pid)
{
	char path[32], words[4096] = "";
	AUTO_FD int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* the start is enough */
	return fd >= 0 && read(fd, words, sizeof(words) - 2) > 0 &&
		!strcmp(words + strlen(words) + 1, "worker");
}

static int tell(const char *work_dir, int signo, struct err *err)
{
	pid_t pid = find_server(work_dir, err);
	AUTO_FD int pid_fd = pid < 0 ? pid : sys_pidfd_open(pid);

	if (pid < 0)
		return pid;
	/* it still holds the lock: so the descriptor is of the one who does */
	if (pid_fd < 0 || find_server(work_dir, err) != pid)
		return err_set(
			err, ERR_NOT_FOUND, ESRCH, "the server of %s has just ended", work_dir);
	if (!is_worker(pid))
		return err_set(err, ERR_INVALID, EINVAL,
			"the server of %s (pid %d) belongs to no cluster: it is not `cloche worker`",
			work_dir, pid);
	return pidfd_send_signal(pid_fd, signo, NULL, 0) < 0
		? err_system(err, -errno, "signal %d", pid)
		: 0;
}

int tell_command(int argc, char **argv)
{
	bool is_land = !strcmp(argv[1], "land");
	AUTO(options_done) struct options options = { 0 };
	struct err err = { 0 };
	int r = options_parse(&options, argc - 1, argv + 1, environ, &err);

	if (r == 1) {
		printf("usage: cloche %s [--work-dir DIR]\n\n%s\n", argv[1],
			is_land ? "The running worker gets no new builds, and ends when the last one on it has."
				: "The same, and the cluster forgets the worker.");
		return 0;
	}
	if (r == 0)
		r = tell(options.work_dir, is_land ? SIGUSR1 : SIGUSR2, &err);
	if (r < 0)
		fprintf(stderr, "cloche %s: %s\n", argv[1], err.msg);
	return r < 0 ? 1 : 0;
}

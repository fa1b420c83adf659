/* probe.c - a static program that runs inside a container and reports what it could see and do.
 * `probe enter PID COMMAND...` joins a container from the host: such a process has every capability
 * in the container's user namespace and no seccomp filter. */
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

const char *result_name(long result)
{
	const char *name = result >= 0 ? "ok" : strerrorname_np((int)-result);

	return name ? name : "unknown";
}

void print_result(const char *what, const char *object, long result)
{
	printf("%s %s %s\n", what, object, result_name(result));
	fflush(stdout);
}

static int cmd_fds(int argc, char **argv)
{
	(void)argc, (void)argv;
	DIR *dir = opendir("/proc/self/fd");

	if (!dir)
		return 1;
	for (struct dirent *entry; (entry = readdir(dir));) {
		char target[512] = "";

		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir))
			continue;
		if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) < 0)
			strcpy(target, "?");
		printf("%s %s\n", entry->d_name, target);
	}
	return closedir(dir);
}

static int cmd_cgroup(int argc, char **argv)
{
	(void)argc, (void)argv;
	char text[4096];
	int fd = open("/proc/self/cgroup", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text));

	return n < 0 || write(1, text, (size_t)n) != n;
}

static int cmd_ids(int argc, char **argv)
{
	(void)argc, (void)argv;
	printf("%u %u %u %u\n", getuid(), geteuid(), getgid(), getegid());
	return 0;
}

/* Where a relative path leads: the current directory by the kernel's own word. */
static int cmd_cwd(int argc, char **argv)
{
	char path[4096] = "", text[256] = "";
	const char *climb = argc > 1 ? argv[1] : "../../../../../../etc/hostname";

	if (syscall(SYS_getcwd, path, sizeof(path)) < 0)
		snprintf(path, sizeof(path), "%s", result_name(-errno));
	int fd = open(climb, O_RDONLY);

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0)
		text[strcspn(text, "\n")] = 0;
	printf("%s %s\n", path, fd < 0 ? result_name(-errno) : text);
	return 0;
}

static void walk(const char *directory, bool top)
{
	DIR *dir = opendir(directory);

	if (!dir)
		return;
	for (struct dirent *entry; (entry = readdir(dir));) {
		char path[4096];
		struct stat st;
		bool process =
			top && (strspn(entry->d_name, "0123456789") == strlen(entry->d_name));

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || process)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (lstat(path, &st) < 0)
			continue;
		if (S_ISDIR(st.st_mode)) {
			walk(path, false);
		} else if (S_ISREG(st.st_mode)) {
			int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY);

			if (fd >= 0)
				printf("%s\n", path);
			close(fd);
		}
	}
	closedir(dir);
}

/* Regular files that open for writing; nothing is written. Processes' directories are left out. */
static int cmd_writable(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		walk(argv[i], true);
	return 0;
}

static int cmd_open(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int fd = open(argv[i], O_WRONLY | O_NONBLOCK | O_NOCTTY);

		print_result("write", argv[i], fd < 0 ? -errno : fd);
		close(fd);
		fd = open(argv[i], O_RDONLY | O_NONBLOCK | O_NOCTTY);
		print_result("read", argv[i], fd < 0 ? -errno : fd);
		close(fd);
	}
	return 0;
}

/* Arguments like b:254:0; each node is made here and opened. */
static int cmd_nodes(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		unsigned int major, minor;
		char kind;

		if (sscanf(argv[i], "%c:%u:%u", &kind, &major, &minor) != 3)
			return 2;
		int r = mknod("probe-node", (kind == 'b' ? S_IFBLK : S_IFCHR) | 0666,
			makedev(major, minor));

		print_result("mknod", argv[i], r < 0 ? -errno : 0);
		if (r < 0)
			continue;
		int fd = open("probe-node", O_RDONLY | O_NONBLOCK);

		print_result("open", argv[i], fd < 0 ? -errno : 0);
		close(fd);
		unlink("probe-node");
	}
	return 0;
}

/* The walk over the host's files by handle numbers: root of the file system that a path is on. */
static int cmd_handle(int argc, char **argv)
{
	struct {
		struct file_handle head;
		unsigned char bytes[8];
	} handle = { { .handle_bytes = 8, .handle_type = 1 }, { 2 } };
	int at = open(argc > 1 ? argv[1] : "/etc/hosts", O_RDONLY);
	long r = syscall(SYS_open_by_handle_at, at, &handle, O_RDONLY);

	print_result("open_by_handle_at", "root", r < 0 ? -errno : r);
	return 0;
}

static int cmd_trace(int argc, char **argv)
{
	(void)argc, (void)argv;
	pid_t child = fork();

	if (child == 0)
		for (;;)
			pause();
	long r = ptrace(PTRACE_SEIZE, child, 0, 0);

	print_result("ptrace", "child", r < 0 ? -errno : 0);
	kill(child, SIGKILL);
	return waitpid(child, NULL, 0) != child;
}

static int cmd_enter(int argc, char **argv);

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "fds", cmd_fds },
	{ "cgroup", cmd_cgroup },
	{ "ids", cmd_ids },
	{ "cwd", cmd_cwd },
	{ "writable", cmd_writable },
	{ "open", cmd_open },
	{ "nodes", cmd_nodes },
	{ "handle", cmd_handle },
	{ "mounts", cmd_mounts },
	{ "syscalls", cmd_syscalls },
	{ "sockets", cmd_sockets },
	{ "terminal", cmd_terminal },
	{ "hunt", cmd_hunt },
	{ "trace", cmd_trace },
	{ "bomb", cmd_bomb },
	{ "lines", cmd_lines },
	{ "acknowledge", cmd_acknowledge },
	{ "enter", cmd_enter },
};

static int run_command(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (argc > 0 && !strcmp(argv[0], commands[i].name))
			return commands[i].run(argc, argv);
	fprintf(stderr, "probe: unknown command\n");
	return 2;
}

static int cmd_enter(int argc, char **argv)
{
	int pidfd = argc > 2 ? (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0) : -1;

	if (pidfd < 0 ||
		setns(pidfd,
			CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
				CLONE_NEWUTS | CLONE_NEWCGROUP) < 0 ||
		setgid(0) < 0 || setuid(0) < 0) {
		perror("probe: enter");
		return 2;
	}
	pid_t child = fork();

	if (child == 0)
		_exit(run_command(argc - 2, argv + 2));
	int status = 0;

	return child < 0 || waitpid(child, &status, 0) < 0 || status != 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	return run_command(argc - 1, argv + 1);
}

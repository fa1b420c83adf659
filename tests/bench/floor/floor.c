/* floor.c - what a container costs when nobody manages it: the kernel objects of one unprivileged container, made and
 * removed by bare system calls. No records, no protocol, no error recovery: every failure ends the program.
 *
 * Three processes: this one stands for the shim; the builder makes the mount tree in a mount namespace that the host
 * owns and is gone when the container lives; init is pid 1 of the container. Their order is the one in design.md 6. */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	CONTAINER_FLAGS =
		CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
};

static pid_t *shared_init; /* written by the builder, read by us */
static pid_t main_pid;
static int n_containers;

/* After a failure: what outlives our processes. The layer stays below the state directory, which the caller owns. */
static void clean_up(void)
{
	if (*shared_init > 0) {
		kill(*shared_init, SIGKILL);
		waitpid(*shared_init, NULL, __WALL);
	}
	groups_remove();
}

_Noreturn void die(const char *fmt, ...)
{
	int code = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("floor: ", stderr);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, ": %s\n", strerror(code));
	va_end(ap);
	if (getpid() == main_pid)
		clean_up();
	_exit(1);
}

int must(int r, const char *what)
{
	if (r < 0)
		die("%s", what);
	return r;
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static pid_t clone_flags(uint64_t flags, int cgroup_fd)
{
	struct clone_args args = { .flags = flags,
		.exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD };

	if (cgroup_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup_fd;
	}
	return (pid_t)must((int)syscall(SYS_clone3, &args, sizeof(args)), "clone3");
}

void write_file(int dir_fd, const char *path, const char *text)
{
	int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("write %s", path);
	close(fd);
}

static void wait_for(pid_t pid, const char *who)
{
	int status;

	if (waitpid(pid, &status, __WALL) != pid)
		die("wait for %s", who);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		errno = ECHILD;
		die("%s ended with status %#x", who, (unsigned int)status);
	}
}

static void write_map(pid_t init, const char *name)
{
	char path[64], map[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)init, name);
	snprintf(map, sizeof(map), "0 %d %d\n", ID_BASE, ID_COUNT);
	write_file(AT_FDCWD, path, map);
}

static void enter_ns(pid_t pid, const char *kind)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);

	must(setns(fd, 0), path);
	close(fd);
}

static void run_once(const char *program)
{
	char *const argv[] = { (char *)program, NULL }, *const envp[] = { NULL };
	pid_t pid = must(vfork(), "vfork");

	if (pid == 0) {
		execve(program, argv, envp);
		_exit(127);
	}
	wait_for(pid, program);
}

/* Pid 1 of the container. Waits for the tree, locks it by taking its own copy, then runs what it is told to. */
_Noreturn static void init_main(const struct options *o, int fd)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int socket_fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	char command;

	must(prctl(PR_SET_NAME, "floor-init"), "name");
	must(ioctl(socket_fd, SIOCSIFFLAGS, &lo), "loopback up");
	close(socket_fd);
	if (read(fd, &command, 1) != 1)
		_exit(1);
	must(unshare(CLONE_NEWNS), "lock the mounts");
	must(setresgid(0, 0, 0), "setresgid");
	must(setresuid(0, 0, 0), "setresuid");
	must((int)write(fd, "R", 1), "report");
	while (read(fd, &command, 1) == 1) {
		run_once(o->run);
		must((int)write(fd, "D", 1), "report");
	}
	_exit(0);
}

/* The builder's child: a member of init's pid namespace, which is what proc looks at. */
_Noreturn static void helper_main(const struct options *o, pid_t init)
{
	enter_ns(init, "net");
	enter_ns(init, "ipc");
	if (o->has_veth)
		link_set_up_inside(n_containers);
	tree_mount_skeleton();
	_exit(0);
}

static void give_link(pid_t init)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)init);
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);

	link_make(n_containers, fd);
	close(fd);
}

_Noreturn static void builder_main(const struct options *o, int unified_fd, const int pair[2])
{
	if (o->join)
		groups_join(o->join);
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
	must(unshare(CLONE_NEWPID), "new pid namespace");
	pid_t init = clone_flags(CONTAINER_FLAGS | CLONE_PARENT, unified_fd);

	if (init == 0) {
		close(pair[0]);
		init_main(o, pair[1]);
	}
	*shared_init = init;
	write_map(init, "uid_map");
	write_map(init, "gid_map");
	if (o->has_veth)
		give_link(init);
	/* what is made from here on belongs to the container's root, with all capabilities kept */
	must(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), "securebits");
	setfsgid(ID_BASE);
	setfsuid(ID_BASE);
	umask(0);
	tree_make_stage(o->stage);

	pid_t helper = clone_flags(0, -1);

	if (helper == 0)
		helper_main(o, init);
	tree_mount_root(o, init);
	wait_for(helper, "the skeleton");
	tree_pivot();
	must((int)write(pair[0], "G", 1), "start init");
	_exit(0);
}

struct container {
	int control_fd;
	pid_t init;
};

static void expect(int fd, char want, const char *what)
{
	char got = 0;

	if (read(fd, &got, 1) != 1 || got != want)
		die("%s", what);
}

static void make_layer(const struct options *o)
{
	must(mkdir(o->layer, 0755), o->layer);
	int dir_fd = must(open(o->layer, O_PATH | O_DIRECTORY | O_CLOEXEC), o->layer);

	must(mkdirat(dir_fd, "upper", 0755), "upper");
	must(mkdirat(dir_fd, "work", 0755), "work");
	close(dir_fd);
}

static void remove_layer(const struct options *o)
{
	static const char *const dirs[] = { "upper", "work/work/incompat/volatile",
		"work/work/incompat", "work/work", "work" };
	int dir_fd = must(open(o->layer, O_PATH | O_DIRECTORY | O_CLOEXEC), o->layer);

	must(unlinkat(dir_fd, "work/work/incompat/volatile/dirty", 0), "work");
	for (size_t i = 0; i < N(dirs); i++)
		must(unlinkat(dir_fd, dirs[i], AT_REMOVEDIR), dirs[i]);
	close(dir_fd);
	must(rmdir(o->layer), o->layer);
}

static void container_create(const struct options *o, struct container *c)
{
	int pair[2];

	n_containers++;
	make_layer(o);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
	int unified_fd = groups_make();

	*shared_init = 0;
	pid_t builder = clone_flags(CLONE_NEWNS, -1);

	if (builder == 0)
		builder_main(o, unified_fd, pair);
	close(pair[1]);
	if (unified_fd >= 0)
		close(unified_fd);
	wait_for(builder, "the builder");
	c->control_fd = pair[0];
	c->init = *shared_init;
	expect(c->control_fd, 'R', "init did not start");
}

static void container_run(struct container *c)
{
	must((int)write(c->control_fd, "X", 1), "command");
	expect(c->control_fd, 'D', "the program did not run");
}

static void container_destroy(const struct options *o, struct container *c)
{
	must(kill(c->init, SIGKILL), "kill init");
	if (waitpid(c->init, NULL, __WALL) != c->init)
		die("wait for init");
	*shared_init = 0;
	close(c->control_fd);
	groups_unmake();
	remove_layer(o);
}

static void iterate(const struct options *o)
{
	struct container c;
	double begin = now_ms();
	container_create(o, &c);
	double created = now_ms();
	if (o->run)
		container_run(&c);
	double ran = now_ms();
	container_destroy(o, &c);
	double destroyed = now_ms();

	printf("create %.3f run %.3f destroy %.3f\n", created - begin, ran - created,
		destroyed - ran);
	fflush(stdout);
}

_Noreturn static void usage(void)
{
	fputs("usage: floor --root DIR --state DIR [-n N] [--run PROGRAM] [--cgroup-move|--cgroup-tasks] [--veth] [--paced]\n"
	      "Makes and removes N bare containers over the tree DIR and prints the milliseconds of each.\n"
	      "  --run PROGRAM   fork from init, exec PROGRAM in the container, wait for its end\n"
	      "  --cgroup-move   give each container groups, joined by cgroup.procs on v1, by birth on v2\n"
	      "  --cgroup-tasks  the same, but joined by tasks on v1, which waits for no grace period\n"
	      "  --veth          a veth pair with addresses and a route, left to the death of its namespace\n"
	      "  --paced         wait for a line on standard input before each one; its end ends the program\n",
		stderr);
	exit(2);
}

static struct options parse(int argc, char **argv)
{
	int join = 0, paced = 0, veth = 0, c;
	const struct option table[] = { { "root", required_argument, NULL, 'r' },
		{ "state", required_argument, NULL, 's' }, { "run", required_argument, NULL, 'x' },
		{ "cgroup-move", no_argument, &join, 1 }, { "cgroup-tasks", no_argument, &join, 2 },
		{ "veth", no_argument, &veth, 1 }, { "paced", no_argument, &paced, 1 }, { 0 } };
	static const char *const join_files[] = { NULL, "cgroup.procs", "tasks" };
	struct options o = { .n = 1 };

	while ((c = getopt_long(argc, argv, "n:", table, NULL)) != -1) {
		if (c == 'r')
			o.root = realpath(optarg, NULL);
		else if (c == 's')
			o.state = realpath(optarg, NULL);
		else if (c == 'x')
			o.run = optarg;
		else if (c == 'n')
			o.n = (int)strtol(optarg, NULL, 10);
		else if (c != 0)
			usage();
	}
	o.join = join_files[join];
	o.paced = paced;
	o.has_veth = veth;
	if (!o.root || !o.state || optind != argc)
		usage();
	if (asprintf(&o.layer, "%s/layer", o.state) < 0 ||
		asprintf(&o.stage, "%s/stage", o.state) < 0)
		die("asprintf");
	if (mkdir(o.stage, 0700) < 0 && errno != EEXIST)
		die("%s", o.stage);
	return o;
}

int main(int argc, char **argv)
{
	struct options o;
	char line[16];

	main_pid = getpid();
	shared_init = mmap(NULL, sizeof(*shared_init), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared_init == MAP_FAILED)
		die("mmap");
	o = parse(argc, argv);
	if (o.join)
		groups_add();
	for (int i = 0; i < o.n || o.paced; i++) {
		if (o.paced && !fgets(line, sizeof(line), stdin))
			break;
		iterate(&o);
	}
	clean_up();
	return 0;
}

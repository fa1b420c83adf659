/* floor.c - what a container costs when nobody manages it: the kernel objects of one unprivileged container, made and
 * removed by bare system calls. No records, no protocol, no error recovery: every failure ends the program.
 *
 * Three processes: this one stands for the shim; the builder makes the mount tree in a mount namespace that the host
 * owns and is gone when the container lives; init is pid 1 of the container. Their order is the one in design.md 6. */
#include <dirent.h>
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
	ID_BASE = 1879048192,
	ID_COUNT = 65536,
	N_GROUPS_MAX = 16,
	CONTAINER_FLAGS =
		CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
	LOCKED_DOWN = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
};

struct options {
	char *root, *layer, *stage;
	const char *state, *run;
	int n;
	const char
		*join; /* the file of a v1 group that the builder joins by, NULL without groups */
	bool paced;
};

/* One group of our own for this run in every hierarchy, and a child group in each of them for the current container. */
struct group {
	int parent_fd;
	bool unified;
	char *path;
};

static struct group groups[N_GROUPS_MAX];
static int n_groups;
static pid_t *shared_init; /* written by the builder, read by us */
static pid_t main_pid;

static const char *const v1_controllers[] = { "cpu", "cpuacct", "memory", "devices", "pids",
	"blkio" };

static const struct node {
	const char *name;
	unsigned int major, minor;
} nodes[] = { { "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 },
	{ "urandom", 1, 9 }, { "tty", 5, 0 } };

static const char *const links[][2] = { { "/proc/self/fd", "dev/fd" },
	{ "/proc/self/fd/0", "dev/stdin" }, { "/proc/self/fd/1", "dev/stdout" },
	{ "/proc/self/fd/2", "dev/stderr" }, { "pts/ptmx", "dev/ptmx" } };

static const char *const masked[] = { "proc/asound", "proc/acpi", "proc/interrupts", "proc/kcore",
	"proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats",
	"proc/sched_debug", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap" };

static const char *const read_only[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys",
	"proc/sysrq-trigger" };

#define N(array) (sizeof(array) / sizeof(*(array)))

/* After a failure: what outlives our processes. The layer stays below the state directory, which the caller owns. */
static void clean_up(void)
{
	if (*shared_init > 0) {
		kill(*shared_init, SIGKILL);
		waitpid(*shared_init, NULL, __WALL);
	}
	for (int i = 0; i < n_groups; i++) {
		unlinkat(groups[i].parent_fd, "c", AT_REMOVEDIR);
		rmdir(groups[i].path);
	}
}

_Noreturn static void die(const char *fmt, ...)
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

static int must(int r, const char *what)
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

static void write_file(int dir_fd, const char *path, const char *text)
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

/* --- cgroups ------------------------------------------------------------------------------------------------- */

/* The path of our own group: in the line of /proc/self/cgroup that has this list of controllers, "" for v2. */
static char *own_group(const char *controller)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4096], *found = NULL;

	if (!f)
		die("open /proc/self/cgroup");
	while (!found && fgets(line, sizeof(line), f)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		*path = 0;
		path[strcspn(path + 1, "\n") + 1] = 0;
		if (strcmp(list + 1, controller) == 0)
			found = strdup(path + 1);
	}
	fclose(f);
	return found;
}

static void group_add(const char *mount_point, const char *controller)
{
	char *own = own_group(controller);
	struct group *g = &groups[n_groups];

	if (!own || access(mount_point, F_OK) < 0) {
		free(own);
		return;
	}
	if (asprintf(&g->path, "%s%s/floor-%d", mount_point, own, (int)getpid()) < 0)
		die("asprintf");
	free(own);
	must(mkdir(g->path, 0755), g->path);
	g->parent_fd = must(open(g->path, O_PATH | O_DIRECTORY | O_CLOEXEC), g->path);
	g->unified = controller[0] == 0;
	n_groups++;
}

static void groups_add(void)
{
	bool pure_v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
	char mount_point[64];

	for (size_t i = 0; !pure_v2 && i < N(v1_controllers); i++) {
		snprintf(mount_point, sizeof(mount_point), "/sys/fs/cgroup/%s", v1_controllers[i]);
		group_add(mount_point, v1_controllers[i]);
	}
	group_add(pure_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified", "");
}

/* The container's groups, which the builder joins, so that init is born in them. Returns the v2 group that init is
 * cloned into, or -1. */
static int groups_make(void)
{
	int unified_fd = -1;

	for (int i = 0; i < n_groups; i++) {
		must(mkdirat(groups[i].parent_fd, "c", 0755), "make a group");
		if (groups[i].unified)
			unified_fd = must(openat(groups[i].parent_fd, "c", O_RDONLY | O_CLOEXEC),
				"open a group");
	}
	return unified_fd;
}

/* cgroup.procs moves a whole process and waits for a grace period of the kernel, unless another move has just done so.
 * A thread that moves only itself, by writing 0 to tasks, needs none, and the builder has one thread. */
static void groups_join(const char *file)
{
	char path[32];

	snprintf(path, sizeof(path), "c/%s", file);
	for (int i = 0; i < n_groups; i++)
		if (!groups[i].unified)
			write_file(groups[i].parent_fd, path, "0");
}

static void groups_unmake(void)
{
	for (int i = 0; i < n_groups; i++)
		must(unlinkat(groups[i].parent_fd, "c", AT_REMOVEDIR), "remove a group");
}

/* --- mounts: all names are relative to the stage, a tmpfs that is the builder's working directory ------------------ */

/* A new file system; the options are pairs of key and value, ended by NULL. No value makes a flag. */
static int mount_new(const char *type, unsigned int attr, const char *const *pairs)
{
	int fs_fd = must(fsopen(type, FSOPEN_CLOEXEC), type), fd;

	for (; *pairs; pairs += 2) {
		bool is_flag = pairs[1][0] == 0;

		if (fsconfig(fs_fd, is_flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, pairs[0],
			    is_flag ? NULL : pairs[1], 0) < 0)
			die("%s: option %s=%s", type, pairs[0], pairs[1]);
	}
	if (fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		die("%s: create", type);
	fd = must(fsmount(fs_fd, FSMOUNT_CLOEXEC, attr), type);
	close(fs_fd);
	return fd;
}

static void attach(int fd, const char *target)
{
	if (move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		die("attach %s", target);
	close(fd);
}

static void attach_new(
	const char *type, const char *target, unsigned int attr, const char *const *pairs)
{
	attach(mount_new(type, attr, pairs), target);
}

static int clone_with(const char *source, struct mount_attr *attr)
{
	int fd = must(open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), source);

	if (mount_setattr(fd, "", AT_EMPTY_PATH, attr, sizeof(*attr)) < 0)
		die("attributes of %s", source);
	return fd;
}

/* Lays one tree over another, or over itself; what the kernel does not have is passed over. */
static void cover(const char *source, const char *target, uint64_t attr)
{
	struct stat st;

	if (stat(target, &st) < 0)
		return;
	if (!source)
		source = S_ISDIR(st.st_mode) ? "empty" : "dev/null";
	/* the null device must stay a device */
	if (strcmp(source, "dev/null") == 0)
		attr &= ~(uint64_t)MOUNT_ATTR_NODEV;
	attach(clone_with(source, &(struct mount_attr){ .attr_set = attr }), target);
}

static void populate_dev(void)
{
	attach_new("tmpfs", "dev", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
		(const char *[]){ "mode", "0755", "size", "65536", NULL });
	for (size_t i = 0; i < N(nodes); i++) {
		char path[32];

		snprintf(path, sizeof(path), "dev/%s", nodes[i].name);
		must(mknod(path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), path);
	}
	for (size_t i = 0; i < N(links); i++)
		must(symlink(links[i][0], links[i][1]), links[i][1]);
	must(mkdir("dev/pts", 0755), "dev/pts");
	must(mkdir("dev/shm", 01777), "dev/shm");
	must(mkdir("dev/mqueue", 0755), "dev/mqueue");
}

/* Runs as the builder's child: a member of init's pid namespace, which is what proc looks at. */
static void mount_skeleton(pid_t init)
{
	char path[64], gid[16];
	const char *ns[] = { "net", "ipc" };

	for (size_t i = 0; i < N(ns); i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)init, ns[i]);
		int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);

		must(setns(fd, 0), path);
		close(fd);
	}
	snprintf(gid, sizeof(gid), "%d", ID_BASE + 5);
	populate_dev();
	attach_new("devpts", "dev/pts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
		(const char *[]){ "mode", "0620", "ptmxmode", "0666", "gid", gid, NULL });
	attach_new("tmpfs", "dev/shm", LOCKED_DOWN,
		(const char *[]){ "mode", "1777", "size", "67108864", NULL });
	attach_new("mqueue", "dev/mqueue", LOCKED_DOWN, (const char *[]){ NULL });
	attach_new("proc", "proc", LOCKED_DOWN, (const char *[]){ NULL });
	attach_new("sysfs", "sys", LOCKED_DOWN | MOUNT_ATTR_RDONLY, (const char *[]){ NULL });
	for (size_t i = 0; i < N(masked); i++)
		cover(NULL, masked[i], LOCKED_DOWN | MOUNT_ATTR_RDONLY);
	for (size_t i = 0; i < N(read_only); i++)
		cover(read_only[i], read_only[i], LOCKED_DOWN | MOUNT_ATTR_RDONLY);
	_exit(0);
}

static void make_stage(const char *target)
{
	static const char *const dirs[] = { "lower", "layer", "root", "proc", "sys", "dev",
		"empty" };
	int fd = mount_new("tmpfs", 0, (const char *[]){ "mode", "0700", NULL });

	must(fchdir(fd), "stage");
	for (size_t i = 0; i < N(dirs); i++)
		must(mkdir(dirs[i], 0755), dirs[i]);
	if (move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		die("attach the stage");
	close(fd);
}

static void mount_root(const struct options *o, pid_t init)
{
	char path[64];
	struct statvfs st;

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)init);
	int user_fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_fd };

	attach(clone_with(o->root, &attr), "lower");
	attach(clone_with(o->layer, &attr), "layer");
	/* volatile: else the end of the mount writes out the whole file system below */
	attach_new("overlay", "root", MOUNT_ATTR_NODEV,
		(const char *[]){ "lowerdir", "lower", "upperdir", "layer/upper", "workdir",
			"layer/work", "volatile", "", NULL });
	if (statvfs("root", &st) < 0 || st.f_flag & ST_RDONLY) {
		errno = EROFS;
		die("overlay");
	}
	close(user_fd);
}

static void write_map(pid_t init, const char *name)
{
	char path[64], map[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)init, name);
	snprintf(map, sizeof(map), "0 %d %d\n", ID_BASE, ID_COUNT);
	write_file(AT_FDCWD, path, map);
}

/* --- the three processes -------------------------------------------------------------------------------------- */

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
	/* what is made from here on belongs to the container's root, with all capabilities kept */
	must(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), "securebits");
	setfsgid(ID_BASE);
	setfsuid(ID_BASE);
	umask(0);
	make_stage(o->stage);

	pid_t helper = clone_flags(0, -1);

	if (helper == 0)
		mount_skeleton(init);
	mount_root(o, init);
	wait_for(helper, "the skeleton");
	static const char *const moves[][2] = { { "proc", "root/proc" }, { "sys", "root/sys" },
		{ "dev", "root/dev" } };

	for (size_t i = 0; i < N(moves); i++)
		if (move_mount(AT_FDCWD, moves[i][0], AT_FDCWD, moves[i][1], 0) < 0)
			die("move %s", moves[i][0]);
	must(chdir("root"), "chdir");
	must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "detach the old root");
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
	fputs("usage: floor --root DIR --state DIR [-n N] [--run PROGRAM] [--cgroup-move|--cgroup-tasks] [--paced]\n"
	      "Makes and removes N bare containers over the tree DIR and prints the milliseconds of each.\n"
	      "  --run PROGRAM   fork from init, exec PROGRAM in the container, wait for its end\n"
	      "  --cgroup-move   give each container groups, joined by cgroup.procs on v1, by birth on v2\n"
	      "  --cgroup-tasks  the same, but joined by tasks on v1, which waits for no grace period\n"
	      "  --paced         wait for a line on standard input before each one; its end ends the program\n",
		stderr);
	exit(2);
}

static struct options parse(int argc, char **argv)
{
	int join = 0, paced = 0, c;
	const struct option table[] = { { "root", required_argument, NULL, 'r' },
		{ "state", required_argument, NULL, 's' }, { "run", required_argument, NULL, 'x' },
		{ "cgroup-move", no_argument, &join, 1 }, { "cgroup-tasks", no_argument, &join, 2 },
		{ "paced", no_argument, &paced, 1 }, { 0 } };
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

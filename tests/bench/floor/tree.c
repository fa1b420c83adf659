/* The mount tree of the floor's containers. */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { LOCKED_DOWN = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };

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

void tree_mount_skeleton(void)
{
	char gid[16];

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
}

void tree_make_stage(const char *target)
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

void tree_mount_root(const struct options *o, pid_t init)
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

void tree_pivot(void)
{
	static const char *const moves[][2] = { { "proc", "root/proc" }, { "sys", "root/sys" },
		{ "dev", "root/dev" } };

	for (size_t i = 0; i < N(moves); i++)
		if (move_mount(AT_FDCWD, moves[i][0], AT_FDCWD, moves[i][1], 0) < 0)
			die("move %s", moves[i][0]);
	must(chdir("root"), "chdir");
	must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "detach the old root");
}

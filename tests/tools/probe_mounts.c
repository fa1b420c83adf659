/* probe_mounts.c - tries to undo every mount of the tree it finds itself in. Each line that says "ok"
 * is a protection that could be taken away, except for those of "allowed". */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> cannot be included together. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	const void *data);
int umount2(const char *target, int flags);

#define UMOUNT_DETACH 2
#define SCRATCH "/tmp/probe-mount"

struct attribute {
	const char *name, *option;
	unsigned long long flag;
	unsigned long remount;
};

static const struct attribute attributes[] = {
	{ "clear-ro", "ro", MOUNT_ATTR_RDONLY, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "clear-nosuid", "nosuid", MOUNT_ATTR_NOSUID, MS_RDONLY | MS_NODEV | MS_NOEXEC },
	{ "clear-nodev", "nodev", MOUNT_ATTR_NODEV, MS_RDONLY | MS_NOSUID | MS_NOEXEC },
	{ "clear-noexec", "noexec", MOUNT_ATTR_NOEXEC, MS_RDONLY | MS_NOSUID | MS_NODEV },
};

static long clear(int at, const char *path, unsigned int flags, unsigned long long attribute)
{
	struct mount_attr attr = { .attr_clr = attribute };

	return syscall(SYS_mount_setattr, at, path, flags, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

static bool has_option(const char *options, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = options; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, name, n) && (at[n] == ',' || !at[n]))
			return true;
	}
	return false;
}

/* The same attribute by the old call, which must repeat all that is to stay. */
static long remount_without(const char *point, const struct attribute *a)
{
	return mount(NULL, point, NULL, MS_REMOUNT | MS_BIND | a->remount, NULL) < 0 ? -errno : 0;
}

/* A clone of the mount put elsewhere: its flags are locked as well. */
static long clear_in_clone(const char *point, unsigned long long attribute)
{
	int fd = (int)syscall(
		SYS_open_tree, AT_FDCWD, point, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		return -errno;
	long r = clear(fd, "", AT_EMPTY_PATH, attribute);

	close(fd);
	return r;
}

/* A bind without the mounts below it would show what they cover. */
static long reveal(const char *point)
{
	struct stat st;

	if (stat(point, &st) < 0)
		return -errno;
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, point, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static void attack(const char *point, const char *options, bool has_children)
{
	for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
		const struct attribute *a = &attributes[i];

		if (!has_option(options, a->option))
			continue;
		print_result(a->name, point, clear(AT_FDCWD, point, 0, a->flag));
		print_result("remount", point, remount_without(point, a));
		print_result("clear-in-clone", point, clear_in_clone(point, a->flag));
	}
	if (has_children)
		print_result("reveal", point, reveal(point));
	print_result("umount", point, umount2(point, UMOUNT_DETACH) < 0 ? -errno : 0);
	print_result("umount-plain", point, umount2(point, 0) < 0 ? -errno : 0);
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, point, OPEN_TREE_CLOEXEC);
	long r = syscall(SYS_move_mount, tree, "", AT_FDCWD, SCRATCH, MOVE_MOUNT_F_EMPTY_PATH);

	print_result("move", point, r < 0 ? -errno : 0);
	close(tree);
}

static long mount_new(const char *type)
{
	long r = mount("none", SCRATCH, type, 0, NULL) < 0 ? -errno : 0;

	if (r == 0)
		umount2(SCRATCH, UMOUNT_DETACH);
	return r;
}

static long mount_new_by_descriptor(const char *type)
{
	int fs = (int)syscall(SYS_fsopen, type, 0);

	if (fs < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	long r = syscall(SYS_fsmount, fs, 0, 0);

	return r < 0 ? -errno : 0;
}

int cmd_mounts(int argc, char **argv)
{
	(void)argc, (void)argv;
	static struct {
		int id, parent;
		char point[1024], options[256];
	} list[512];
	size_t n = 0;
	FILE *file = fopen("/proc/self/mountinfo", "r");
	char line[8192];

	while (file && n < 512 && fgets(line, sizeof(line), file))
		if (sscanf(line, "%d %d %*s %*s %1023s %255s", &list[n].id, &list[n].parent,
			    list[n].point, list[n].options) == 4)
			n++;
	if (file)
		fclose(file);
	mkdir(SCRATCH, 0755);
	print_result("new", "proc", mount_new("proc"));
	print_result("new", "sysfs", mount_new("sysfs"));
	print_result("new-by-fd", "proc", mount_new_by_descriptor("proc"));
	print_result("new-by-fd", "sysfs", mount_new_by_descriptor("sysfs"));
	print_result("allowed", "tmpfs", mount_new("tmpfs"));
	for (size_t i = n; i-- > 0;) {
		bool has_children = false;

		for (size_t k = 0; k < n; k++)
			has_children |= list[k].parent == list[i].id && k != i;
		attack(list[i].point, list[i].options, has_children);
	}
	rmdir(SCRATCH);
	return n == 0;
}

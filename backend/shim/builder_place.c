/* Runs in a child of the shim: system calls only (tests/lint/child.allow). */
#include "shim/builder_work.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/sys.h"

#define MAX_LINKS 8 /* of those that lead nowhere, one after the other */

int place_open_skeleton(const struct work *work, const char *path, int flags)
{
	return sys_open_beneath(work->skeleton_fd, path, O_PATH | flags, 0);
}

static int open_or_make_in_root(const struct work *work, const char *path, bool is_dir, int depth);

/* part is a link that leads nowhere: makes what it names, inside of the root like everything else.
 */
static int make_link_target(const struct work *work, int parent_fd, const char *part,
	size_t name_at, bool is_dir, int depth)
{
	char target[4096];
	AUTO_FD int fd = -1;
	ssize_t n;

	if (depth == 0)
		return -ELOOP;
	n = readlinkat(parent_fd, part + name_at, target, sizeof(target) - 1);
	if (n < 0)
		return errno == EINVAL ? -ELOOP : -errno;
	target[n] = '\0';
	if (target[0] != '/') {
		if (name_at + n >= sizeof(target))
			return -ENAMETOOLONG;
		memmove(target + name_at, target, n + 1);
		memcpy(target, part, name_at);
	}
	fd = open_or_make_in_root(work, target, is_dir, depth - 1);
	return fd < 0 ? fd : 0;
}

/* One component that is missing. */
static int make_part(const struct work *work, int parent_fd, const char *part, size_t name_at,
	bool is_dir, int depth)
{
	int r = is_dir ? mkdirat(parent_fd, part + name_at, 0755)
		       : mknodat(parent_fd, part + name_at, S_IFREG | 0644, 0);

	if (r == 0)
		return 0;
	return errno == EEXIST ? make_link_target(work, parent_fd, part, name_at, is_dir, depth)
			       : -errno;
}

/* Opens path in the root, making what is missing: directories, and at the end a file if !is_dir.
 * Each part is looked up as the container would see it. */
static int open_or_make_in_root(const struct work *work, const char *path, bool is_dir, int depth)
{
	AUTO_FD int parent_fd = sys_open_in_root(work->root_fd, "/", O_PATH | O_DIRECTORY, 0);
	size_t len = strlen(path), start = strspn(path, "/");
	char part[4096];

	if (len >= sizeof(part))
		return -ENAMETOOLONG;
	while (parent_fd >= 0 && start < len) {
		size_t end = start + strcspn(path + start, "/");
		size_t next = end + strspn(path + end, "/");
		int fd, r = 0;

		memcpy(part, path, end);
		part[end] = '\0';
		fd = sys_open_in_root(work->root_fd, part, O_PATH, 0);
		if (fd == -ENOENT) {
			r = make_part(work, parent_fd, part, start, next < len || is_dir, depth);
			fd = r < 0 ? r : sys_open_in_root(work->root_fd, part, O_PATH, 0);
		}
		auto_fd(&parent_fd);
		parent_fd = fd;
		start = next;
	}
	return TAKE_FD(parent_fd);
}

/* A link of the image may have led a mount of the user's onto one of ours, or to one: a second place
 * of it would be without what covers it. */
static int refuse_kernel_trees(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	switch ((unsigned long)fs.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
		return -EPERM;
	default:
		return 0;
	}
}

int place_open_root_source(const struct work *work, const char *path)
{
	AUTO_FD int fd = sys_open_in_root(work->root_fd, path, O_PATH, 0);
	int r = fd < 0 ? fd : refuse_kernel_trees(fd);

	return r < 0 ? r : TAKE_FD(fd);
}

static bool is_dir_fd(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static int open_target(
	const struct work *work, const struct op_wire *op, const char *path, bool is_dir)
{
	AUTO_FD int fd = -1;
	int r;

	if (!(op->flags & OPF_IN_ROOT))
		return place_open_skeleton(work, path, 0);
	fd = open_or_make_in_root(work, path, is_dir, MAX_LINKS);
	if (fd < 0)
		return fd;
	r = refuse_kernel_trees(fd);
	return r < 0 ? r : TAKE_FD(fd);
}

static int open_dir_of_root(const struct work *work, const char *name)
{
	return sys_open_beneath(work->root_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
}

int place_move(const struct work *work, int from_fd, const char *name)
{
	AUTO_FD int to_fd = open_dir_of_root(work, name);

	if (to_fd == -ENOENT) {
		if (mkdirat(work->root_fd, name, 0755) < 0)
			return -errno;
		to_fd = open_dir_of_root(work, name);
	}
	return to_fd < 0 ? to_fd : sys_move_mount(from_fd, to_fd);
}

int place_become_root(const struct work *work)
{
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
		return -errno;
	setfsgid(work->plan->root_gid);
	setfsuid(work->plan->root_uid);
	return 0;
}

int place_attach(struct work *work, const struct op_wire *op, int mount_fd, const char *path)
{
	AUTO_FD int target_fd = open_target(work, op, path, is_dir_fd(mount_fd));
	int r;

	if (target_fd < 0)
		return target_fd;
	r = sys_move_mount(mount_fd, target_fd);
	if (r < 0 || !(op->flags & OPF_ROOT_ITSELF))
		return r;
	work->root_fd = fcntl(mount_fd, F_DUPFD_CLOEXEC, 3);
	return work->root_fd < 0 ? -errno : place_become_root(work);
}

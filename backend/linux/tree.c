#include "linux/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/parse.h"
#include "linux/btrfs.h"
#include "linux/sys.h"

static void auto_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static DIR *open_dir(int parent_fd, const char *name)
{
	AUTO_FD int fd = sys_open_at(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
		RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (dir)
		(void)TAKE_FD(fd);
	return dir;
}

/* chattr +i or +a, which a privileged container may have set; a read-only subvolume */
static void clear_flags(int fd)
{
	unsigned flags;

	btrfs_make_writable(fd);
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	flags &= ~(unsigned)(FS_IMMUTABLE_FL | FS_APPEND_FL);
	ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static void clear_flags_at(int dir_fd, const char *name)
{
	AUTO_FD int fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);

	clear_flags(dir_fd);
	if (fd >= 0)
		clear_flags(fd);
}

/* 0: gone; 1: a directory that is not empty; or -errno. */
static int unlink_any(int dir_fd, const char *name)
{
	int code = 0;

	for (int tries = 0; tries < 2; tries++) {
		if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
			return 0;
		code = errno;
		if (code == EISDIR || code == EPERM) {
			if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0)
				return 0;
			if (errno == ENOTEMPTY || errno == EEXIST)
				return btrfs_subvolume_destroy(dir_fd, name) == 0 ? 0 : 1;
			code = errno == ENOTDIR ? code : errno;
		}
		clear_flags_at(dir_fd, name);
	}
	return -code;
}

/* Where directories go that are not empty: to the top, or, since no directory leaves its subvolume, to
 * the root of that one. A subvolume may go anywhere. */
struct above {
	int top_fd, root_fd;
	int stop_fd;
};

static int move_up(int dir_fd, const char *name, const struct above *above)
{
	char to[40] = "part-";
	int code = 0;

	if (random_hex(to + 5, 16) < 0)
		return -EIO;
	for (int tries = 0; tries < 2; tries++) {
		if (renameat(dir_fd, name, above->top_fd, to) == 0 ||
			(errno == EXDEV && renameat(dir_fd, name, above->root_fd, to) == 0))
			return 0;
		code = errno;
		clear_flags_at(dir_fd, name);
	}
	return -code;
}

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

static bool is_stopped(int stop_fd)
{
	struct pollfd stop = { .fd = stop_fd, .events = POLLIN };

	return stop_fd >= 0 && poll(&stop, 1, 0) > 0;
}

/* What is in a subvolume stays in it: it is emptied as the top is, one level deeper at most. */
static int empty_one(const struct above *above, const char *name)
{
	DIR *dir AUTO(auto_dir) = open_dir(above->root_fd, name);
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(dir))) {
		int r = is_dot(entry->d_name) ? 0 : unlink_any(dirfd(dir), entry->d_name);

		if (r == 1)
			r = move_up(dirfd(dir), entry->d_name, above);
		if (r == -EXDEV && above->root_fd == above->top_fd)
			r = empty_one(&(struct above){ above->top_fd, dirfd(dir), above->stop_fd },
				entry->d_name);
		if (r < 0)
			ret = r;
		if (is_stopped(above->stop_fd))
			return -ECANCELED;
	}
	if (ret == 0 && unlinkat(above->root_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT &&
		errno != ENOTEMPTY)
		ret = -errno;
	return ret;
}

/* One pass over the top; *ret_left says whether another may help. */
static int pass(int dir_fd, int stop_fd, bool *ret_left)
{
	const struct above above = { dir_fd, dir_fd, stop_fd };
	DIR *dir AUTO(auto_dir) = open_dir(dir_fd, ".");
	struct dirent *entry;
	int ret = 0;

	*ret_left = false;
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		int r = is_dot(entry->d_name) ? 0 : unlink_any(dir_fd, entry->d_name);

		if (r == 1) {
			r = empty_one(&above, entry->d_name);
			*ret_left |= r == 0;
		}
		if (r < 0)
			ret = r;
		if (is_stopped(stop_fd))
			return -ECANCELED;
	}
	return ret;
}

int tree_empty(int dir_fd, int stop_fd)
{
	bool left = true;
	int r = 0;

	while (left && r != -ECANCELED)
		r = pass(dir_fd, stop_fd, &left);
	return r;
}

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
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/parse.h"
#include "linux/btrfs.h"
#include "linux/sys.h"

#define MAX_DEPTH 8 /* open at the same time */

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
static int unlink_any(int dir_fd, const struct dirent *entry)
{
	const char *name = entry->d_name;
	int code = 0;

	for (int tries = 0; tries < 2; tries++) {
		int flags = entry->d_type == DT_DIR ? AT_REMOVEDIR : 0;

		if (unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT)
			return 0;
		code = errno;
		if (!flags && (code == EISDIR || code == EPERM)) { /* not all say what is what */
			if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0)
				return 0;
			code = errno == ENOTDIR ? code : errno;
		}
		if (code == ENOTEMPTY || code == EEXIST)
			return btrfs_subvolume_destroy(dir_fd, name) == 0 ? 0 : 1;
		clear_flags_at(dir_fd, name);
	}
	return -code;
}

/* Where directories go that are not empty and lie too deep: to the top, or, since no directory leaves
 * its subvolume, to the root of that one. A subvolume may go anywhere. */
struct above {
	int top_fd, root_fd;
	int stop_fd;
	dev_t dev; /* of the subvolume */
	unsigned depth; /* below the top */
	bool *has_more; /* something was moved up, or came meanwhile */
};

static int move_up(int dir_fd, const char *name, const struct above *above)
{
	char to[40] = "part-";
	int code = 0;

	if (random_hex(to + 5, 16) < 0)
		return -EIO;
	for (int tries = 0; tries < 2; tries++) {
		if (renameat(dir_fd, name, above->top_fd, to) == 0 ||
			(errno == EXDEV && renameat(dir_fd, name, above->root_fd, to) == 0)) {
			*above->has_more = true;
			return 0;
		}
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

static int empty_below(const struct above *above, int parent_fd, const char *name);

static int empty(DIR *dir, const struct above *above)
{
	struct dirent *entry;
	int ret = 0;

	while ((entry = readdir(dir))) {
		int r = is_dot(entry->d_name) ? 0 : unlink_any(dirfd(dir), entry);

		if (r == 1)
			r = empty_below(above, dirfd(dir), entry->d_name);
		if (r < 0)
			ret = r;
		if (is_stopped(above->stop_fd))
			return -ECANCELED;
	}
	return ret;
}

/* What is moved to the root of a subvolume must find room below it: only from the top is one entered. */
static int empty_below(const struct above *above, int parent_fd, const char *name)
{
	DIR *dir AUTO(auto_dir) = above->depth < MAX_DEPTH ? open_dir(parent_fd, name) : NULL;
	struct above here = *above;
	struct stat st;
	int r;

	if (above->depth == MAX_DEPTH)
		return move_up(parent_fd, name, above);
	if (!dir || fstat(dirfd(dir), &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (st.st_dev != above->dev) {
		if (above->depth > 0)
			return move_up(parent_fd, name, above);
		here.root_fd = dirfd(dir);
		here.dev = st.st_dev;
	}
	here.depth++;
	r = empty(dir, &here);
	if (r < 0 || unlinkat(parent_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return r;
	if (errno != ENOTEMPTY)
		return -errno;
	*above->has_more = true;
	return 0;
}

/* One pass over the top; *ret_more says whether another may help. */
static int pass(int dir_fd, int stop_fd, bool *ret_more)
{
	struct above above = {
		.top_fd = dir_fd, .root_fd = dir_fd, .stop_fd = stop_fd, .has_more = ret_more
	};
	DIR *dir AUTO(auto_dir) = open_dir(dir_fd, ".");
	struct stat st;

	*ret_more = false;
	if (!dir || fstat(dir_fd, &st) < 0)
		return -errno;
	above.dev = st.st_dev;
	return empty(dir, &above);
}

int tree_empty(int dir_fd, int stop_fd)
{
	bool has_more = true;
	int r = 0;

	while (has_more && r != -ECANCELED)
		r = pass(dir_fd, stop_fd, &has_more);
	return r;
}

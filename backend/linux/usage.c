#include "linux/usage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/sys.h"

#define MAX_DEPTH 64

struct count {
	struct usage *usage;
	uint64_t max_names;
	dev_t device;
};

static void auto_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static int add(const struct count *count, const struct stat *st)
{
	uint64_t n_links = S_ISDIR(st->st_mode) || !st->st_nlink ? 1 : st->st_nlink;

	count->usage->n_bytes += (uint64_t)st->st_blocks * 512 / n_links;
	return ++count->usage->n_names > count->max_names ? -E2BIG : 0;
}

/* Another file system is mounted there, one of a user's own perhaps that shows itself to nobody else. */
static bool is_elsewhere(int r)
{
	return r == -EXDEV || r == -EACCES;
}

static bool has_vanished(int r)
{
	return r == -ENOENT || r == -ENOTDIR || r == -ELOOP;
}

static int count_dir(const struct count *count, int parent_fd, const char *name, int depth);

static int count_entry(const struct count *count, int dir_fd, const char *name, int depth)
{
	struct stat st;
	int r;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return has_vanished(-errno) || is_elsewhere(-errno) ? 0 : -errno;
	if (st.st_dev != count->device && !S_ISDIR(st.st_mode))
		return 0;
	if (!S_ISDIR(st.st_mode))
		return add(count, &st);
	if (depth == 1 && count->max_names == UINT64_MAX)
		return add(count, &st);
	r = count_dir(count, dir_fd, name, depth - 1);
	return has_vanished(r) || is_elsewhere(r) ? 0 : r;
}

/* As deep as the tree at most, which is bounded. */
static int count_dir(const struct count *count, int parent_fd, const char *name, int depth)
{
	AUTO_FD int fd = depth ? sys_open_at(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
					 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV)
			       : -E2BIG;
	DIR *dir AUTO(auto_dir) = NULL;
	const struct dirent *entry;
	struct stat st;
	int r;

	if (fd < 0)
		return fd;
	r = fstat(fd, &st) < 0 ? -errno : add(count, &st);
	dir = r == 0 ? fdopendir(fd) : NULL;
	if (!dir)
		return r < 0 ? r : -errno;
	(void)TAKE_FD(fd);
	while (r == 0 && (entry = readdir(dir)))
		r = count_entry(count, dirfd(dir), entry->d_name, depth);
	return r;
}

int usage_count(int dir_fd, uint64_t max_names, struct usage *ret)
{
	struct count count = { .usage = ret, .max_names = max_names };
	struct stat st;

	*ret = (struct usage){ 0 };
	if (fstat(dir_fd, &st) < 0)
		return -errno;
	count.device = st.st_dev;
	return count_dir(&count, dir_fd, ".", MAX_DEPTH);
}

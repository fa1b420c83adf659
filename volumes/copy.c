#include "volumes/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/sys.h"
#include "volumes/links.h"
#include "volumes/place.h"
#include "volumes/say.h"
#include "volumes/walk.h"
#include "volumes/xattrs.h"

#define SPACE_BYTES (256 * 1024)
#define MODE_BITS 07777

struct copy {
	const struct copy_spec *spec;
	struct links links;
	struct place place; /* of names met before */
	bool cannot_share, cannot_copy_range; /* this pair of file systems */
	char space[SPACE_BYTES];
	struct err *err;
};

/* ---- content --------------------------------------------------------------------------------- */

static int copy_by_hand(struct copy *copy, int from_fd, int to_fd, off_t at, off_t end)
{
	while (at < end) {
		size_t wanted = end - at < SPACE_BYTES ? (size_t)(end - at) : SPACE_BYTES;
		ssize_t n = pread(from_fd, copy->space, wanted, at);

		if (n <= 0)
			return n < 0 ? -errno : 0;
		for (ssize_t done = 0, m; done < n; done += m) {
			m = pwrite(to_fd, copy->space + done, n - done, at + done);
			if (m < 0)
				return -errno;
		}
		at += n;
	}
	return 0;
}

/* What has been cut off meanwhile stays a hole. */
static int copy_range(struct copy *copy, int from_fd, int to_fd, off_t at, off_t end)
{
	while (at < end && !copy->cannot_copy_range) {
		off_t to_at = at;
		ssize_t n = TEMP_FAILURE_RETRY(
			copy_file_range(from_fd, &at, to_fd, &to_at, end - at, 0));

		if (n == 0)
			return 0;
		if (n < 0 && errno != EXDEV && errno != EOPNOTSUPP && errno != EINVAL)
			return -errno;
		copy->cannot_copy_range = n < 0;
	}
	return copy_by_hand(copy, from_fd, to_fd, at, end);
}

static int copy_pieces(struct copy *copy, int from_fd, int to_fd, off_t size)
{
	off_t at = 0;

	while (at < size) {
		off_t start = lseek(from_fd, at, SEEK_DATA), end;
		int r;

		if (start < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(from_fd, start, SEEK_HOLE);
		if (end < 0)
			return errno == ENXIO ? 0 : -errno;
		r = copy_range(copy, from_fd, to_fd, start, end < size ? end : size);
		if (r < 0)
			return r;
		at = end;
	}
	return 0;
}

static int copy_content(struct copy *copy, int from_fd, int to_fd, const struct stat *st)
{
	int r;

	if (!st->st_size)
		return 0;
	if (!copy->cannot_share && ioctl(to_fd, FICLONE, from_fd) == 0)
		return 0;
	copy->cannot_share = true;
	if (st->st_blocks * 512 >= st->st_size)
		return copy_range(copy, from_fd, to_fd, 0, st->st_size);
	r = copy_pieces(copy, from_fd, to_fd, st->st_size);
	if (r == 0 && ftruncate(to_fd, st->st_size) < 0)
		r = -errno;
	return r;
}

/* ---- entries --------------------------------------------------------------------------------- */

/* In this order: a new owner takes set-id bits and capabilities away, an ACL sets mode bits. */
static int copy_metadata(struct copy *copy, int from_fd, int to_fd, const struct stat *st)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	int r = fchown(to_fd, st->st_uid, st->st_gid) < 0 ? -errno : 0;

	if (r == 0)
		r = xattrs_copy(from_fd, to_fd, copy->spec->as_layer);
	if (r == 0 && (fchmod(to_fd, st->st_mode & MODE_BITS) < 0 || futimens(to_fd, times) < 0))
		r = -errno;
	return r;
}

/* It has vanished; another name of the same file may still be there. */
static int pass_over(struct copy *copy, const struct walk_item *item)
{
	links_forget(&copy->links, &item->st);
	return 0;
}

static int copy_regular(struct copy *copy, const struct walk_item *item)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	AUTO_FD int own_fd = item->fd < 0 ? sys_open_at(item->dir_fd, item->name, flags, 0, 0) : -1;
	int from_fd = item->fd < 0 ? own_fd : item->fd;
	AUTO_FD int to_fd = -1;
	struct stat st;
	int r;

	if (from_fd == -ENOENT || from_fd == -ELOOP)
		return pass_over(copy, item);
	if (from_fd < 0)
		return from_fd;
	if (fstat(from_fd, &st) < 0)
		return -errno;
	to_fd = sys_open_at(
		item->twin_dir_fd, item->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, 0);
	if (to_fd < 0)
		return to_fd;
	r = copy_content(copy, from_fd, to_fd, &st);
	return r < 0 ? r : copy_metadata(copy, from_fd, to_fd, &st);
}

/* Links, fifos, devices: what cannot be opened. */
static int copy_node(struct copy *copy, const struct walk_item *item)
{
	const struct stat *st = &item->st;
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	int r;

	if (S_ISLNK(st->st_mode)) {
		char target[PATH_MAX];
		ssize_t n = readlinkat(item->dir_fd, item->name, target, sizeof(target) - 1);

		if (n < 0)
			return errno == ENOENT || errno == EINVAL ? pass_over(copy, item) : -errno;
		target[n] = '\0';
		r = symlinkat(target, item->twin_dir_fd, item->name);
	} else {
		r = mknodat(item->twin_dir_fd, item->name, st->st_mode, st->st_rdev);
	}
	if (r < 0)
		return -errno;
	if (fchownat(item->twin_dir_fd, item->name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) <
		0)
		return -errno;
	if (!S_ISLNK(st->st_mode) &&
		fchmodat(item->twin_dir_fd, item->name, st->st_mode & MODE_BITS, 0) < 0)
		return -errno;
	r = copy->spec->as_layer ? xattrs_copy_node(item->dir_fd, item->twin_dir_fd, item->name)
				 : 0;
	if (r == 0 && utimensat(item->twin_dir_fd, item->name, times, AT_SYMLINK_NOFOLLOW) < 0)
		r = -errno;
	return r;
}

/* The file has been copied as `first` already. */
static int copy_link(struct copy *copy, const struct walk_item *item, const char *first)
{
	const char *slash = strrchr(first, '/');
	int dir_fd = place_enter(&copy->place, first, slash ? slash - first : 0, false);

	if (dir_fd < 0)
		return dir_fd;
	return linkat(dir_fd, slash ? slash + 1 : first, item->twin_dir_fd, item->name, 0) < 0
		? -errno
		: 0;
}

/* ---- the walk -------------------------------------------------------------------------------- */

static int blame(struct copy *copy, const struct walk_item *item, int r)
{
	return r < 0 ? err_system(copy->err, r, "copy %.300s", *item->path ? item->path : ".") : 0;
}

static int walk_file(void *context, const struct walk_item *item)
{
	struct copy *copy = context;
	mode_t mode = item->st.st_mode;
	const char *first = NULL;
	int r = 0;

	if ((S_ISCHR(mode) || S_ISBLK(mode) || S_ISSOCK(mode)) && !copy->spec->as_layer)
		return 0;
	if (item->st.st_nlink > 1 && !copy->spec->follow_top)
		r = links_meet(&copy->links, &item->st, item->path, &first);
	if (r == 0 && first)
		r = copy_link(copy, item, first);
	else if (r == 0)
		r = S_ISREG(mode) ? copy_regular(copy, item) : copy_node(copy, item);
	return blame(copy, item, r);
}

static int walk_enter(void *context, const struct walk_item *item)
{
	bool is_top = !item->path_bytes;
	int r = is_top || mkdirat(item->twin_dir_fd, item->name, 0700) == 0 ? 0 : -errno;

	return blame(context, item, r);
}

static int walk_leave(void *context, const struct walk_item *item)
{
	struct copy *copy = context;

	return blame(copy, item, copy_metadata(copy, item->fd, item->twin_fd, &item->st));
}

static void walk_lost(const char *path)
{
	say(2, "%.300s: a link that leads nowhere, left out\n", path);
}

int copy(const struct copy_spec *spec, struct err *err)
{
	struct copy copy = { .spec = spec, .err = err };
	struct walk walk = { .enter = walk_enter,
		.leave = walk_leave,
		.file = walk_file,
		.context = &copy,
		.follow_top = spec->follow_top,
		.follow_fd = spec->follow_fd,
		.lost = walk_lost };
	int r = place_init(&copy.place, spec->to_fd, "");

	links_init(&copy.links);
	if (r == 0)
		r = walk_tree(&walk, spec->from_fd, spec->to_fd);
	links_done(&copy.links);
	place_done(&copy.place);
	return r < 0 && !err->code ? err_system(err, r, "copy") : r;
}

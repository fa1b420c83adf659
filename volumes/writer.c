#include "volumes/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/sys.h"
#include "linux/tree.h"
#include "volumes/xattrs.h"

#define MODE_BITS 07777

int writer_init(struct writer *writer, int root_fd, const char *base)
{
	int r = place_init(&writer->place, root_fd, base);
	int r2 = place_init(&writer->targets, root_fd, base);

	dirtimes_init(&writer->dirtimes);
	return r < 0 ? r : r2;
}

void writer_done(struct writer *writer)
{
	place_done(&writer->place);
	place_done(&writer->targets);
	dirtimes_done(&writer->dirtimes);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* The parent's descriptor, and the last component of path, which is not "". */
static int enter_parent(struct place *place, const char *path, size_t n_bytes, bool make_missing,
	const char **ret_name)
{
	const char *slash = memrchr(path, '/', n_bytes);

	*ret_name = slash ? slash + 1 : path;
	if (strlen(*ret_name) > NAME_MAX)
		return -ENAMETOOLONG;
	return place_enter(place, path, slash ? slash - path : 0, make_missing);
}

static int empty_dir(int dir_fd, const char *name)
{
	AUTO_FD int fd = sys_open_at(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0);

	return fd < 0 ? fd : tree_empty(fd, -1);
}

static int remove_what_is_there(struct writer *writer, int dir_fd, const char *name)
{
	int r = 0;

	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	/* The way to a link's target may lead over it. */
	place_reset(&writer->targets);
	if (writer->is_layer)
		r = empty_dir(dir_fd, name);
	return r < 0 ? r : unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* ---- what an entry has beside its content ---------------------------------------------------- */

static int set_xattr(int fd, const struct writer_xattr *xattr)
{
	if (fsetxattr(fd, xattr->name, xattr->value, xattr->n_bytes, 0) == 0 || errno == ENOTSUP)
		return 0;
	return -errno;
}

static int set_xattrs(const struct writer_entry *entry, int fd)
{
	int r = 0;

	for (size_t i = 0; i < entry->n_xattrs && r == 0; i++)
		if (!S_ISDIR(entry->mode) || strcmp(entry->xattrs[i].name, XATTR_DEFAULT_ACL))
			r = set_xattr(fd, &entry->xattrs[i]);
	return r;
}

/* In this order: a new owner takes set-id bits and capabilities away, an ACL sets mode bits. */
static int set_owner_and_mode(const struct writer_entry *entry, int fd)
{
	int r = fchown(fd, entry->uid, entry->gid) < 0 ? -errno : 0;

	if (r == 0)
		r = set_xattrs(entry, fd);
	if (r == 0 && fchmod(fd, entry->mode & MODE_BITS) < 0)
		r = -errno;
	return r;
}

/* A new owner has taken set-id bits away from a fifo too. */
static int set_owner_and_times_of_node(
	const struct writer_entry *entry, int dir_fd, const char *name)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry->mtime };

	if (fchownat(dir_fd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
		(!S_ISLNK(entry->mode) && fchmodat(dir_fd, name, entry->mode & MODE_BITS, 0) < 0) ||
		utimensat(dir_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int set_times_later(struct writer *writer, const struct writer_entry *entry, int fd)
{
	struct dirtime time = {
		.mtime = entry->mtime, .has_mode = writer->is_user, .mode = entry->mode & MODE_BITS
	};
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	time.ino = st.st_ino;
	for (size_t i = 0; i < entry->n_xattrs; i++)
		if (!strcmp(entry->xattrs[i].name, XATTR_DEFAULT_ACL)) {
			time.acl = entry->xattrs[i].value;
			time.acl_bytes = entry->xattrs[i].n_bytes;
		}
	r = dirtimes_add(&writer->dirtimes, entry->path, entry->path_bytes, &time);
	if (r != -E2BIG)
		return r;
	r = dirtimes_apply(&writer->dirtimes, &writer->place);
	return r < 0 ? r : dirtimes_add(&writer->dirtimes, entry->path, entry->path_bytes, &time);
}

/* ---- entries --------------------------------------------------------------------------------- */

static int open_made_dir(struct writer *writer, int dir_fd, const char *name, bool *ret_is_new)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
	int r = mkdirat(dir_fd, name, 0700) < 0 ? -errno : 0;

	*ret_is_new = r == 0;
	if (r == -EEXIST) {
		int fd = sys_open_at(dir_fd, name, flags, 0, 0);

		if (fd != -ENOTDIR && fd != -ELOOP)
			return fd;
		r = remove_what_is_there(writer, dir_fd, name);
		if (r == 0)
			r = mkdirat(dir_fd, name, 0700) < 0 ? -errno : 0;
		*ret_is_new = r == 0;
	}
	return r < 0 ? r : sys_open_at(dir_fd, name, flags, 0, 0);
}

static int finish_users_dir(
	struct writer *writer, const struct writer_entry *entry, int fd, bool is_new)
{
	struct stat st;
	int r = fstat(fd, &st) < 0 ? -errno : 0;

	if (r == 0 && !is_new && st.st_uid != entry->uid)
		return 0;
	if (r == 0 && is_new && fchown(fd, entry->uid, entry->gid) < 0)
		r = -errno;
	if (r == 0)
		r = set_xattrs(entry, fd);
	return r < 0 ? r : set_times_later(writer, entry, fd);
}

static int make_dir(struct writer *writer, const struct writer_entry *entry)
{
	bool is_new = writer->base_is_new;
	AUTO_FD int fd = -1;
	const char *name;
	int r;

	if (!entry->path_bytes && writer->is_user && !is_new)
		return 0;
	if (!entry->path_bytes) {
		r = fd = sys_open_at(writer->place.base_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
	} else {
		r = enter_parent(&writer->place, entry->path, entry->path_bytes, true, &name);
		if (r >= 0)
			r = fd = open_made_dir(writer, r, name, &is_new);
	}
	if (r >= 0 && writer->is_user)
		return finish_users_dir(writer, entry, fd, is_new);
	if (r >= 0)
		r = set_owner_and_mode(entry, fd);
	return r < 0 ? r : set_times_later(writer, entry, fd);
}

/* A new name that is no directory; in a second try what had it is gone. */
static int make_name(int dir_fd, const char *name, const struct writer_entry *entry)
{
	int r;

	if (S_ISLNK(entry->mode))
		r = symlinkat(entry->target, dir_fd, name);
	else
		r = mkfifoat(dir_fd, name, entry->mode & MODE_BITS);
	return r < 0 ? -errno : 0;
}

int writer_make(struct writer *writer, const struct writer_entry *entry)
{
	const char *name;
	int dir_fd, r;

	if (S_ISDIR(entry->mode))
		return make_dir(writer, entry);
	dir_fd = enter_parent(&writer->place, entry->path, entry->path_bytes, true, &name);
	if (dir_fd < 0)
		return dir_fd;
	r = make_name(dir_fd, name, entry);
	if (r == -EEXIST) {
		r = remove_what_is_there(writer, dir_fd, name);
		if (r == 0)
			r = make_name(dir_fd, name, entry);
	}
	return r < 0 ? r : set_owner_and_times_of_node(entry, dir_fd, name);
}

static bool is_dir(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static bool is_same_file(int one_fd, const char *one, int other_fd, const char *other)
{
	struct stat a, b;

	return fstatat(one_fd, one, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
		fstatat(other_fd, other, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
		a.st_ino == b.st_ino;
}

int writer_link(struct writer *writer, const struct writer_entry *entry)
{
	const char *name, *target;
	int target_fd =
		enter_parent(&writer->targets, entry->target, entry->target_bytes, false, &target);
	int dir_fd, r;

	if (target_fd < 0)
		return target_fd;
	dir_fd = enter_parent(&writer->place, entry->path, entry->path_bytes, true, &name);
	if (dir_fd < 0)
		return dir_fd;
	if (is_dir(target_fd, target))
		return -EISDIR;
	r = linkat(target_fd, target, dir_fd, name, 0) < 0 ? -errno : 0;
	if (r != -EEXIST || is_same_file(target_fd, target, dir_fd, name))
		return r == -EEXIST ? 0 : r;
	/* The target's own directory cannot be what goes: it is not empty. */
	if (unlinkat(dir_fd, name, 0) < 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) < 0)
		return -errno;
	return linkat(target_fd, target, dir_fd, name, 0) < 0 ? -errno : 0;
}

int writer_begin_file(struct writer *writer, const struct writer_entry *entry)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
	const char *name;
	int dir_fd = enter_parent(&writer->place, entry->path, entry->path_bytes, true, &name);
	int fd = dir_fd;

	if (dir_fd >= 0)
		fd = sys_open_at(dir_fd, name, flags, 0600, 0);
	if (fd == -EEXIST) {
		fd = remove_what_is_there(writer, dir_fd, name);
		if (fd == 0)
			fd = sys_open_at(dir_fd, name, flags, 0600, 0);
	}
	return fd;
}

int writer_end_file(const struct writer_entry *entry, int fd)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry->mtime };
	int r = set_owner_and_mode(entry, fd);

	if (r == 0 && futimens(fd, times) < 0)
		r = -errno;
	return r;
}

int writer_take_away(struct writer *writer, const char *path, size_t n_bytes, bool only_content)
{
	const char *name = ".";
	int dir_fd = n_bytes ? enter_parent(&writer->place, path, n_bytes, false, &name)
			     : writer->place.base_fd;
	int r = dir_fd;

	if (r >= 0)
		r = only_content ? empty_dir(dir_fd, name)
				 : remove_what_is_there(writer, dir_fd, name);
	place_reset(&writer->place);
	return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

int writer_finish(struct writer *writer)
{
	return dirtimes_apply(&writer->dirtimes, &writer->place);
}

#include "volumes/member.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"
#include "volumes/xattrs.h"

/* The library takes no longer names. */
#define PATH_CAP_BYTES (2 * 1024 * 1024)
#define N_XATTRS_MAX 1000

void member_done(struct member *member)
{
	buf_done(&member->path);
	buf_done(&member->target);
	free(member->xattrs);
	*member = (struct member){ 0 };
}

/* "/a//./b/" becomes "a/b", "./" becomes "". */
static int clean_path(struct buf *clean, const char *path, struct err *err)
{
	buf_clear(clean);
	clean->cap_bytes = PATH_CAP_BYTES;
	for (const char *at = path; at && *at;) {
		size_t n = strcspn(at, "/");

		if (n == 2 && at[0] == '.' && at[1] == '.')
			return err_set(err, ERR_BAD_REQUEST, EINVAL,
				"%.200s: \"..\" is not allowed in names", path);
		if (n && !(n == 1 && at[0] == '.')) {
			if (clean->len)
				buf_add(clean, "/", 1);
			buf_add(clean, at, n);
		}
		at += n + (at[n] == '/');
	}
	buf_add(clean, "", 0);
	return buf_failed(clean) ? err_set(err, ERR_BAD_REQUEST, ENAMETOOLONG, "name too long") : 0;
}

static int read_xattrs(struct member *member, struct archive_entry *header)
{
	size_t n = 0;
	const char *name;
	const void *value;
	size_t n_bytes;

	archive_entry_xattr_reset(header);
	while (archive_entry_xattr_next(header, &name, &value, &n_bytes) == ARCHIVE_OK) {
		if (!name || !xattr_is_kept(name))
			continue;
		if (n == N_XATTRS_MAX)
			return -E2BIG;
		if (n == member->n_space) {
			void *space = reallocarray(
				member->xattrs, member->n_space + 8, sizeof(*member->xattrs));

			if (!space)
				return -ENOMEM;
			member->xattrs = space;
			member->n_space += 8;
		}
		member->xattrs[n++] = (struct writer_xattr){ name, value, n_bytes };
	}
	member->entry.xattrs = member->xattrs;
	member->entry.n_xattrs = n;
	return 0;
}

static int read_names(struct member *member, struct archive_entry *header, struct err *err)
{
	const char *path = archive_entry_pathname(header);
	const char *hard_link = archive_entry_hardlink(header);
	struct writer_entry *entry = &member->entry;
	int r;

	if (!path || !*path)
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "an entry without a name");
	r = clean_path(&member->path, path, err);
	if (r == 0 && hard_link)
		r = clean_path(&member->target, hard_link, err);
	if (r < 0)
		return r;
	member->is_hard_link = hard_link != NULL;
	entry->path = buf_str(&member->path);
	entry->path_bytes = member->path.len;
	entry->target = hard_link ? buf_str(&member->target) : archive_entry_symlink(header);
	entry->target_bytes = entry->target ? strlen(entry->target) : 0;
	if (!entry->path_bytes && (hard_link || archive_entry_filetype(header) != AE_IFDIR))
		return err_set(
			err, ERR_BAD_REQUEST, EINVAL, "%.200s: the root is a directory", path);
	if ((hard_link || archive_entry_filetype(header) == AE_IFLNK) && !entry->target_bytes)
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "%.200s: a link to nothing", path);
	return 0;
}

/* chown(2) takes the highest number for "as it was". */
static bool is_id(int64_t id)
{
	return id >= 0 && id < UINT32_MAX;
}

/* The library takes the sign of "-1.5" for that of the seconds alone. */
static struct timespec time_of(struct archive_entry *header)
{
	struct timespec time = { archive_entry_mtime(header), archive_entry_mtime_nsec(header) };

	if (time.tv_sec < 0 && time.tv_nsec) {
		time.tv_sec--;
		time.tv_nsec = 1000000000 - time.tv_nsec;
	}
	return time;
}

int member_read(struct member *member, struct archive_entry *header, struct err *err)
{
	struct writer_entry *entry = &member->entry;
	mode_t type = archive_entry_filetype(header);
	int64_t uid = archive_entry_uid(header), gid = archive_entry_gid(header);
	int r;

	*entry = (struct writer_entry){ .mode = type | (archive_entry_perm(header) & 07777),
		.mtime.tv_nsec = UTIME_OMIT };
	r = read_names(member, header, err);
	if (r < 0)
		return r;
	member->is_device = !member->is_hard_link && (type == AE_IFCHR || type == AE_IFBLK);
	member->size = archive_entry_size(header);
	member->has_holes = archive_entry_sparse_count(header) > 0;
	if (!member->is_hard_link && !member->is_device && type != AE_IFREG && type != AE_IFDIR &&
		type != AE_IFLNK && type != AE_IFIFO)
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "%.200s: unknown type", entry->path);
	if (!is_id(uid) || !is_id(gid))
		return err_set(err, ERR_BAD_REQUEST, EINVAL,
			"%.200s: owner %lld:%lld is no number for one", entry->path, (long long)uid,
			(long long)gid);
	if (member->size < 0)
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "%.200s: negative size", entry->path);
	entry->uid = (uid_t)uid;
	entry->gid = (gid_t)gid;
	if (archive_entry_mtime_is_set(header))
		entry->mtime = time_of(header);
	r = read_xattrs(member, header);
	return r < 0 ? err_system(err, r, "%.200s", entry->path) : 0;
}

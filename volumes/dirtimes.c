#include "volumes/dirtimes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/auto.h"
#include "linux/sys.h"
#include "volumes/place.h"
#include "volumes/xattrs.h"

/* A third of a million directories. */
#define CAP_BYTES (32 * 1024 * 1024)
#define PATH_CAP_BYTES (16 * 1024 * 1024)

struct record {
	size_t n_shared, n_own, acl_bytes;
	ino_t ino;
	struct timespec mtime;
	bool has_mode;
	mode_t mode;
};

void dirtimes_init(struct dirtimes *list)
{
	buf_init(&list->records, CAP_BYTES);
	buf_init(&list->last_path, PATH_CAP_BYTES);
}

void dirtimes_done(struct dirtimes *list)
{
	buf_done(&list->records);
	buf_done(&list->last_path);
}

static int replace_path(struct buf *path, size_t n_shared, const char *own, size_t n_own)
{
	path->len = n_shared;
	return buf_add(path, own, n_own);
}

int dirtimes_add(
	struct dirtimes *list, const char *path, size_t n_bytes, const struct dirtime *time)
{
	struct buf *last = &list->last_path;
	struct record record = { .acl_bytes = time->acl_bytes,
		.ino = time->ino,
		.mtime = time->mtime,
		.has_mode = time->has_mode,
		.mode = time->mode };
	size_t n = 0;

	while (n < n_bytes && n < last->len && path[n] == last->data[n])
		n++;
	record.n_shared = n;
	record.n_own = n_bytes - n;
	if (list->records.len + sizeof(record) + record.n_own + record.acl_bytes > CAP_BYTES)
		return -E2BIG;
	if (buf_add(&list->records, &record, sizeof(record)) < 0 ||
		buf_add(&list->records, path + n, record.n_own) < 0 ||
		buf_add(&list->records, time->acl, record.acl_bytes) < 0 ||
		replace_path(last, n, path + n, record.n_own) < 0)
		return -ENOMEM;
	return 0;
}

static int apply_one(int dir_fd, const struct record *record, const void *acl)
{
	AUTO_FD int fd = sys_open_at(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, record->mtime };
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_ino != record->ino)
		return 0;
	if (record->acl_bytes && fsetxattr(fd, XATTR_DEFAULT_ACL, acl, record->acl_bytes, 0) < 0 &&
		errno != ENOTSUP)
		return -errno;
	if (futimens(fd, times) < 0)
		return -errno;
	return record->has_mode && fchmod(fd, record->mode) < 0 ? -errno : 0;
}

int dirtimes_apply(struct dirtimes *list, struct place *place)
{
	struct buf *path = &list->last_path;
	int first = 0;

	buf_clear(path);
	for (size_t at = 0; at < list->records.len;) {
		struct record record;
		const char *own = list->records.data + at + sizeof(record);
		int r;

		memcpy(&record, list->records.data + at, sizeof(record));
		at += sizeof(record) + record.n_own + record.acl_bytes;
		r = replace_path(path, record.n_shared, own, record.n_own);
		if (r == 0)
			r = place_enter(place, buf_str(path), path->len, false);
		if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
			continue; /* something else has its name */
		if (r >= 0)
			r = apply_one(r, &record, own + record.n_own);
		if (r < 0 && first == 0)
			first = r;
	}
	buf_clear(&list->records);
	buf_clear(path);
	return first;
}

#include "volumes/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <linux/limits.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "linux/sys.h"
#include "volumes/links.h"
#include "volumes/sparse.h"
#include "volumes/tar_head.h"
#include "volumes/walk.h"
#include "volumes/xattrs.h"

#define SPACE_BYTES (1024 * 1024)
#define SPLICE_LEAST_BYTES (64 * 1024) /* less is gathered: a pipe holds few pieces */
#define HEAD_CAP_BYTES (64 * 1024 * 1024)

struct pack {
	struct encoder *encoder;
	char *space; /* what the encoder gets next */
	size_t used;
	int splice_fd; /* of a raw stream, if it is a pipe; else -1 */
	uint64_t n_bytes; /* all in all */
	struct links links;
	struct buf head, records, path;
	struct sparse_map map;
	const char *name;
	char target[PATH_MAX];
	struct err *err;
};

/* ---- writing --------------------------------------------------------------------------------- */

static int flush(struct pack *pack)
{
	int r = pack->used ? encoder_write(pack->encoder, pack->space, pack->used) : 0;

	pack->used = 0;
	return r < 0 ? err_system(pack->err, r, "write the stream") : 0;
}

static int put(struct pack *pack, const void *data, size_t n_bytes)
{
	const char *from = data;

	pack->n_bytes += n_bytes;
	while (n_bytes) {
		size_t n = SPACE_BYTES - pack->used;
		int r;

		n = n < n_bytes ? n : n_bytes;
		memcpy(pack->space + pack->used, from, n);
		pack->used += n;
		from += n;
		n_bytes -= n;
		r = pack->used == SPACE_BYTES ? flush(pack) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int put_zeros(struct pack *pack, uint64_t n_bytes)
{
	static const char zeros[4096];

	while (n_bytes) {
		size_t n = n_bytes < sizeof(zeros) ? n_bytes : sizeof(zeros);
		int r = put(pack, zeros, n);

		if (r < 0)
			return r;
		n_bytes -= n;
	}
	return 0;
}

/* The pages of a file go into the pipe as they are, without a copy. What could not be moved so is
 * left in *offset and *n_bytes. */
static int splice_content(struct pack *pack, int fd, uint64_t *offset, uint64_t *n_bytes)
{
	loff_t at = *offset;
	int r = flush(pack);

	while (r == 0 && *n_bytes) {
		size_t most = *n_bytes < SPACE_BYTES ? *n_bytes : SPACE_BYTES;
		ssize_t n = splice(fd, &at, pack->splice_fd, NULL, most, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EPIPE)
			return err_system(pack->err, -EPIPE, "write the stream");
		if (n < 0)
			pack->splice_fd = -1; /* no pipe, or reading tells what is wrong */
		if (n <= 0)
			break;
		*offset = at;
		*n_bytes -= n;
		pack->n_bytes += n;
	}
	return r;
}

/* Exactly n_bytes, whatever the file has by now. */
static int put_content(
	struct pack *pack, int fd, uint64_t offset, uint64_t n_bytes, const char *path)
{
	if (pack->splice_fd >= 0 && n_bytes >= SPLICE_LEAST_BYTES) {
		int r = splice_content(pack, fd, &offset, &n_bytes);

		if (r < 0)
			return r;
	}
	while (n_bytes) {
		size_t room = SPACE_BYTES - pack->used;
		ssize_t n = pread(
			fd, pack->space + pack->used, room < n_bytes ? room : n_bytes, offset);
		int r;

		if (n < 0)
			return err_system(pack->err, -errno, "read %.200s", path);
		if (n == 0)
			return put_zeros(pack, n_bytes);
		pack->used += n;
		pack->n_bytes += n;
		offset += n;
		n_bytes -= n;
		r = pack->used == SPACE_BYTES ? flush(pack) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- headers --------------------------------------------------------------------------------- */

static int add_xattr(struct pack *pack, int fd, const char *name)
{
	char key[XATTR_NAME_MAX + sizeof("SCHILY.xattr.")], value[XATTR_SIZE_MAX];
	ssize_t n = fgetxattr(fd, name, value, sizeof(value));

	if (n < 0)
		return errno == ENODATA ? 0 : -errno;
	snprintf(key, sizeof(key), "SCHILY.xattr.%s", name);
	n = tar_record_add(&pack->records, key, value, n);
	return n == -EINVAL ? 0 : (int)n; /* there is no way to write such a name */
}

/* The attributes of what fd is open on become records. */
static int add_xattrs(struct pack *pack, int fd, const char *path)
{
	char names[XATTR_LIST_MAX];
	ssize_t n = flistxattr(fd, names, sizeof(names));
	int r = n < 0 && errno != ENOTSUP ? -errno : 0;

	for (ssize_t at = 0; at < n && r == 0; at += strlen(names + at) + 1)
		if (xattr_is_kept(names + at))
			r = add_xattr(pack, fd, names + at);
	return r < 0 ? err_system(pack->err, r, "attributes of %.200s", path) : 0;
}

static struct tar_head head_of(const struct walk_item *item, enum tar_type type)
{
	return (struct tar_head){ .type = type,
		.path = item->path,
		.target = "",
		.mode = item->st.st_mode,
		.uid = item->st.st_uid,
		.gid = item->st.st_gid,
		.mtime = item->st.st_mtim };
}

static int put_head(struct pack *pack, struct tar_head *head)
{
	int r;

	buf_clear(&pack->head);
	head->records = &pack->records;
	r = tar_head_add(&pack->head, head);
	if (r < 0)
		return err_system(pack->err, r, "header of %.200s", head->path);
	return put(pack, pack->head.data, pack->head.len);
}

/* ---- files ----------------------------------------------------------------------------------- */

static int put_sparse(struct pack *pack, struct tar_head *head, int fd, uint64_t size)
{
	const struct sparse_map *map = &pack->map;
	int r;

	head->sparse_size = size;
	head->size = map->text.len + map->data_bytes;
	r = put_head(pack, head);
	if (r == 0)
		r = put(pack, map->text.data, map->text.len);
	for (size_t i = 0; i < map->n_pieces && r == 0; i++)
		r = put_content(
			pack, fd, map->pieces[i].offset, map->pieces[i].n_bytes, head->path);
	return r < 0 ? r : put_zeros(pack, tar_padding(map->data_bytes));
}

/* The size in the header is a promise, so it is taken from the open file. */
static int put_regular(struct pack *pack, const struct walk_item *item, int fd)
{
	struct tar_head head = head_of(item, TAR_FILE);
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_system(pack->err, -errno, "%.200s", item->path);
	if (!S_ISREG(st.st_mode))
		return 0;
	r = add_xattrs(pack, fd, item->path);
	if (r < 0)
		return r;
	if (st.st_blocks * 512 < st.st_size) {
		r = sparse_map_read(&pack->map, fd, st.st_size);
		if (r < 0)
			return err_system(pack->err, r, "holes of %.200s", item->path);
		if (pack->map.has_holes)
			return put_sparse(pack, &head, fd, st.st_size);
	}
	head.size = st.st_size;
	r = put_head(pack, &head);
	if (r == 0)
		r = put_content(pack, fd, 0, st.st_size, item->path);
	return r < 0 ? r : put_zeros(pack, tar_padding(st.st_size));
}

/* It has vanished; another name of the same file may still be there. */
static int pass_over(struct pack *pack, const struct walk_item *item)
{
	links_forget(&pack->links, &item->st);
	return 0;
}

static int open_and_put(struct pack *pack, const struct walk_item *item)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	AUTO_FD int fd = sys_open_at(item->dir_fd, item->name, flags, 0, 0);

	if (fd == -ENOENT || fd == -ELOOP)
		return pass_over(pack, item);
	return fd < 0 ? err_system(pack->err, fd, "open %.200s", item->path)
		      : put_regular(pack, item, fd);
}

static int put_symlink(struct pack *pack, const struct walk_item *item)
{
	struct tar_head head = head_of(item, TAR_SYMLINK);
	ssize_t n = readlinkat(item->dir_fd, item->name, pack->target, sizeof(pack->target) - 1);

	if (n < 0)
		return errno == ENOENT || errno == EINVAL
			? pass_over(pack, item)
			: err_system(pack->err, -errno, "link %.200s", item->path);
	pack->target[n] = '\0';
	head.target = pack->target;
	return put_head(pack, &head);
}

static int put_node(struct pack *pack, const struct walk_item *item)
{
	mode_t mode = item->st.st_mode;
	struct tar_head head = head_of(item,
		S_ISFIFO(mode)          ? TAR_FIFO
			: S_ISCHR(mode) ? TAR_CHAR
					: TAR_BLOCK);

	head.device = item->st.st_rdev;
	return put_head(pack, &head);
}

/* The item's path is the name in the archive. */
static int put_file(struct pack *pack, const struct walk_item *item)
{
	mode_t mode = item->st.st_mode;
	const char *first = NULL;
	int r = 0;

	if (S_ISSOCK(mode) || (S_ISCHR(mode) && item->st.st_rdev == 0))
		return 0;
	if (item->st.st_nlink > 1)
		r = links_meet(&pack->links, &item->st, item->path, &first);
	if (r < 0)
		return err_system(pack->err, r, "%.200s", item->path);
	if (first) {
		struct tar_head head = head_of(item, TAR_HARD_LINK);

		head.target = first;
		return put_head(pack, &head);
	}
	if (S_ISREG(mode))
		return open_and_put(pack, item);
	return S_ISLNK(mode) ? put_symlink(pack, item) : put_node(pack, item);
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* "a/b" becomes "./a/b" or "name/a/b", with '/' behind for a directory. */
static int name_item(struct pack *pack, struct walk_item *item, bool is_dir)
{
	struct buf *path = &pack->path;
	int r;

	buf_clear(path);
	buf_clear(&pack->records);
	buf_addf(path, "%s/", pack->name ? pack->name : ".");
	buf_add(path, item->path, item->path_bytes);
	if (is_dir && item->path_bytes)
		buf_adds(path, "/");
	r = buf_failed(path);
	item->path = buf_str(path);
	item->path_bytes = path->len;
	return r < 0 ? err_system(pack->err, r, "name") : 0;
}

static int walk_enter(void *context, const struct walk_item *item)
{
	struct pack *pack = context;
	struct walk_item named = *item;
	struct tar_head head;
	int r = name_item(pack, &named, true);

	if (r == 0)
		r = add_xattrs(pack, item->fd, named.path);
	if (r < 0)
		return r;
	head = head_of(&named, TAR_DIR);
	return put_head(pack, &head);
}

static int walk_file(void *context, const struct walk_item *item)
{
	struct pack *pack = context;
	struct walk_item named = *item;
	int r = name_item(pack, &named, false);

	return r < 0 ? r : put_file(pack, &named);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int put_tree(struct pack *pack, int dir_fd)
{
	struct walk walk = { .enter = walk_enter, .file = walk_file, .context = pack };
	int r = walk_tree(&walk, dir_fd, -1);

	return r < 0 && !pack->err->code ? err_system(pack->err, r, "walk the tree") : r;
}

/* One file, under the name that was asked for: a link's too, with what is behind it. */
static int put_single(struct pack *pack, int fd, const struct stat *st, const char *name)
{
	struct walk_item item = { .path = name, .path_bytes = strlen(name), .st = *st };

	item.st.st_nlink = 1;
	if (S_ISLNK(st->st_mode)) { /* which fd is open on */
		item.dir_fd = fd;
		item.name = "";
		return put_symlink(pack, &item);
	}
	if (S_ISSOCK(st->st_mode))
		return err_set(pack->err, ERR_SYSTEM, ENXIO, "%.200s is a socket", name);
	return S_ISREG(st->st_mode) ? put_regular(pack, &item, fd) : put_node(pack, &item);
}

static int put_end(struct pack *pack)
{
	int r = put_zeros(pack, 2 * TAR_BLOCK_BYTES);

	if (r == 0)
		r = put_zeros(pack, TAR_RECORD_BYTES - 1 - (pack->n_bytes - 1) % TAR_RECORD_BYTES);
	if (r == 0)
		r = flush(pack);
	if (r < 0)
		return r;
	r = encoder_end(pack->encoder);
	return r < 0 ? err_system(pack->err, r, "write the stream") : 0;
}

/* What path leads to, and its stat. The descriptor is no use but for the two that have content. */
static int open_target(const struct pack_spec *spec, const char *path, struct stat *st)
{
	int flags = O_PATH | (spec->name ? O_NOFOLLOW : 0);
	AUTO_FD int fd = sys_open_in_root(spec->root_fd, path, flags, 0);

	if (fd < 0)
		return fd;
	if (fstat(fd, st) < 0)
		return -errno;
	if (!S_ISDIR(st->st_mode) && !S_ISREG(st->st_mode))
		return TAKE_FD(fd);
	return sys_open_in_root(spec->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
}

static void pack_done(struct pack *pack)
{
	encoder_close(pack->encoder);
	links_done(&pack->links);
	sparse_map_done(&pack->map);
	buf_done(&pack->head);
	buf_done(&pack->records);
	buf_done(&pack->path);
	free(pack->space);
}

static int open_pack(struct pack *pack, const struct pack_spec *spec)
{
	links_init(&pack->links);
	sparse_map_init(&pack->map);
	buf_init(&pack->head, HEAD_CAP_BYTES);
	buf_init(&pack->records, HEAD_CAP_BYTES);
	buf_init(&pack->path, HEAD_CAP_BYTES);
	pack->splice_fd = spec->codec == CODEC_RAW ? spec->archive_fd : -1;
	pack->space = malloc(SPACE_BYTES);
	if (!pack->space)
		return -ENOMEM;
	return encoder_open(spec->codec, spec->archive_fd, spec->n_threads, &pack->encoder);
}

/* "/a/b//" becomes "/a/b", "" becomes ".": a name in front of nothing but '/' may be a file's. */
static char *trim(const char *path)
{
	size_t n = strlen(path);

	while (n && path[n - 1] == '/')
		n--;
	return n ? strndup(path, n) : strdup(".");
}

int pack(const struct pack_spec *spec, struct err *err)
{
	AUTO(pack_done) struct pack pack = { .err = err, .name = spec->name };
	AUTO_FREE char *path = trim(spec->path);
	AUTO_FD int fd = -1;
	const char *slash;
	struct stat st;
	int r = path ? open_target(spec, path, &st) : -ENOMEM;

	if (r == -ENOENT || r == -ENOTDIR)
		return err_set(
			err, ERR_NOT_FOUND, -r, "%.300s: no such file or directory", spec->path);
	fd = r;
	if (r >= 0)
		r = open_pack(&pack, spec);
	if (r < 0)
		return err_system(err, r, "%.300s", spec->path);
	slash = strrchr(path, '/');
	r = S_ISDIR(st.st_mode) ? put_tree(&pack, fd)
				: put_single(&pack, fd, &st,
					  spec->name      ? spec->name
						  : slash ? slash + 1
							  : path);
	return r < 0 ? r : put_end(&pack);
}

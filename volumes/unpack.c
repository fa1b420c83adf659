#include "volumes/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/sys.h"
#include "volumes/codec.h"
#include "volumes/member.h"
#include "volumes/writer.h"

#define BLOCK_BYTES 512
#define RECORD_BYTES 10240
#define MOVE_LEAST_BYTES (256 * 1024)

struct source {
	enum unpack_layer layer;
	const struct unpack_owner *owner;
	struct decoder *decoder;
	struct archive *archive;
	int64_t n_bytes; /* that have come */
	const char *block_end; /* of what the library got last */
	int64_t n_moved; /* content that went past the library, which does not know it yet */
	bool has_entry; /* is to be skipped: the library insists on knowing */
	ssize_t failed; /* what decoder_next said */
};

/* ---- reading --------------------------------------------------------------------------------- */

static la_ssize_t read_more(struct archive *archive, void *data, const void **ret_block)
{
	struct source *source = data;
	ssize_t n = decoder_next(source->decoder, ret_block);

	(void)archive;
	if (n >= 0) {
		source->n_bytes += n;
		source->block_end = (const char *)*ret_block + n;
		return n;
	}
	source->failed = n;
	return -1;
}

/* Asks how much of an entry's rest and padding can be left out without reading it: what has been moved,
 * which is all of that rest, or the header does not say how much there is. */
static la_int64_t skip_moved(struct archive *archive, void *data, la_int64_t n_asked)
{
	struct source *source = data;
	int64_t n = source->n_moved;

	(void)archive;
	if (n_asked < n || n_asked - n >= BLOCK_BYTES)
		return 0;
	source->n_moved = 0;
	return n;
}

/* Why the library or the stream under it has stopped. */
static int bad_archive(const struct source *source, struct err *err)
{
	const char *text = archive_error_string(source->archive);

	if (source->failed == -EBADMSG) {
		text = decoder_error(source->decoder);
		return err_set(err, ERR_BAD_REQUEST, EBADMSG, "the stream is damaged: %s", text);
	}
	if (source->failed < 0)
		return err_system(err, (int)source->failed, "read the stream");
	return err_set(err, ERR_BAD_REQUEST, EBADMSG,
		"This does not look like a tar archive, or it is damaged: %s",
		text ? text : "it ends too early");
}

static int open_source(struct source *source, const struct unpack_spec *spec, struct err *err)
{
	int r = decoder_open(spec->codec, spec->archive_fd, &source->decoder);

	source->owner = spec->owner;
	source->layer = spec->layer;
	if (r < 0)
		return err_system(err, r, "decoder");
	source->archive = archive_read_new();
	if (!source->archive)
		return err_system(err, -ENOMEM, "unpack");
	archive_read_support_format_tar(source->archive);
	archive_read_support_format_gnutar(source->archive);
	if (archive_read_open2(source->archive, source, NULL, read_more, skip_moved, NULL) !=
		ARCHIVE_OK)
		return bad_archive(source, err);
	return 0;
}

static void close_source(struct source *source)
{
	archive_read_free(source->archive);
	decoder_close(source->decoder);
}

/* A warning says that something in a header was not understood: that is no archive to trust, unless
 * it is only that a name is not UTF-8, as pax wants it, and stays the bytes that it is. */
static bool is_about_charset(const struct source *source)
{
	const char *text = archive_error_string(source->archive);

	return text && strstr(text, "can't be converted");
}

/* 1: an entry, 0: the end. end_of_last is how many bytes the entries so far have taken. */
static int next_entry(
	struct source *source, struct archive_entry **ret, int64_t *end_of_last, struct err *err)
{
	int r = source->has_entry ? archive_read_data_skip(source->archive) : ARCHIVE_OK;

	if (r != ARCHIVE_OK && r != ARCHIVE_EOF)
		return bad_archive(source, err);
	source->has_entry = true;
	*end_of_last = archive_filter_bytes(source->archive, 0);
	r = archive_read_next_header(source->archive, ret);
	if (r == ARCHIVE_EOF)
		return 0;
	if (r == ARCHIVE_OK || (r == ARCHIVE_WARN && is_about_charset(source)))
		return 1;
	return bad_archive(source, err);
}

/* An archive ends with zero blocks; one that just stops has been cut, unless it stops where a
 * writer's whole record does. What comes behind the end is read, for the sender's sake and the
 * checksum's, and means nothing. */
static int check_end(struct source *source, int64_t end_of_last, struct err *err)
{
	const void *data;
	ssize_t n;

	if (archive_filter_bytes(source->archive, 0) == end_of_last &&
		source->n_bytes % RECORD_BYTES)
		return err_set(
			err, ERR_BAD_REQUEST, EBADMSG, "the archive is cut short: no end mark");
	while ((n = decoder_next(source->decoder, &data)) > 0)
		;
	source->failed = n;
	return n < 0 ? bad_archive(source, err) : 0;
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Things that only the archive can make go wrong, as against a full disk. */
static bool is_archives_fault(int r)
{
	switch (-r) {
	case ENOENT:
	case ENOTDIR:
	case EISDIR:
	case ENOTEMPTY:
	case EEXIST:
	case ELOOP:
	case ENAMETOOLONG:
	case EINVAL:
	case EFBIG:
	case E2BIG:
	case EMLINK:
		return true;
	default:
		return false;
	}
}

static int bad_entry(const struct writer_entry *entry, int r, struct err *err)
{
	err_system(err, r, "%.200s", *entry->path ? entry->path : ".");
	if (is_archives_fault(r))
		err->kind = ERR_BAD_REQUEST;
	return r;
}

static int write_at(int fd, const char *data, size_t n_bytes, int64_t offset)
{
	while (n_bytes) {
		ssize_t n = pwrite(fd, data, n_bytes, offset);

		if (n < 0)
			return -errno;
		data += n;
		n_bytes -= n;
		offset += n;
	}
	return 0;
}

static int wrong_size(const struct writer_entry *entry, struct err *err)
{
	return err_set(err, ERR_BAD_REQUEST, EBADMSG,
		"%.200s: its content is not of the size that its header says", entry->path);
}

/* Whether the library has nothing of it but what ends at tail, and much is still to come. */
static bool can_move(
	const struct source *source, const struct member *member, const char *tail, int64_t offset)
{
	return !member->has_holes && tail == source->block_end &&
		member->size - offset >= MOVE_LEAST_BYTES && decoder_can_move(source->decoder);
}

/* The rest of the content goes from the stream into the file past this process. */
static int move_rest(
	struct source *source, int fd, int64_t offset, const struct member *member, struct err *err)
{
	int64_t n_left = member->size - offset;
	int64_t n = decoder_move(source->decoder, fd, offset, n_left);

	if (n < 0)
		return bad_entry(&member->entry, (int)n, err);
	source->n_bytes += n;
	source->n_moved = n;
	source->has_entry = false;
	if (n < n_left)
		return err_set(err, ERR_BAD_REQUEST, EBADMSG,
			"%.200s: the stream ends in the middle of it", member->entry.path);
	if (archive_read_data_skip(source->archive) != ARCHIVE_OK)
		return bad_archive(source, err);
	return source->n_moved ? wrong_size(&member->entry, err) : 0;
}

static int fill_file(struct source *source, int fd, const struct member *member, struct err *err)
{
	la_int64_t offset, end = 0, size = member->size;
	const void *data;
	size_t n_bytes;
	int r;

	while ((r = archive_read_data_block(source->archive, &data, &n_bytes, &offset)) ==
		ARCHIVE_OK) {
		if (offset < 0 || offset > size || (int64_t)n_bytes > size - offset)
			return wrong_size(&member->entry, err);
		if (n_bytes == 0)
			continue;
		r = write_at(fd, data, n_bytes, offset);
		if (r < 0)
			return bad_entry(&member->entry, r, err);
		end = offset + (int64_t)n_bytes;
		if (can_move(source, member, (const char *)data + n_bytes, end))
			return move_rest(source, fd, end, member, err);
	}
	if (r != ARCHIVE_EOF)
		return bad_archive(source, err);
	if (end < size && ftruncate(fd, size) < 0)
		return bad_entry(&member->entry, -errno, err);
	return 0;
}

static int unpack_file(
	struct source *source, struct writer *writer, const struct member *member, struct err *err)
{
	const struct writer_entry *entry = &member->entry;
	AUTO_FD int fd = writer_begin_file(writer, entry);
	int r;

	if (fd < 0)
		return bad_entry(entry, fd, err);
	r = member->size ? fill_file(source, fd, member, err) : 0;
	if (r < 0)
		return r;
	r = writer_end_file(entry, fd);
	return r < 0 ? bad_entry(entry, r, err) : 0;
}

static int unpack_member(
	struct source *source, struct writer *writer, const struct member *member, struct err *err)
{
	const struct writer_entry *entry = &member->entry;
	int r;

	if (member->is_hard_link)
		r = writer_link(writer, entry);
	else if (S_ISREG(entry->mode))
		return unpack_file(source, writer, member, err);
	else
		r = writer_make(writer, entry);
	return r < 0 ? bad_entry(entry, r, err) : 0;
}

/* Sorts out in place what the new owner may not set. */
static void keep_xattrs(struct member *member, bool sets_caps)
{
	size_t n = 0;

	for (size_t i = 0; i < member->entry.n_xattrs; i++)
		if (sets_caps || strcmp(member->xattrs[i].name, "security.capability"))
			member->xattrs[n++] = member->xattrs[i];
	member->entry.n_xattrs = n;
}

static void give_to(struct member *member, const struct unpack_owner *owner)
{
	member->entry.uid = owner->uid;
	member->entry.gid = owner->gid;
	member->entry.mode &= ~owner->umask;
	keep_xattrs(member, owner->sets_caps);
}

/* ---- layers ---------------------------------------------------------------------------------- */

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"

/* The last part of the name if it takes something away. */
static const char *whiteout_of(const struct writer_entry *entry)
{
	const char *slash = strrchr(entry->path, '/'), *name = slash ? slash + 1 : entry->path;

	return strncmp(name, WHITEOUT, strlen(WHITEOUT)) ? NULL : name;
}

/* Other names with two marks are some tool's own. */
static bool is_no_name(const char *name)
{
	return !*name || !strncmp(name, WHITEOUT, strlen(WHITEOUT)) || !strcmp(name, ".") ||
		!strcmp(name, "..");
}

static int take_away(struct writer *writer, const struct writer_entry *entry, struct err *err)
{
	const char *mark = whiteout_of(entry), *name = mark + strlen(WHITEOUT);
	bool is_opaque = !strcmp(mark, OPAQUE);
	int n = (int)(mark - entry->path), r;
	AUTO_FREE char *path = NULL;

	if (!is_opaque && is_no_name(name))
		return 0;
	if (is_opaque)
		r = asprintf(&path, "%.*s", n ? n - 1 : 0, entry->path);
	else
		r = asprintf(&path, "%.*s%s", n, entry->path, name);
	r = r < 0 ? -ENOMEM : writer_take_away(writer, path, strlen(path), is_opaque);
	return r < 0 ? bad_entry(entry, r, err) : 0;
}

static int unpack_one(
	struct source *source, struct writer *writer, const struct member *member, struct err *err)
{
	bool is_whiteout = source->layer != UNPACK_ALL && whiteout_of(&member->entry);

	if (source->layer == UNPACK_WHITEOUTS)
		return is_whiteout ? take_away(writer, &member->entry, err) : 0;
	return is_whiteout ? 0 : unpack_member(source, writer, member, err);
}

static int unpack_all(
	struct source *source, struct writer *writer, unsigned long *ret_n_skipped, struct err *err)
{
	AUTO(member_done) struct member member = { 0 };
	struct archive_entry *entry;
	int64_t end_of_last = 0;
	int r;

	while ((r = next_entry(source, &entry, &end_of_last, err)) > 0) {
		r = member_read(&member, entry, err);
		if (r == 0 && source->owner)
			give_to(&member, source->owner);
		if (r == 0 && member.is_device)
			++*ret_n_skipped;
		else if (r == 0)
			r = unpack_one(source, writer, &member, err);
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = check_end(source, end_of_last, err);
	if (r < 0)
		return r;
	r = writer_finish(writer);
	return r < 0 ? err_system(err, r, "times of directories") : 0;
}

/* ---- where to -------------------------------------------------------------------------------- */

/* Baggageclaim's: each ".." goes, whatever stands around it; then it is a path of the tree. */
static char *clean_target(const char *path)
{
	char *clean = malloc(strlen(path) + 1), *end = clean;

	if (!clean)
		return NULL;
	while (*path)
		if (path[0] == '.' && path[1] == '.')
			path += 2;
		else
			*end++ = *path++;
	*end = '\0';
	return clean;
}

/* Like mkdir -p in the tree; *ret_is_new: the last one too. The path is cut and made whole again on the
 * way. */
static int make_path(int root_fd, char *path, bool *ret_is_new)
{
	AUTO_FD int parent_fd = sys_open_in_root(root_fd, ".", O_PATH | O_DIRECTORY, 0);
	char *at = path + strspn(path, "/"), *name = at;

	for (; parent_fd >= 0 && *name; name = at + strspn(at, "/")) {
		size_t n = strcspn(name, "/");
		char saved = name[n];
		int fd;

		at = name + n;
		*at = '\0';
		fd = sys_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);
		*ret_is_new = fd == -ENOENT;
		if (fd == -ENOENT)
			fd = mkdirat(parent_fd, name, 0755) < 0
				? -errno
				: sys_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);
		*at = saved;
		auto_fd(&parent_fd);
		parent_fd = fd;
	}
	return parent_fd < 0 ? parent_fd : 0;
}

/* The writer has its place; from here on with no more rights than the owner has. */
static int settle(struct writer *writer, const struct unpack_owner *owner, struct err *err)
{
	writer->is_user = owner != NULL;
	return owner ? owner->settle(owner->arg, err) : 0;
}

int unpack_load(struct err *err)
{
	return archive_version_number()
		? 0
		: err_set(err, ERR_SYSTEM, ELIBACC, "libarchive is missing");
}

int unpack(const struct unpack_spec *spec, unsigned long *ret_n_skipped, struct err *err)
{
	AUTO_FREE char *path = spec->owner ? strdup(spec->path) : clean_target(spec->path);
	AUTO(close_source) struct source source = { 0 };
	AUTO(writer_done) struct writer writer = { 0 };
	int r = path ? make_path(spec->root_fd, path, &writer.base_is_new) : -ENOMEM;

	*ret_n_skipped = 0;
	if (r == 0)
		r = writer_init(&writer, spec->root_fd, path);
	if (r < 0)
		return err_system(err, r, "path %.200s", spec->path);
	writer.is_layer = spec->layer != UNPACK_ALL;
	r = settle(&writer, spec->owner, err);
	if (r == 0)
		r = open_source(&source, spec, err);
	return r < 0 ? r : unpack_all(&source, &writer, ret_n_skipped, err);
}

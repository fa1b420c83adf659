#include "volumes/tar_head.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/auto.h"
#include "base/parse.h"

#define RECORDS_CAP_BYTES (64 * 1024 * 1024)

struct ustar {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type,
		target[100], magic[6], version[2], user[32], group[32], major[8], minor[8],
		prefix[155], unused[12];
};
static_assert(sizeof(struct ustar) == TAR_BLOCK_BYTES, "a block");

/* ---- numbers --------------------------------------------------------------------------------- */

/* Octal digits, a NUL behind. What does not fit stands in a pax record, and here as 0. */
static void put_octal(char *field, size_t n_bytes, uint64_t value)
{
	size_t at = n_bytes - 1;

	if (value >> 3 * at)
		value = 0;
	field[at] = '\0';
	while (at--) {
		field[at] = (char)('0' + (value & 7));
		value >>= 3;
	}
}

static bool fits(uint64_t value, size_t n_bytes)
{
	return !(value >> 3 * (n_bytes - 1));
}

static int add_number(struct buf *records, const char *key, uint64_t value)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%" PRIu64, value);

	return tar_record_add(records, key, text, n);
}

static int add_time(struct buf *records, const struct timespec *time)
{
	int64_t seconds = time->tv_sec;
	long ns = time->tv_nsec;
	bool is_before = seconds < 0;
	char text[40];
	int n;

	/* a timespec counts its nanoseconds upwards, a decimal away from zero */
	if (is_before && ns) {
		seconds++;
		ns = 1000000000 - ns;
	}
	n = snprintf(text, sizeof(text), "%s%" PRIu64, is_before ? "-" : "",
		is_before ? -(uint64_t)seconds : (uint64_t)seconds);
	if (ns)
		n += snprintf(text + n, sizeof(text) - n, ".%09ld", ns);
	return tar_record_add(records, "mtime", text, n);
}

/* ---- records --------------------------------------------------------------------------------- */

int tar_record_add(struct buf *records, const char *key, const void *value, size_t n_bytes)
{
	size_t rest = strlen(key) + n_bytes + 3, n_digits = 1, limit = 10;

	if (strchr(key, '='))
		return -EINVAL;
	/* the length counts its own digits */
	while (rest + n_digits >= limit) {
		n_digits++;
		limit *= 10;
	}
	buf_addf(records, "%zu %s=", rest + n_digits, key);
	buf_add(records, value, n_bytes);
	return buf_adds(records, "\n");
}

/* Splits a path that is too long for `name` at a '/'. */
static const char *find_split(const char *path, size_t n_bytes)
{
	const struct ustar *sizes = NULL;

	for (const char *slash = memchr(path, '/', n_bytes); slash;
		slash = strchr(slash + 1, '/')) {
		size_t before = slash - path, behind = n_bytes - before - 1;

		if (before > sizeof(sizes->prefix))
			return NULL;
		if (before && behind && behind <= sizeof(sizes->name))
			return slash;
	}
	return NULL;
}

static int add_records(
	struct buf *records, const struct tar_head *head, bool long_path, bool long_target)
{
	const struct ustar *sizes = NULL;

	if (head->records && head->records->len)
		buf_add(records, head->records->data, head->records->len);
	/* without it a reader may take the names for UTF-8, and change what is not */
	if ((long_path && !utf8_is_valid(head->path)) ||
		(long_target && !utf8_is_valid(head->target)))
		tar_record_add(records, "hdrcharset", "BINARY", 6);
	if (head->sparse_size) {
		tar_record_add(records, "GNU.sparse.major", "1", 1);
		tar_record_add(records, "GNU.sparse.minor", "0", 1);
		tar_record_add(records, "GNU.sparse.name", head->path, strlen(head->path));
		add_number(records, "GNU.sparse.realsize", head->sparse_size);
	} else if (long_path) {
		tar_record_add(records, "path", head->path, strlen(head->path));
	}
	if (long_target)
		tar_record_add(records, "linkpath", head->target, strlen(head->target));
	if (!fits(head->size, sizeof(sizes->size)))
		add_number(records, "size", head->size);
	if (!fits(head->uid, sizeof(sizes->uid)))
		add_number(records, "uid", head->uid);
	if (!fits(head->gid, sizeof(sizes->gid)))
		add_number(records, "gid", head->gid);
	if (head->mtime.tv_nsec || !fits(head->mtime.tv_sec, sizeof(sizes->mtime)))
		add_time(records, &head->mtime);
	return buf_failed(records);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void put_checksum(struct ustar *block)
{
	const unsigned char *bytes = (const unsigned char *)block;
	unsigned sum = 0;

	memset(block->checksum, ' ', sizeof(block->checksum));
	for (size_t i = 0; i < sizeof(*block); i++)
		sum += bytes[i];
	put_octal(block->checksum, sizeof(block->checksum) - 1, sum);
}

static void put_text(char *field, size_t n_bytes, const char *text, size_t text_bytes)
{
	memcpy(field, text, text_bytes < n_bytes ? text_bytes : n_bytes);
}

static int add_block(struct buf *out, struct ustar *block)
{
	put_text(block->magic, sizeof(block->magic), "ustar", 6);
	put_text(block->version, sizeof(block->version), "00", 2);
	put_checksum(block);
	return buf_add(out, block, sizeof(*block));
}

static int add_pax(struct buf *out, const struct buf *records)
{
	static const char zeros[TAR_BLOCK_BYTES];
	struct ustar block = { .name = "./PaxHeaders", .type = 'x' };

	put_octal(block.mode, sizeof(block.mode), 0644);
	put_octal(block.uid, sizeof(block.uid), 0);
	put_octal(block.gid, sizeof(block.gid), 0);
	put_octal(block.mtime, sizeof(block.mtime), 0);
	put_octal(block.size, sizeof(block.size), records->len);
	add_block(out, &block);
	buf_add(out, records->data, records->len);
	return buf_add(out, zeros, tar_padding(records->len));
}

static int add_ustar(struct buf *out, const struct tar_head *head, const char *split)
{
	struct ustar block = { .type = (char)head->type };
	const char *name = split ? split + 1 : head->path;

	put_text(block.name, sizeof(block.name), name, strlen(name));
	if (split)
		put_text(block.prefix, sizeof(block.prefix), head->path, split - head->path);
	put_text(block.target, sizeof(block.target), head->target, strlen(head->target));
	put_octal(block.mode, sizeof(block.mode), head->mode & 07777);
	put_octal(block.uid, sizeof(block.uid), head->uid);
	put_octal(block.gid, sizeof(block.gid), head->gid);
	put_octal(block.size, sizeof(block.size), head->size);
	put_octal(block.mtime, sizeof(block.mtime), head->mtime.tv_sec);
	put_octal(block.major, sizeof(block.major), major(head->device));
	put_octal(block.minor, sizeof(block.minor), minor(head->device));
	return add_block(out, &block);
}

int tar_head_add(struct buf *out, const struct tar_head *head)
{
	const struct ustar *sizes = NULL;
	size_t path_bytes = strlen(head->path);
	const char *split = NULL;
	AUTO_BUF struct buf records;
	bool long_path = path_bytes > sizeof(sizes->name);
	int r;

	buf_init(&records, RECORDS_CAP_BYTES);
	if (long_path && !head->sparse_size)
		split = find_split(head->path, path_bytes);
	r = add_records(
		&records, head, long_path && !split, strlen(head->target) > sizeof(sizes->target));
	if (r < 0)
		return r;
	if (records.len)
		add_pax(out, &records);
	return add_ustar(out, head, split);
}

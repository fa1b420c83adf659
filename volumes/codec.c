/* Until there are codecs of our own: libarchive's filters. */
#include "volumes/codec.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES (256 * 1024)

struct decoder {
	struct archive *archive;
	int fd;
	char *block;
};

struct encoder {
	struct archive *archive;
	int fd;
};

int codec_by_name(const char *name)
{
	static const char *const names[N_CODECS] = { "raw", "gzip", "zstd", "s2" };

	for (int i = 0; name && i < N_CODECS; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -EINVAL;
}

int decoder_open(int codec, int fd, struct decoder **ret)
{
	struct decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->fd = fd;
	d->block = codec == CODEC_RAW ? malloc(BLOCK_BYTES) : NULL;
	if (codec != CODEC_RAW) {
		struct archive_entry *entry;

		d->archive = archive_read_new();
		archive_read_support_filter_gzip(d->archive);
		archive_read_support_filter_zstd(d->archive);
		archive_read_support_format_raw(d->archive);
		archive_read_support_format_empty(d->archive);
		if (archive_read_open_fd(d->archive, fd, BLOCK_BYTES) == ARCHIVE_OK)
			archive_read_next_header(d->archive, &entry);
	}
	*ret = d;
	return 0;
}

ssize_t decoder_next(struct decoder *d, const void **ret_data)
{
	la_int64_t offset;
	size_t n_bytes;
	ssize_t n;
	int r;

	if (!d->archive) {
		*ret_data = d->block;
		n = read(d->fd, d->block, BLOCK_BYTES);
		return n < 0 ? -errno : n;
	}
	r = archive_read_data_block(d->archive, ret_data, &n_bytes, &offset);
	return r == ARCHIVE_OK ? (ssize_t)n_bytes : r == ARCHIVE_EOF ? 0 : -EBADMSG;
}

const char *decoder_error(const struct decoder *d)
{
	const char *text = d->archive ? archive_error_string(d->archive) : NULL;

	return text ? text : "";
}

void decoder_close(struct decoder *d)
{
	if (!d)
		return;
	archive_read_free(d->archive);
	free(d->block);
	free(d);
}

int encoder_open(enum codec codec, int fd, unsigned n_threads, struct encoder **ret)
{
	struct encoder *e = calloc(1, sizeof(*e));

	(void)n_threads;
	if (!e)
		return -ENOMEM;
	e->fd = fd;
	if (codec != CODEC_RAW) {
		struct archive_entry *entry = archive_entry_new();

		e->archive = archive_write_new();
		if (codec == CODEC_GZIP)
			archive_write_add_filter_gzip(e->archive);
		else
			archive_write_add_filter_zstd(e->archive);
		archive_write_set_format_raw(e->archive);
		archive_write_set_bytes_in_last_block(e->archive, 1);
		archive_entry_set_filetype(entry, AE_IFREG);
		archive_write_open_fd(e->archive, fd);
		archive_write_header(e->archive, entry);
		archive_entry_free(entry);
	}
	*ret = e;
	return 0;
}

int encoder_write(struct encoder *e, const void *data, size_t n_bytes)
{
	const char *at = data;
	ssize_t n;

	if (e->archive)
		return archive_write_data(e->archive, data, n_bytes) < 0 ? -EPIPE : 0;
	for (; n_bytes; n_bytes -= n, at += n) {
		n = write(e->fd, at, n_bytes);
		if (n < 0)
			return -errno;
	}
	return 0;
}

int encoder_end(struct encoder *e)
{
	return e->archive && archive_write_close(e->archive) != ARCHIVE_OK ? -EPIPE : 0;
}

void encoder_close(struct encoder *e)
{
	if (!e)
		return;
	archive_write_free(e->archive);
	free(e);
}

/* codec_streams.h - whole streams through the codecs, from memory to memory. */
#pragma once
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/auto.h"
#include "base/buf.h"
#include "volumes/codec.h"

#define STREAM_CAP_BYTES ((size_t)256 << 20)

static const char *const codec_names[N_CODECS] = { "raw", "gzip", "zstd", "s2" };

static inline int memory_file(const void *data, size_t n_bytes)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n_bytes), n_bytes);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* ret_out (initialised here) gets what came before the end. The end is 0 or -errno, and stays. */
static inline int decode(int codec, const void *data, size_t n_bytes, struct buf *ret_out)
{
	AUTO_FD int fd = memory_file(data, n_bytes);
	struct decoder *d = NULL;
	const void *out;
	ssize_t n;

	buf_init(ret_out, STREAM_CAP_BYTES);
	assert_int_equal(decoder_open(codec, fd, &d), 0);
	while ((n = decoder_next(d, &out)) > 0)
		assert_int_equal(buf_add(ret_out, out, (size_t)n), 0);
	assert_int_equal(decoder_next(d, &out), n);
	assert_int_equal(*decoder_error(d) == '\0', n == 0);
	decoder_close(d);
	return (int)n;
}

static inline void assert_decodes(
	int codec, const void *data, size_t n_bytes, const void *expected, size_t n_expected)
{
	AUTO_BUF struct buf out;

	assert_int_equal(decode(codec, data, n_bytes, &out), 0);
	assert_int_equal(out.len, n_expected);
	if (n_expected)
		assert_memory_equal(out.data, expected, n_expected);
}

static inline void assert_is_bad(int codec, const void *data, size_t n_bytes)
{
	AUTO_BUF struct buf out;

	assert_int_equal(decode(codec, data, n_bytes, &out), -EBADMSG);
}

/* Written in pieces of piece_bytes. ret is initialised here. */
static inline void encode(enum codec codec, unsigned n_threads, const void *data, size_t n_bytes,
	size_t piece_bytes, struct buf *ret)
{
	AUTO_FD int fd = memory_file("", 0);
	struct encoder *e = NULL;
	char space[65536];
	ssize_t n;

	buf_init(ret, STREAM_CAP_BYTES);
	assert_int_equal(encoder_open(codec, fd, n_threads, &e), 0);
	for (size_t at = 0; at < n_bytes; at += piece_bytes) {
		size_t n_left = n_bytes - at;

		assert_int_equal(encoder_write(e, (const char *)data + at,
					 n_left < piece_bytes ? n_left : piece_bytes),
			0);
	}
	assert_int_equal(encoder_end(e), 0);
	assert_int_equal(encoder_end(e), 0);
	encoder_close(e);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	while ((n = read(fd, space, sizeof(space))) > 0)
		assert_int_equal(buf_add(ret, space, (size_t)n), 0);
}

enum material { ZEROS, RANDOM, TEXT, RUNS, N_MATERIALS };

/* n_bytes of it, always the same; the caller frees. */
static inline uint8_t *make_material(enum material material, size_t n_bytes)
{
	static const char *const words[] = { "cloche ", "container ", "of ", "the ", "glass ",
		"garden ", "root\n", "x" };
	uint8_t *data = calloc(1, n_bytes + 16);
	uint32_t state = 12345;

	assert_non_null(data);
	for (size_t at = 0; material != ZEROS && at < n_bytes;) {
		const char *word;

		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		word = words[state % 8];
		if (material == RANDOM) {
			data[at++] = (uint8_t)state;
		} else if (material == TEXT) {
			for (; *word && at < n_bytes; word++)
				data[at++] = (uint8_t)*word;
		} else {
			for (unsigned n = state >> 8 & 127; n > 0 && at < n_bytes; n--)
				data[at++] = (uint8_t)(state & 3);
			at += n_bytes == at ? 0 : 1;
		}
	}
	return data;
}

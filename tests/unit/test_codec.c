#include "codec_streams.h"

#include <signal.h>

#include "alloc.h"

static void names_are_exact(void **state UNUSED)
{
	for (int i = 0; i < N_CODECS; i++)
		assert_int_equal(codec_by_name(codec_names[i]), i);
	assert_int_equal(codec_by_name(""), -EINVAL);
	assert_int_equal(codec_by_name("GZIP"), -EINVAL);
	assert_int_equal(codec_by_name("gzip "), -EINVAL);
	assert_int_equal(codec_by_name("snappy"), -EINVAL);
	assert_int_equal(codec_by_name(NULL), -EINVAL);
}

static void unknown_codecs_are_refused(void **state UNUSED)
{
	struct decoder *d = NULL;
	struct encoder *e = NULL;

	assert_int_equal(decoder_open(N_CODECS, 0, &d), -EINVAL);
	assert_int_equal(decoder_open(-2, 0, &d), -EINVAL);
	assert_int_equal(encoder_open(N_CODECS, 0, 0, &e), -EINVAL);
	assert_int_equal(encoder_open((enum codec)CODEC_AUTO, 0, 0, &e), -EINVAL);
	decoder_close(d);
	encoder_close(e);
}

static void round_trip(enum codec codec, enum material material, size_t n_bytes, size_t piece)
{
	AUTO_FREE uint8_t *data = make_material(material, n_bytes);

	for (unsigned n_threads = 0; n_threads <= 2; n_threads += 2) {
		AUTO_BUF struct buf stream;

		if (n_threads > 0 && codec != CODEC_GZIP && codec != CODEC_ZSTD)
			break;
		encode(codec, n_threads, data, n_bytes, piece, &stream);
		assert_decodes(codec, stream.data, stream.len, data, n_bytes);
		if (codec != CODEC_RAW)
			assert_decodes(CODEC_AUTO, stream.data, stream.len, data, n_bytes);
	}
}

static void each_codec_gives_back_what_it_got(void **state UNUSED)
{
	static const size_t sizes[] = { 0, 1, 2, 15, 16, 17, 60, 61, 256, 257, 32767, 65535, 65536,
		65537, 131071, 131072, 131073, 2500001 };

	for (int codec = 0; codec < N_CODECS; codec++)
		for (int material = 0; material < N_MATERIALS; material++)
			for (size_t i = 0; i < N_ELEMENTS(sizes); i++)
				round_trip(codec, material, sizes[i], 1 << 20);
}

static void it_does_not_matter_how_the_bytes_are_cut(void **state UNUSED)
{
	static const size_t pieces[] = { 1, 7, 4096, 65535, 65537, 131073 };

	for (int codec = 0; codec < N_CODECS; codec++)
		for (size_t i = 0; i < N_ELEMENTS(pieces); i++)
			round_trip(codec, TEXT, pieces[i] == 1 ? 70000 : 400001, pieces[i]);
}

static void more_threads_than_there_are_slots_for_are_not_made(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(TEXT, 1 << 20);

	for (int codec = CODEC_RAW; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream;

		encode(codec, UINT_MAX, data, 1 << 20, 100000, &stream);
		assert_decodes(codec, stream.data, stream.len, data, 1 << 20);
	}
}

static void compression_shrinks_what_can_be_shrunk(void **state UNUSED)
{
	AUTO_FREE uint8_t *zeros = make_material(ZEROS, 1 << 20);
	AUTO_FREE uint8_t *noise = make_material(RANDOM, 1 << 20);

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf small, large;

		encode(codec, 2, zeros, 1 << 20, 1 << 16, &small);
		encode(codec, 2, noise, 1 << 20, 1 << 16, &large);
		assert_true(small.len < 60000);
		assert_true(large.len < (1 << 20) + 2000);
	}
}

static void what_no_codec_knows_is_raw(void **state UNUSED)
{
	static const char *const texts[] = { "", "x", "\x1f", "\x1f\x8c", "(\xb5/", "\xff\x06",
		"ustar" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++)
		assert_decodes(CODEC_AUTO, texts[i], strlen(texts[i]), texts[i], strlen(texts[i]));
	assert_decodes(CODEC_AUTO, "\xff\x06\0\0S2sTwo", 10, "\xff\x06\0\0S2sTwo", 10);
}

static void nothing_at_all_is_cut_short(void **state UNUSED)
{
	assert_decodes(CODEC_RAW, "", 0, "", 0);
	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++)
		assert_is_bad(codec, "", 0);
}

static void another_format_is_refused(void **state UNUSED)
{
	static const char text[] = "a text that is in none of the formats, and long enough for any";

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++)
		for (int other = CODEC_GZIP; other < N_CODECS; other++) {
			AUTO_BUF struct buf stream;

			encode(other, 0, text, sizeof(text), sizeof(text), &stream);
			if (other != codec)
				assert_is_bad(codec, stream.data, stream.len);
			assert_is_bad(codec, text, sizeof(text));
		}
}

/* S2 has no end mark: cut between two chunks, what is there is a stream. */
static void a_stream_that_is_cut_is_bad(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(TEXT, 3000);

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream;

		encode(codec, 0, data, 3000, 3000, &stream);
		for (size_t n = 0; n < stream.len; n++)
			if (codec == CODEC_S2 && n == 10)
				assert_decodes(codec, stream.data, n, "", 0);
			else
				assert_is_bad(codec, stream.data, n);
	}
}

/* In S2 whoever changes a chunk's type makes another stream: one that has it no more. */
static bool is_chunk_type(enum codec codec, size_t at)
{
	return codec == CODEC_S2 && at == 10;
}

static void try_damaged(
	enum codec codec, const struct buf *stream, const void *data, size_t n_bytes)
{
	static const uint8_t masks[] = { 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff };

	for (size_t at = 0; at < stream->len; at++)
		for (size_t i = 0; i < N_ELEMENTS(masks); i++) {
			AUTO_BUF struct buf out;
			int r;

			stream->data[at] = (char)(stream->data[at] ^ masks[i]);
			r = decode(codec, stream->data, stream->len, &out);
			assert_true(r == 0 || r == -EBADMSG);
			if (r == 0 && !is_chunk_type(codec, at)) {
				assert_int_equal(out.len, n_bytes);
				assert_memory_equal(out.data, data, n_bytes);
			}
			stream->data[at] = (char)(stream->data[at] ^ masks[i]);
		}
}

static void a_damaged_byte_is_found_or_means_nothing(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(TEXT, 300);

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream;

		encode(codec, 0, data, 300, 300, &stream);
		try_damaged(codec, &stream, data, 300);
	}
}

static void something_behind_the_end_is_bad(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(TEXT, 1000);

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream;

		encode(codec, 0, data, 1000, 1000, &stream);
		assert_int_equal(buf_adds(&stream, "x"), 0);
		assert_is_bad(codec, stream.data, stream.len);
		assert_int_equal(buf_adds(&stream, "yz garbage"), 0);
		assert_is_bad(codec, stream.data, stream.len);
	}
}

static void streams_one_behind_the_other_are_one(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(TEXT, 2000);

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream, second;

		encode(codec, 0, data, 1000, 1000, &stream);
		encode(codec, 0, data + 1000, 1000, 1000, &second);
		assert_int_equal(buf_add(&stream, second.data, second.len), 0);
		assert_decodes(codec, stream.data, stream.len, data, 2000);
	}
}

static void zeros_behind_gzip_are_padding(void **state UNUSED)
{
	AUTO_BUF struct buf stream;
	AUTO_FREE uint8_t *zeros = make_material(ZEROS, 300000);

	encode(CODEC_GZIP, 0, "hello", 5, 5, &stream);
	assert_int_equal(buf_add(&stream, zeros, 1), 0);
	assert_decodes(CODEC_GZIP, stream.data, stream.len, "hello", 5);
	assert_int_equal(buf_add(&stream, zeros, 300000), 0);
	assert_decodes(CODEC_GZIP, stream.data, stream.len, "hello", 5);
	assert_int_equal(buf_adds(&stream, "x"), 0);
	assert_is_bad(CODEC_GZIP, stream.data, stream.len);
}

static void empty_members_cost_next_to_nothing(void **state UNUSED)
{
	AUTO_BUF struct buf one, all;

	for (int codec = CODEC_GZIP; codec < N_CODECS; codec++) {
		encode(codec, 0, "", 0, 1, &one);
		buf_init(&all, STREAM_CAP_BYTES);
		for (int i = 0; i < 100000; i++)
			assert_int_equal(buf_add(&all, one.data, one.len), 0);
		assert_decodes(codec, all.data, all.len, "", 0);
		buf_done(&all);
		buf_done(&one);
	}
}

/* An empty frame with a window of 2^log bytes, one block without content. */
static void make_frame(uint8_t *frame, unsigned window_log)
{
	static const uint8_t empty[] = { 0x28, 0xb5, 0x2f, 0xfd, 0, 0, 1, 0, 0 };

	memcpy(frame, empty, sizeof(empty));
	frame[5] = (uint8_t)((window_log - 10) << 3);
}

static void a_zstd_window_is_bounded(void **state UNUSED)
{
	uint8_t frame[9];

	make_frame(frame, 27);
	assert_decodes(CODEC_ZSTD, frame, sizeof(frame), "", 0);
	frame[5]++;
	assert_is_bad(CODEC_ZSTD, frame, sizeof(frame));
	make_frame(frame, 31);
	assert_is_bad(CODEC_ZSTD, frame, sizeof(frame));
}

static void skippable_zstd_frames_are_skipped(void **state UNUSED)
{
	static const char skippable[] = "\x5f\x2a\x4d\x18\x05\0\0\0hello",
			  lie[] = "\x50\x2a\x4d\x18\xff\xff\xff\xff x";
	AUTO_BUF struct buf stream, frame;

	encode(CODEC_ZSTD, 0, "hello", 5, 5, &frame);
	buf_init(&stream, STREAM_CAP_BYTES);
	assert_int_equal(buf_add(&stream, skippable, 13), 0);
	assert_decodes(CODEC_AUTO, stream.data, stream.len, "", 0);
	assert_int_equal(buf_add(&stream, frame.data, frame.len), 0);
	assert_int_equal(buf_add(&stream, skippable, 13), 0);
	assert_decodes(CODEC_AUTO, stream.data, stream.len, "hello", 5);
	for (size_t n = 1; n < 13; n++)
		assert_is_bad(CODEC_ZSTD, stream.data, stream.len - n);
	assert_int_equal(buf_add(&stream, lie, 10), 0);
	assert_is_bad(CODEC_ZSTD, stream.data, stream.len);
}

/* Version 0.7's magic number; libzstd would decode it. */
static void formats_of_the_past_are_refused(void **state UNUSED)
{
	assert_is_bad(CODEC_ZSTD, "\x27\xb5\x2f\xfd\0\0\0\0\0\0\0\0", 12);
}

static void an_encoder_says_that_nobody_reads(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(RANDOM, 1 << 20);
	struct encoder *e = NULL;
	int fds[2], r;

	signal(SIGPIPE, SIG_IGN);
	for (int codec = 0; codec < N_CODECS; codec++) {
		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		close(fds[0]);
		assert_int_equal(encoder_open(codec, fds[1], 2, &e), 0);
		r = 0;
		for (int i = 0; r == 0 && i < 64; i++)
			r = encoder_write(e, data, 1 << 20);
		assert_int_equal(r, -EPIPE);
		assert_int_equal(encoder_write(e, data, 1), -EPIPE);
		assert_int_equal(encoder_end(e), -EPIPE);
		encoder_close(e);
		close(fds[1]);
	}
}

static void an_encoder_may_be_closed_at_any_time(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(TEXT, 1 << 20);

	for (int codec = 0; codec < N_CODECS; codec++)
		for (size_t n_bytes = 0; n_bytes <= 1 << 20; n_bytes += 1 << 18) {
			AUTO_FD int fd = memory_file("", 0);
			struct encoder *e = NULL;

			assert_int_equal(encoder_open(codec, fd, 3, &e), 0);
			assert_int_equal(encoder_write(e, data, n_bytes), 0);
			encoder_close(e);
		}
}

static void a_finished_encoder_takes_no_more(void **state UNUSED)
{
	AUTO_FD int fd = memory_file("", 0);
	struct encoder *e = NULL;

	for (int codec = 0; codec < N_CODECS; codec++) {
		assert_int_equal(encoder_open(codec, fd, 1, &e), 0);
		assert_int_equal(encoder_end(e), 0);
		assert_int_equal(encoder_write(e, "x", 1), -EINVAL);
		encoder_close(e);
	}
}

static void a_decoder_says_that_it_cannot_read(void **state UNUSED)
{
	struct decoder *d = NULL;
	const void *data;

	for (int codec = CODEC_AUTO; codec < N_CODECS; codec++) {
		assert_int_equal(decoder_open(codec, -1, &d), 0);
		assert_string_equal(decoder_error(d), "");
		assert_int_equal(decoder_next(d, &data), -EBADF);
		assert_int_equal(decoder_next(d, &data), -EBADF);
		assert_string_not_equal(decoder_error(d), "");
		decoder_close(d);
	}
}

/* The n-th allocation fails: 0 or -ENOMEM. */
static int encode_with_failure(enum codec codec, const void *data, size_t n_bytes, long n)
{
	AUTO_FD int fd = memory_file("", 0);
	struct encoder *e = NULL;
	int r;

	alloc_fail_at(n);
	r = encoder_open(codec, fd, 0, &e);
	if (r == 0)
		r = encoder_write(e, data, n_bytes);
	if (r == 0)
		r = encoder_end(e);
	encoder_close(e);
	return r;
}

static int decode_with_failure(const struct buf *stream, long n)
{
	AUTO_FD int fd = memory_file(stream->data, stream->len);
	struct decoder *d = NULL;
	const void *out;
	ssize_t r;

	alloc_fail_at(n);
	r = decoder_open(CODEC_AUTO, fd, &d);
	while (r == 0 && (r = decoder_next(d, &out)) > 0)
		r = 0;
	decoder_close(d);
	return (int)r;
}

static void no_memory_is_an_ordinary_error(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = NULL;

	if (!alloc_can_fail)
		skip();
	data = make_material(TEXT, 300000);
	for (int codec = 0; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream;
		long n = 0;
		int r;

		do {
			r = encode_with_failure(codec, data, 300000, ++n);
			assert_int_equal(r, alloc_has_failed() ? -ENOMEM : 0);
		} while (r < 0);
		encode(codec, 0, data, 300000, 300000, &stream);
		n = 0;
		do {
			r = decode_with_failure(&stream, ++n);
			assert_int_equal(r, alloc_has_failed() ? -ENOMEM : 0);
		} while (r < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_exact),
		cmocka_unit_test(unknown_codecs_are_refused),
		cmocka_unit_test(each_codec_gives_back_what_it_got),
		cmocka_unit_test(it_does_not_matter_how_the_bytes_are_cut),
		cmocka_unit_test(more_threads_than_there_are_slots_for_are_not_made),
		cmocka_unit_test(compression_shrinks_what_can_be_shrunk),
		cmocka_unit_test(what_no_codec_knows_is_raw),
		cmocka_unit_test(nothing_at_all_is_cut_short),
		cmocka_unit_test(another_format_is_refused),
		cmocka_unit_test(a_stream_that_is_cut_is_bad),
		cmocka_unit_test(a_damaged_byte_is_found_or_means_nothing),
		cmocka_unit_test(something_behind_the_end_is_bad),
		cmocka_unit_test(streams_one_behind_the_other_are_one),
		cmocka_unit_test(zeros_behind_gzip_are_padding),
		cmocka_unit_test(empty_members_cost_next_to_nothing),
		cmocka_unit_test(a_zstd_window_is_bounded),
		cmocka_unit_test(skippable_zstd_frames_are_skipped),
		cmocka_unit_test(formats_of_the_past_are_refused),
		cmocka_unit_test(an_encoder_says_that_nobody_reads),
		cmocka_unit_test(an_encoder_may_be_closed_at_any_time),
		cmocka_unit_test(a_finished_encoder_takes_no_more),
		cmocka_unit_test(a_decoder_says_that_it_cannot_read),
		cmocka_unit_test(no_memory_is_an_ordinary_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "codec_streams.h"

#include <fcntl.h>
#include <sys/resource.h>

/* A decoder of what a pipe holds, after its first piece, which is short of the end. */
static struct decoder *open_on_pipe(int codec, const struct buf *stream, int *ret_fd)
{
	struct decoder *d = NULL;
	const void *data;
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) >= (int)stream->len);
	assert_int_equal(write(ends[1], stream->data, stream->len), stream->len);
	close(ends[1]);
	assert_int_equal(decoder_open(codec, ends[0], &d), 0);
	assert_true(decoder_next(d, &data) > 0);
	*ret_fd = ends[0];
	return d;
}

static void a_raw_stream_moves_into_a_file(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(RANDOM, 600000), *seen = calloc(1, 600000);
	AUTO_FD int file_fd = memory_file("", 0);
	AUTO_BUF struct buf stream;
	AUTO_FD int fd = -1;
	struct decoder *d;
	const void *rest;

	encode(CODEC_RAW, 0, data, 600000, 600000, &stream);
	d = open_on_pipe(CODEC_AUTO, &stream, &fd);
	assert_true(decoder_can_move(d));
	assert_int_equal(decoder_move(d, file_fd, 10, 100000), 100000);
	assert_true(pread(file_fd, seen, 600000, 10) == 100000);
	assert_memory_equal(seen, data + (256 << 10), 100000);
	assert_true(decoder_next(d, &rest) > 0);
	assert_memory_equal(rest, data + (256 << 10) + 100000, 1000);
	assert_int_equal(decoder_move(d, file_fd, 0, 1000), 0);
	assert_int_equal(decoder_next(d, &rest), 0);
	decoder_close(d);
}

static void only_a_raw_stream_can_move(void **state UNUSED)
{
	AUTO_FREE uint8_t *data = make_material(RANDOM, 600000);
	AUTO_FD int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct decoder *d = NULL;
	const void *rest;

	for (enum codec codec = 0; codec < N_CODECS; codec++) {
		AUTO_BUF struct buf stream;
		AUTO_FD int fd = -1;

		encode(codec, 0, data, 600000, 600000, &stream);
		d = open_on_pipe((int)codec, &stream, &fd);
		assert_int_equal(decoder_can_move(d), codec == CODEC_RAW);
		if (codec == CODEC_RAW) {
			assert_int_equal(decoder_move(d, null_fd, 0, 1), -EBADF);
			assert_int_equal(decoder_next(d, &rest), -EBADF);
			assert_false(decoder_can_move(d));
		}
		decoder_close(d);
	}
}

static void a_move_needs_descriptors(void **state UNUSED)
{
	AUTO_BUF struct buf stream;
	AUTO_FD int fd = -1;
	struct rlimit before, none;
	struct decoder *d;

	buf_init(&stream, 10);
	buf_adds(&stream, "raw");
	d = open_on_pipe(CODEC_RAW, &stream, &fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){ 0, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(decoder_move(d, fd, 0, 1), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	decoder_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_raw_stream_moves_into_a_file),
		cmocka_unit_test(only_a_raw_stream_can_move),
		cmocka_unit_test(a_move_needs_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What gzip(1) and zstd(1) make is read, and they read what is made here. */
#include "codec_streams.h"

#define N_BYTES 3000000

static void write_materials(void **state, uint8_t **ret_data)
{
	AUTO_FREE uint8_t *noise = make_material(RANDOM, 500000);

	*ret_data = make_material(TEXT, N_BYTES);
	memcpy(*ret_data + 1000000, noise, 500000);
	unit_write_file(unit_path(state, "plain"), *ret_data, N_BYTES);
}

/* In the test's directory. */
static int run(void **state, const char *command)
{
	AUTO_FREE char *line = NULL;

	assert_true(asprintf(&line, "cd '%s' && %s", (const char *)*state, command) > 0);
	return system(line);
}

static void read_stream(void **state, const char *name, struct buf *ret)
{
	FILE *file = fopen(unit_path(state, name), "re");
	char space[4096];
	size_t n;

	assert_non_null(file);
	buf_init(ret, STREAM_CAP_BYTES);
	while ((n = fread(space, 1, sizeof(space), file)) > 0)
		assert_int_equal(buf_add(ret, space, n), 0);
	fclose(file);
}

static void what_the_programs_make_is_read(void **state)
{
	static const struct {
		enum codec codec;
		const char *command;
	} makers[] = {
		{ CODEC_GZIP, "gzip -6 <plain >stream" },
		{ CODEC_GZIP, "gzip -1 <plain >stream" },
		{ CODEC_GZIP, "gzip -9 -N -c plain >stream" },
		{ CODEC_GZIP, "{ head -c 999 plain | gzip; tail -c +1000 plain | gzip; } >stream" },
		{ CODEC_ZSTD, "zstd -q -3 <plain >stream" },
		{ CODEC_ZSTD, "zstd -q -19 -c plain >stream" },
		{ CODEC_ZSTD, "zstd -q --long=27 <plain >stream" },
		{ CODEC_ZSTD, "zstd -q --no-check -T2 <plain >stream" },
		{ CODEC_ZSTD,
			"{ head -c 999 plain | zstd -q; tail -c +1000 plain | zstd -q; } >stream" },
	};
	AUTO_FREE uint8_t *data = NULL;

	write_materials(state, &data);
	for (size_t i = 0; i < N_ELEMENTS(makers); i++) {
		AUTO_BUF struct buf stream;

		assert_int_equal(run(state, makers[i].command), 0);
		read_stream(state, "stream", &stream);
		assert_decodes(makers[i].codec, stream.data, stream.len, data, N_BYTES);
		assert_decodes(CODEC_AUTO, stream.data, stream.len, data, N_BYTES);
		assert_is_bad(CODEC_AUTO, stream.data, stream.len - 1);
	}
}

static void a_window_of_the_programs_may_be_too_large(void **state)
{
	AUTO_FREE uint8_t *data = NULL;
	AUTO_BUF struct buf stream;

	write_materials(state, &data);
	assert_int_equal(run(state, "zstd -q --long=28 <plain >stream"), 0);
	read_stream(state, "stream", &stream);
	assert_is_bad(CODEC_AUTO, stream.data, stream.len);
}

static void the_programs_read_what_is_made_here(void **state)
{
	AUTO_FREE uint8_t *data = NULL;

	write_materials(state, &data);
	for (unsigned n_threads = 0; n_threads <= 2; n_threads++) {
		AUTO_BUF struct buf gzip, zstd;

		encode(CODEC_GZIP, n_threads, data, N_BYTES, 65536, &gzip);
		unit_write_file(unit_path(state, "stream"), gzip.data, gzip.len);
		assert_int_equal(run(state, "gzip -dc <stream | cmp - plain"), 0);
		assert_int_equal(run(state, "gzip -t <stream"), 0);
		encode(CODEC_ZSTD, n_threads, data, N_BYTES, 65536, &zstd);
		unit_write_file(unit_path(state, "stream"), zstd.data, zstd.len);
		assert_int_equal(run(state, "zstd -qdc <stream | cmp - plain"), 0);
		assert_int_equal(run(state, "zstd -lv stream 2>/dev/null | grep -q XXH64"), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_the_programs_make_is_read, unit_make_dir, unit_remove_dir),
		cmocka_unit_test_setup_teardown(
			a_window_of_the_programs_may_be_too_large, unit_make_dir, unit_remove_dir),
		cmocka_unit_test_setup_teardown(
			the_programs_read_what_is_made_here, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

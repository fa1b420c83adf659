#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "volumes/tar_head.h"

static struct buf out;

static int start(void **state UNUSED)
{
	buf_init(&out, 1 << 24);
	return 0;
}

static int end(void **state UNUSED)
{
	buf_done(&out);
	return 0;
}

static struct tar_head plain(const char *path)
{
	return (struct tar_head){ .type = TAR_FILE,
		.path = path,
		.target = "",
		.mode = 0100644,
		.uid = 1,
		.gid = 8,
		.mtime = { 64, 0 },
		.size = 513 };
}

static const char *block(size_t i)
{
	assert_true(out.len >= (i + 1) * TAR_BLOCK_BYTES);
	assert_int_equal(out.len % TAR_BLOCK_BYTES, 0);
	return out.data + i * TAR_BLOCK_BYTES;
}

static void assert_checksum(const char *header)
{
	unsigned sum = 8 * ' ', said = 0;

	for (int i = 0; i < TAR_BLOCK_BYTES; i++)
		if (i < 148 || i >= 156)
			sum += (unsigned char)header[i];
	for (int i = 148; header[i]; i++)
		said = said * 8 + (header[i] - '0');
	assert_int_equal(sum, said);
}

/* The pax records in front of the header; "" if there are none. */
static const char *records_of(const struct tar_head *head)
{
	buf_clear(&out);
	assert_int_equal(tar_head_add(&out, head), 0);
	assert_checksum(block(0));
	if (block(0)[156] != 'x')
		return "";
	assert_checksum(block(out.len / TAR_BLOCK_BYTES - 1));
	return block(1);
}

static void a_common_file_is_one_block(void **state UNUSED)
{
	struct tar_head head = plain("./a");

	assert_string_equal(records_of(&head), "");
	assert_int_equal(out.len, TAR_BLOCK_BYTES);
	assert_string_equal(block(0), "./a");
	assert_string_equal(block(0) + 100, "0000644");
	assert_string_equal(block(0) + 108, "0000001");
	assert_string_equal(block(0) + 116, "0000010");
	assert_string_equal(block(0) + 124, "00000001001");
	assert_string_equal(block(0) + 136, "00000000100");
	assert_memory_equal(block(0) + 257, "ustar\00000", 8);
	assert_string_equal(block(0) + 265, "");
	assert_string_equal(block(0) + 297, "");
}

static void a_long_name_is_split_if_it_can_be(void **state UNUSED)
{
	char path[302];
	struct tar_head head = plain(path);

	memset(path, 'n', sizeof(path));
	path[150] = '/';
	path[251] = '\0';
	assert_string_equal(records_of(&head), "");
	assert_memory_equal(block(0), path + 151, 100);
	assert_memory_equal(block(0) + 345, path, 150);
	assert_int_equal(block(0)[345 + 150], '\0');
	path[251] = 'n';
	path[252] = '\0';
	assert_memory_equal(records_of(&head), "262 path=nnn", 12);
}

static void names_that_are_no_utf8_are_said_to_be_bytes(void **state UNUSED)
{
	char path[120] = "\xff";
	struct tar_head head = plain(path);

	assert_string_equal(records_of(&head), "");
	memset(path + 1, 'n', sizeof(path) - 2);
	assert_memory_equal(records_of(&head), "21 hdrcharset=BINARY\n129 path=\xff", 31);
	head.path = "a";
	head.target = path;
	head.type = TAR_SYMLINK;
	assert_memory_equal(records_of(&head), "21 hdrcharset=BINARY\n133 linkpath=\xff", 35);
}

static void numbers_that_do_not_fit_become_records(void **state UNUSED)
{
	struct tar_head head = plain("a");

	head.uid = 2097151;
	head.size = 077777777777;
	assert_string_equal(records_of(&head), "");
	head.uid = 2097152;
	head.gid = 4294967294;
	head.size = UINT64_C(1) << 33;
	assert_string_equal(
		records_of(&head), "19 size=8589934592\n15 uid=2097152\n18 gid=4294967294\n");
	assert_string_equal(block(2) + 108, "0000000");
}

static void times_are_exact(void **state UNUSED)
{
	static const struct {
		struct timespec time;
		const char *text;
	} cases[] = { { { 0, 0 }, "" }, { { 5, 7 }, "21 mtime=5.000000007\n" },
		{ { -5, 0 }, "12 mtime=-5\n" }, { { -2, 500000000 }, "22 mtime=-1.500000000\n" },
		{ { -1, 999999999 }, "22 mtime=-0.000000001\n" },
		{ { 1L << 33, 0 }, "20 mtime=8589934592\n" },
		{ { INT64_MIN, 0 }, "30 mtime=-9223372036854775808\n" } };

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		struct tar_head head = plain("a");

		head.mtime = cases[i].time;
		assert_string_equal(records_of(&head), cases[i].text);
	}
}

static void a_record_counts_its_own_length(void **state UNUSED)
{
	char value[1000];

	memset(value, 'v', sizeof(value));
	for (size_t n = 0; n < sizeof(value); n++) {
		size_t said = 0;

		buf_clear(&out);
		assert_int_equal(tar_record_add(&out, "k", value, n), 0);
		for (const char *digit = out.data; *digit != ' '; digit++)
			said = said * 10 + (*digit - '0');
		assert_int_equal(said, out.len);
	}
	assert_int_equal(tar_record_add(&out, "a=b", "", 0), -EINVAL);
}

static void a_file_with_holes_keeps_its_name_in_a_record(void **state UNUSED)
{
	struct tar_head head = plain("./a");

	head.sparse_size = 4096;
	assert_string_equal(records_of(&head),
		"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n23 GNU.sparse.name=./a\n"
		"28 GNU.sparse.realsize=4096\n");
}

static void padding_goes_to_whole_blocks(void **state UNUSED)
{
	assert_int_equal(tar_padding(0), 0);
	assert_int_equal(tar_padding(1), 511);
	assert_int_equal(tar_padding(512), 0);
	assert_int_equal(tar_padding((UINT64_C(1) << 40) + 513), 511);
}

#define HEAD_TEST(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		HEAD_TEST(a_common_file_is_one_block),
		HEAD_TEST(a_long_name_is_split_if_it_can_be),
		HEAD_TEST(names_that_are_no_utf8_are_said_to_be_bytes),
		HEAD_TEST(numbers_that_do_not_fit_become_records),
		HEAD_TEST(times_are_exact),
		HEAD_TEST(a_record_counts_its_own_length),
		HEAD_TEST(a_file_with_holes_keeps_its_name_in_a_record),
		HEAD_TEST(padding_goes_to_whole_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

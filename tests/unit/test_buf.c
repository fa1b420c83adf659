#include "unit.h"

#include <errno.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/buf.h"

static void a_new_buffer_is_an_empty_text(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 10);
	assert_string_equal(buf_str(&buf), "");
	assert_int_equal(buf.len, 0);
	assert_int_equal(buf_failed(&buf), 0);
}

static void bytes_are_appended_in_order(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 100);
	assert_int_equal(buf_add(&buf, "abcdef", 3), 0);
	assert_int_equal(buf_adds(&buf, "-text-"), 0);
	assert_int_equal(buf_addf(&buf, "%d%s", 42, "!"), 0);
	assert_string_equal(buf_str(&buf), "abc-text-42!");
	assert_int_equal(buf.len, 12);
}

static void zero_bytes_in_the_content_count(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 100);
	assert_int_equal(buf_add(&buf, "a\0b", 3), 0);
	assert_int_equal(buf_adds(&buf, "c"), 0);
	assert_int_equal(buf.len, 4);
	assert_memory_equal(buf.data, "a\0bc", 5);
}

static void appending_nothing_is_fine(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 1);
	assert_int_equal(buf_add(&buf, NULL, 0), 0);
	assert_int_equal(buf_adds(&buf, ""), 0);
	assert_int_equal(buf_addf(&buf, "%s", ""), 0);
	assert_string_equal(buf_str(&buf), "");
}

static void content_may_fill_the_cap_exactly(void **state UNUSED)
{
	for (size_t cap = 1; cap <= 300; cap++) {
		AUTO_BUF struct buf buf;

		buf_init(&buf, cap);
		for (size_t i = 0; i < cap; i++)
			assert_int_equal(buf_add(&buf, "x", 1), 0);
		assert_int_equal(strlen(buf_str(&buf)), cap);
		assert_int_equal(buf_add(&buf, "x", 1), -E2BIG);
		assert_int_equal(buf.len, cap);
	}
}

static void a_failed_append_leaves_the_content_and_latches(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 5);
	assert_int_equal(buf_adds(&buf, "abc"), 0);
	assert_int_equal(buf_adds(&buf, "def"), -E2BIG);
	assert_string_equal(buf_str(&buf), "abc");
	assert_int_equal(buf_adds(&buf, "d"), -E2BIG);
	assert_int_equal(buf_add(&buf, "d", 1), -E2BIG);
	assert_int_equal(buf_addf(&buf, "d"), -E2BIG);
	assert_string_equal(buf_str(&buf), "abc");
	assert_int_equal(buf_failed(&buf), -E2BIG);
}

static void a_formatted_append_over_the_cap_leaves_the_content(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 5);
	assert_int_equal(buf_adds(&buf, "abc"), 0);
	assert_int_equal(buf_addf(&buf, "%03d", 7), -E2BIG);
	assert_string_equal(buf_str(&buf), "abc");
	assert_int_equal(buf_failed(&buf), -E2BIG);
}

static void a_length_near_the_end_of_the_address_space_does_not_wrap(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 100);
	assert_int_equal(buf_adds(&buf, "abc"), 0);
	assert_int_equal(buf_add(&buf, "x", SIZE_MAX), -E2BIG);
	buf_clear(&buf);
	assert_int_equal(buf_adds(&buf, "abc"), 0);
	assert_int_equal(buf_add(&buf, "x", SIZE_MAX - 2), -E2BIG);
	assert_string_equal(buf_str(&buf), "abc");
}

static void clearing_makes_a_buffer_usable_again(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 3);
	buf_clear(&buf);
	assert_string_equal(buf_str(&buf), "");
	assert_int_equal(buf_adds(&buf, "long text"), -E2BIG);
	buf_clear(&buf);
	assert_int_equal(buf_failed(&buf), 0);
	assert_int_equal(buf_adds(&buf, "abc"), 0);
	buf_clear(&buf);
	assert_string_equal(buf_str(&buf), "");
	assert_int_equal(buf_adds(&buf, "xyz"), 0);
	assert_string_equal(buf_str(&buf), "xyz");
}

static void content_can_be_taken_and_the_buffer_starts_anew(void **state UNUSED)
{
	AUTO_BUF struct buf buf;
	char *text;

	buf_init(&buf, 5);
	buf_adds(&buf, "abc");
	text = buf_take(&buf);
	assert_string_equal(text, "abc");
	free(text);
	assert_string_equal(buf_str(&buf), "");
	assert_int_equal(buf_adds(&buf, "12345"), 0);
	assert_int_equal(buf_adds(&buf, "6"), -E2BIG);
}

static void taking_an_empty_buffer_gives_an_empty_text(void **state UNUSED)
{
	struct buf buf;
	char *text;

	buf_init(&buf, 5);
	text = buf_take(&buf);
	assert_string_equal(text, "");
	free(text);
	buf_done(&buf);
}

static void a_buffer_can_be_ended_twice_and_used_again(void **state UNUSED)
{
	struct buf buf;

	buf_init(&buf, 5);
	buf_adds(&buf, "abc");
	buf_done(&buf);
	buf_done(&buf);
	assert_string_equal(buf_str(&buf), "");
	assert_int_equal(buf_adds(&buf, "12345"), 0);
	buf_done(&buf);
}

static void a_large_content_grows_piece_by_piece(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	buf_init(&buf, 1 << 20);
	for (int i = 0; i < 1 << 17; i++)
		assert_int_equal(buf_addf(&buf, "%08x", i), 0);
	assert_int_equal(buf.len, 1 << 20);
	assert_memory_equal(buf.data + (1 << 20) - 8, "0001ffff", 9);
	assert_int_equal(buf_adds(&buf, "x"), -E2BIG);
}

static void out_of_memory_leaves_the_content_and_latches(void **state UNUSED)
{
	AUTO_BUF struct buf buf;

	if (!alloc_can_fail)
		skip();
	buf_init(&buf, 1000);
	assert_int_equal(buf_adds(&buf, "abc"), 0);
	alloc_fail_at(1);
	assert_int_equal(buf_addf(&buf, "%200s", "x"), -ENOMEM);
	assert_true(alloc_has_failed());
	assert_string_equal(buf_str(&buf), "abc");
	assert_int_equal(buf_adds(&buf, "d"), -ENOMEM);
	assert_int_equal(buf_failed(&buf), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_buffer_is_an_empty_text),
		cmocka_unit_test(bytes_are_appended_in_order),
		cmocka_unit_test(zero_bytes_in_the_content_count),
		cmocka_unit_test(appending_nothing_is_fine),
		cmocka_unit_test(content_may_fill_the_cap_exactly),
		cmocka_unit_test(a_failed_append_leaves_the_content_and_latches),
		cmocka_unit_test(a_formatted_append_over_the_cap_leaves_the_content),
		cmocka_unit_test(a_length_near_the_end_of_the_address_space_does_not_wrap),
		cmocka_unit_test(clearing_makes_a_buffer_usable_again),
		cmocka_unit_test(content_can_be_taken_and_the_buffer_starts_anew),
		cmocka_unit_test(taking_an_empty_buffer_gives_an_empty_text),
		cmocka_unit_test(a_buffer_can_be_ended_twice_and_used_again),
		cmocka_unit_test(a_large_content_grows_piece_by_piece),
		cmocka_unit_test(out_of_memory_leaves_the_content_and_latches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/parse.h"

static void numbers_are_parsed_exactly_or_not_at_all(void **state UNUSED)
{
	static const struct {
		const char *text;
		uint64_t max;
		int r;
		uint64_t value;
	} rows[] = {
		{ "0", 0, 0, 0 },
		{ "0", UINT64_MAX, 0, 0 },
		{ "7", 7, 0, 7 },
		{ "8", 7, -ERANGE, 0 },
		{ "007", 7, 0, 7 },
		{ "00000000000000000000000000000000", 0, 0, 0 },
		{ "255", 255, 0, 255 },
		{ "256", 255, -ERANGE, 0 },
		{ "4294967295", UINT32_MAX, 0, UINT32_MAX },
		{ "4294967296", UINT32_MAX, -ERANGE, 0 },
		{ "18446744073709551615", UINT64_MAX, 0, UINT64_MAX },
		{ "18446744073709551615", UINT64_MAX - 1, -ERANGE, 0 },
		{ "18446744073709551616", UINT64_MAX, -ERANGE, 0 },
		{ "18446744073709551620", UINT64_MAX, -ERANGE, 0 },
		{ "99999999999999999999999999", UINT64_MAX, -ERANGE, 0 },
		{ "", UINT64_MAX, -EINVAL, 0 },
		{ " ", UINT64_MAX, -EINVAL, 0 },
		{ " 1", UINT64_MAX, -EINVAL, 0 },
		{ "1 ", UINT64_MAX, -EINVAL, 0 },
		{ "1\n", UINT64_MAX, -EINVAL, 0 },
		{ "+1", UINT64_MAX, -EINVAL, 0 },
		{ "-1", UINT64_MAX, -EINVAL, 0 },
		{ "-0", UINT64_MAX, -EINVAL, 0 },
		{ "0x10", UINT64_MAX, -EINVAL, 0 },
		{ "1e3", UINT64_MAX, -EINVAL, 0 },
		{ "1.0", UINT64_MAX, -EINVAL, 0 },
		{ "1,000", UINT64_MAX, -EINVAL, 0 },
		{ "1/", UINT64_MAX, -EINVAL, 0 },
		{ "1:", UINT64_MAX, -EINVAL, 0 },
		{ "\xd9\xa1", UINT64_MAX, -EINVAL, 0 },
		{ "99999999999999999999999999x", UINT64_MAX, -EINVAL, 0 },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		uint64_t value = 12345;
		int r = parse_u64(rows[i].text, rows[i].max, &value);

		if (r != rows[i].r || value != (r ? 12345 : rows[i].value))
			fail_msg("\"%s\": %d, %ju", rows[i].text, r, (uintmax_t)value);
	}
}

static void handles_follow_their_grammar(void **state UNUSED)
{
	static const char *const good[] = { "a", "0", "_", ".a", "...", "a.", "~", ":", "@", "+",
		"a-", "A-Z_a.z~0:9@x+y", "bulk_inf", "bulk_info2", "Bulk_info", "xbulk_metrics" };
	static const char *const bad[] = { "", ".", "..", "-", "-a", "bulk_info", "bulk_metrics",
		"a b", " a", "a ", "a/b", "/", "../a", "a%20b", "a\\b", "a\tb", "a\n", "a\x7f",
		"a\x01", "\xc3\xa9", "a\xff", "a,b", "a;b", "a*", "a?", "a#b", "a=b", "a&b", "a|b",
		"a\"b", "a'b", "a`b", "$a", "(a)", "[a]", "{a}", "<a>", "a!", "a^b" };

	for (size_t i = 0; i < N_ELEMENTS(good); i++)
		if (!handle_is_valid(good[i]))
			fail_msg("refused \"%s\"", good[i]);
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		if (handle_is_valid(bad[i]))
			fail_msg("accepted \"%s\"", bad[i]);
}

static void a_handle_has_at_most_255_bytes(void **state UNUSED)
{
	char text[257];

	memset(text, 'a', sizeof(text));
	text[256] = '\0';
	assert_false(handle_is_valid(text));
	text[255] = '\0';
	assert_true(handle_is_valid(text));
}

static void every_byte_is_either_a_handle_or_not(void **state UNUSED)
{
	static const char also[] = "_.~:@+-";

	for (int c = 1; c < 256; c++) {
		char text[] = { 'a', (char)c, '\0' };
		bool ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			(c >= 'A' && c <= 'Z') || strchr(also, c);

		assert_int_equal(handle_is_valid(text), ok);
	}
}

static void escapes_are_decoded_once(void **state UNUSED)
{
	static const struct {
		const char *text, *plain, *query; /* NULL: refused */
	} rows[] = {
		{ "", "", "" },
		{ "abc", "abc", "abc" },
		{ "a%20b%2Fc", "a b/c", "a b/c" },
		{ "%2f%2F", "//", "//" },
		{ "a+b", "a+b", "a b" },
		{ "+", "+", " " },
		{ "%2B+", "++", "+ " },
		{ "%2541", "%41", "%41" },
		{ "%25%34%31", "%41", "%41" },
		{ "%c3%a9", "\xc3\xa9", "\xc3\xa9" },
		{ "%FF%01%7f", "\xff\x01\x7f", "\xff\x01\x7f" },
		{ "\xc3\xa9", "\xc3\xa9", "\xc3\xa9" },
		{ "%10", "\x10", "\x10" },
		{ "%", NULL, NULL },
		{ "%4", NULL, NULL },
		{ "a%", NULL, NULL },
		{ "a%4", NULL, NULL },
		{ "%4g", NULL, NULL },
		{ "%g4", NULL, NULL },
		{ "%%", NULL, NULL },
		{ "%%41", NULL, NULL },
		{ "% 1", NULL, NULL },
		{ "%+1", NULL, NULL },
		{ "%-1", NULL, NULL },
		{ "%0x", NULL, NULL },
		{ "%00", NULL, NULL },
		{ "a%00b", NULL, NULL },
		{ "%u0041", NULL, NULL },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		for (int query = 0; query < 2; query++) {
			const char *want = query ? rows[i].query : rows[i].plain;
			AUTO_FREE char *text = strdup(rows[i].text);
			int r = percent_decode(text, query);

			if (r != (want ? 0 : -EINVAL) || (want && strcmp(text, want)))
				fail_msg("\"%s\": %d, \"%s\"", rows[i].text, r, text);
		}
}

static void every_byte_but_zero_can_be_escaped(void **state UNUSED)
{
	for (int c = 1; c < 256; c++)
		for (int upper = 0; upper < 2; upper++) {
			char text[4];

			snprintf(text, sizeof(text), upper ? "%%%02X" : "%%%02x", c);
			assert_int_equal(percent_decode(text, true), 0);
			assert_int_equal((unsigned char)text[0], c);
			assert_int_equal(text[1], '\0');
		}
}

static void random_hex_has_two_digits_a_byte(void **state UNUSED)
{
	char text[65], other[65];

	for (size_t n = 0; n <= 32; n++) {
		memset(text, 'X', sizeof(text));
		assert_int_equal(random_hex(text, n), 0);
		assert_int_equal(strlen(text), 2 * n);
		assert_int_equal(strspn(text, "0123456789abcdef"), 2 * n);
	}
	assert_int_equal(random_hex(other, 32), 0);
	assert_string_not_equal(text, other);
}

static void more_random_bytes_than_there_is_room_for_are_refused(void **state UNUSED)
{
	char text[2] = "x";

	assert_int_equal(random_hex(text, 33), -EINVAL);
	assert_int_equal(random_hex(text, SIZE_MAX), -EINVAL);
	assert_string_equal(text, "x");
}

static void a_uuid_has_the_form_of_version_4(void **state UNUSED)
{
	static const char form[] = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
	char first[UUID_SIZE], uuid[UUID_SIZE];

	assert_int_equal(random_uuid(first), 0);
	for (int round = 0; round < 100; round++) {
		assert_int_equal(random_uuid(uuid), 0);
		assert_string_not_equal(uuid, first);
		assert_int_equal(strlen(uuid), UUID_SIZE - 1);
		for (int i = 0; form[i]; i++) {
			const char *want = form[i] == 'x' ? "0123456789abcdef" : "89ab";

			if (form[i] == 'x' || form[i] == 'y')
				assert_non_null(strchr(want, uuid[i]));
			else
				assert_int_equal(uuid[i], form[i]);
		}
		assert_true(handle_is_valid(uuid));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_parsed_exactly_or_not_at_all),
		cmocka_unit_test(handles_follow_their_grammar),
		cmocka_unit_test(a_handle_has_at_most_255_bytes),
		cmocka_unit_test(every_byte_is_either_a_handle_or_not),
		cmocka_unit_test(escapes_are_decoded_once),
		cmocka_unit_test(every_byte_but_zero_can_be_escaped),
		cmocka_unit_test(random_hex_has_two_digits_a_byte),
		cmocka_unit_test(more_random_bytes_than_there_is_room_for_are_refused),
		cmocka_unit_test(a_uuid_has_the_form_of_version_4),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "volumes/s2_block.h"

/* Elements as text, "" between them, and what they make. Exactly as long as its space. */
static int decode(const char *elements, size_t n_bytes, bool may_repeat, size_t n_out, char *ret)
{
	uint8_t *exact = malloc(n_bytes + 1);
	uint8_t *space = malloc(n_out + S2_BLOCK_SLOP);
	int r;

	assert_non_null(exact);
	assert_non_null(space);
	memcpy(exact + 1, elements, n_bytes);
	memset(space, '#', n_out + S2_BLOCK_SLOP);
	r = s2_block_decode(exact + 1, n_bytes, may_repeat, space, n_out);
	if (r == 0)
		memcpy(ret, space, n_out);
	ret[r == 0 ? n_out : 0] = '\0';
	free(exact);
	free(space);
	return r;
}

static char text[1 << 18];

#define DECODE(elements, may_repeat, n_out)                                                        \
	decode(elements, sizeof(elements) - 1, may_repeat, n_out, text)
#define ASSERT_MAKES(elements, may_repeat, expected)                                               \
	do {                                                                                       \
		assert_int_equal(DECODE(elements, may_repeat, sizeof(expected) - 1), 0);           \
		assert_string_equal(text, expected);                                               \
	} while (0)
#define ASSERT_BAD(elements, may_repeat, n_out)                                                    \
	assert_int_equal(DECODE(elements, may_repeat, n_out), -EBADMSG)

#define LIT1 "\x00"
#define LIT5 "\x10"
#define HELLO LIT5 "hello"

static void lengths_are_read(void **state UNUSED)
{
	size_t length = 0;

	assert_int_equal(s2_block_length((const uint8_t *)"\x00", 1, 10, &length), 1);
	assert_int_equal(length, 0);
	assert_int_equal(s2_block_length((const uint8_t *)"\x80\x80\x04", 3, 65536, &length), 3);
	assert_int_equal(length, 65536);
	assert_int_equal(
		s2_block_length((const uint8_t *)"\x81\x80\x04", 3, 65536, &length), -EBADMSG);
	assert_int_equal(s2_block_length((const uint8_t *)"", 0, 10, &length), -EBADMSG);
	assert_int_equal(s2_block_length((const uint8_t *)"\x80\x80", 2, 10, &length), -EBADMSG);
	assert_int_equal(
		s2_block_length((const uint8_t *)"\x80\x80\x80\x80\x80\x00", 6, 10, &length),
		-EBADMSG);
	assert_int_equal(
		s2_block_length((const uint8_t *)"\xff\xff\xff\xff\xff", 5, 10, &length), -EBADMSG);
	assert_int_equal(
		s2_block_length((const uint8_t *)"\xff\xff\xff\xff\x7f", 5, 10, &length), -EBADMSG);
}

static void literals_stand_for_themselves(void **state UNUSED)
{
	ASSERT_MAKES("", false, "");
	ASSERT_MAKES(LIT1 "x", false, "x");
	ASSERT_MAKES(HELLO, false, "hello");
	ASSERT_MAKES("\xf0\x04hello", false, "hello");
	ASSERT_MAKES("\xf4\x04\x00hello", false, "hello");
	ASSERT_MAKES("\xf8\x04\x00\x00hello", false, "hello");
	ASSERT_MAKES("\xfc\x04\x00\x00\x00hello", false, "hello");
	ASSERT_MAKES(HELLO "\x3cghijklmnopqrstuv", false, "helloghijklmnopqrstuv");
}

static void literals_end_where_the_block_ends(void **state UNUSED)
{
	ASSERT_BAD(LIT5 "hell", false, 5);
	ASSERT_BAD(HELLO, false, 4);
	ASSERT_BAD(HELLO, false, 6);
	ASSERT_BAD(LIT5, false, 5);
	ASSERT_BAD("\xf0", false, 5);
	ASSERT_BAD("\xf4\x04", false, 5);
	ASSERT_BAD("\xfc\x04\x00\x00", false, 5);
	ASSERT_BAD("\xfc\xff\xff\xff\xffhello", false, 5);
}

static void copies_reach_back(void **state UNUSED)
{
	/* 1 byte of offset: length 4, offset 5 */
	ASSERT_MAKES(HELLO "\x01\x05", false, "hellohell");
	/* length 11, offset 5, over itself */
	ASSERT_MAKES(HELLO "\x1d\x05", false, "hellohellohelloh");
	/* 2 bytes: length 3, offset 2 */
	ASSERT_MAKES(HELLO "\x0a\x02\x00", false, "hellolol");
}

static void copies_of_any_distance_repeat(void **state UNUSED)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz";

	for (unsigned offset = 1; offset <= 26; offset++)
		for (unsigned length = 1; length <= 64; length++) {
			char elements[32];

			elements[0] = 25 << 2;
			memcpy(elements + 1, alphabet, 26);
			elements[27] = (char)((length - 1) << 2 | 2);
			elements[28] = (char)offset;
			elements[29] = 0;
			assert_int_equal(decode(elements, 30, false, 26 + length, text), 0);
			for (unsigned i = 0; i < length; i++)
				assert_int_equal(text[26 + i], text[26 + i - offset]);
			elements[27] = (char)((length - 1) << 2 | 3);
			elements[30] = elements[31] = 0;
			assert_int_equal(decode(elements, 32, false, 26 + length, text), 0);
			for (unsigned i = 0; i < length; i++)
				assert_int_equal(text[26 + i], text[26 + i - offset]);
		}
}

static void copies_stay_within_the_block(void **state UNUSED)
{
	ASSERT_BAD("\x01\x05", false, 4); /* of nothing */
	ASSERT_BAD(HELLO "\x01\x06", false, 9); /* from before the beginning */
	ASSERT_BAD(HELLO "\x21\x05", false, 9); /* offset 256 + 5 */
	ASSERT_BAD(HELLO "\x01\x05", false, 8); /* over the end */
	ASSERT_BAD(HELLO "\x01", false, 9); /* cut short */
	ASSERT_BAD(HELLO "\x0a\x02", false, 8);
	ASSERT_BAD(HELLO "\x0b\x02\x00\x00", false, 8);
	ASSERT_BAD(HELLO "\x0a\x00\x00", false, 8); /* offset 0 */
	ASSERT_BAD(HELLO "\x0b\x00\x00\x00\x00", true, 8);
	ASSERT_BAD(HELLO "\x0b\x05\x00\x00\x80", false, 8);
}

static void repeats_use_the_last_offset(void **state UNUSED)
{
	/* offset 5 once, then again: lengths 4 and 8 */
	ASSERT_MAKES(HELLO "\x01\x05\x01\x00", true, "hellohellohel");
	ASSERT_MAKES(HELLO "\x01\x05\x11\x00", true, "hellohellohellohe");
	/* a literal between them does not matter, and the offset may come from a longer copy */
	ASSERT_MAKES(HELLO "\x0e\x05\x00" LIT1 "!\x01\x00", true, "hellohell!hell");
	ASSERT_MAKES(HELLO "\x0f\x05\x00\x00\x00\x01\x00", true, "hellohellohel");
}

/* Code 5: 8 and a byte; 6: 260 and two; 7: 65,540 and three. */
static void long_repeats_have_their_length_behind_them(void **state UNUSED)
{
	static const struct {
		const char *element;
		size_t n_bytes, length;
	} repeats[] = {
		{ "\x05\x00", 2, 5 },
		{ "\x09\x00", 2, 6 },
		{ "\x0d\x00", 2, 7 },
		{ "\x15\x00\x00", 3, 8 },
		{ "\x15\x00\xff", 3, 263 },
		{ "\x19\x00\x00\x00", 4, 260 },
		{ "\x19\x00\x01\x02", 4, 260 + 513 },
		{ "\x19\x00\xff\xff", 4, 65795 },
		{ "\x1d\x00\x00\x00\x00", 5, 65540 },
		{ "\x1d\x00\x01\x02\x01", 5, 65540 + 66049 },
	};

	for (size_t i = 0; i < N_ELEMENTS(repeats); i++) {
		char elements[16] = HELLO "\x01\x05";
		size_t n_out = 9 + repeats[i].length;

		memcpy(elements + 8, repeats[i].element, repeats[i].n_bytes);
		assert_int_equal(decode(elements, 8 + repeats[i].n_bytes, true, n_out, text), 0);
		for (size_t at = 0; at < n_out; at++)
			assert_int_equal(text[at], "hello"[at % 5]);
		assert_int_equal(
			decode(elements, 8 + repeats[i].n_bytes, true, n_out - 1, text), -EBADMSG);
		assert_int_equal(
			decode(elements, 8 + repeats[i].n_bytes, true, n_out + 1, text), -EBADMSG);
		assert_int_equal(
			decode(elements, 7 + repeats[i].n_bytes, true, n_out, text), -EBADMSG);
		assert_int_equal(
			decode(elements, 8 + repeats[i].n_bytes, false, n_out, text), -EBADMSG);
	}
}

static void the_first_copy_cannot_repeat(void **state UNUSED)
{
	ASSERT_BAD(HELLO "\x01\x00", true, 9);
	ASSERT_BAD("\x01\x00", true, 4);
}

static void assert_round_trip(const uint8_t *data, size_t n_bytes, size_t max_encoded)
{
	AUTO_FREE uint8_t *space = malloc(S2_BLOCK_ENCODED_BYTES(n_bytes));
	AUTO_FREE uint8_t *out = malloc(n_bytes + S2_BLOCK_SLOP);
	AUTO_FREE uint8_t *exact = malloc(n_bytes + 1);
	AUTO_FREE struct snappy_table *table = malloc(sizeof(*table));
	size_t n, length = 0;
	int r;

	assert_true(space && out && exact && table);
	memcpy(exact, data, n_bytes);
	n = snappy_block_encode(table, exact, n_bytes, space);
	assert_true(n <= max_encoded);
	r = s2_block_length(space, n, SNAPPY_BLOCK_BYTES, &length);
	assert_true(r > 0);
	assert_int_equal(length, n_bytes);
	assert_int_equal(s2_block_decode(space + r, n - (size_t)r, false, out, n_bytes), 0);
	assert_memory_equal(out, data, n_bytes);
}

static void what_is_encoded_decodes_to_the_same(void **state UNUSED)
{
	static uint8_t data[SNAPPY_BLOCK_BYTES];
	uint32_t random = 1;

	/* matches of every length, with noise between them */
	for (size_t at = 0, run = 1; at < sizeof(data); at++) {
		random = random * 1664525 + 1013904223;
		data[at] =
			at % (run + 5) < run ? (uint8_t)(at % (run + 5)) : (uint8_t)(random >> 24);
		if (at % (run + 5) == run + 4)
			run = run % 150 + 1;
	}
	for (size_t n = 0; n < 300; n++)
		assert_round_trip(data, n, S2_BLOCK_ENCODED_BYTES(n));
	assert_round_trip(data, sizeof(data), sizeof(data));
	for (size_t at = 0; at < sizeof(data); at++) {
		random = random * 1664525 + 1013904223;
		data[at] = (uint8_t)(random >> 24);
	}
	assert_round_trip(data, sizeof(data), sizeof(data) + 32);
	memset(data, 0, sizeof(data));
	assert_round_trip(data, sizeof(data), 3100);
	for (size_t n = 1; n < 200; n++)
		assert_round_trip(data, n, S2_BLOCK_ENCODED_BYTES(n));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_are_read),
		cmocka_unit_test(literals_stand_for_themselves),
		cmocka_unit_test(literals_end_where_the_block_ends),
		cmocka_unit_test(copies_reach_back),
		cmocka_unit_test(copies_of_any_distance_repeat),
		cmocka_unit_test(copies_stay_within_the_block),
		cmocka_unit_test(repeats_use_the_last_offset),
		cmocka_unit_test(long_repeats_have_their_length_behind_them),
		cmocka_unit_test(the_first_copy_cannot_repeat),
		cmocka_unit_test(what_is_encoded_decodes_to_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

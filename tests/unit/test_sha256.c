/* The examples of FIPS 180-4, and every split of a text. */
#include "unit.h"

#include <string.h>

#include "base/sha256.h"

static void assert_sum(const char *text, size_t n_times, const char *expected)
{
	char hex[SHA256_HEX_SIZE];
	struct sha256 sum;

	sha256_init(&sum);
	for (size_t i = 0; i < n_times; i++)
		sha256_add(&sum, text, strlen(text));
	sha256_end(&sum, hex);
	assert_string_equal(hex, expected);
}

static void known_sums_come_out(void **state)
{
	(void)state;
	assert_sum("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	assert_sum("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_sum("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
		"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	assert_sum(
		"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	assert_sum("0123456701234567012345670123456701234567012345670123456701234567", 10,
		"594847328451bdfa85056225462cc1d867d877fb388df0ce35f25ab5562bfbb5");
}

static void every_split_gives_the_same(void **state)
{
	char text[200], whole[SHA256_HEX_SIZE], parts[SHA256_HEX_SIZE];
	struct sha256 sum;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7);
	for (size_t len = 0; len <= sizeof(text); len++)
		for (size_t at = 0; at <= len; at++) {
			sha256_init(&sum);
			sha256_add(&sum, text, len);
			sha256_end(&sum, whole);
			sha256_init(&sum);
			sha256_add(&sum, text, at);
			sha256_add(&sum, text + at, len - at);
			sha256_end(&sum, parts);
			assert_string_equal(whole, parts);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_sums_come_out),
		cmocka_unit_test(every_split_gives_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

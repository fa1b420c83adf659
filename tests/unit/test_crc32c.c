#include "unit.h"

#include "volumes/crc32c.h"

static struct crc32c crc;

/* Both ways give the same, and that is expected, whatever the address. */
static void assert_crc(const void *data, size_t n_bytes, uint32_t expected)
{
	struct crc32c by_table = crc;

	by_table.has_instruction = false;
	for (size_t shift = 0; shift < 8; shift++) {
		uint8_t *copy = malloc(n_bytes + shift + 1);

		assert_non_null(copy);
		memcpy(copy + shift, data, n_bytes);
		assert_int_equal(crc32c_of(&crc, copy + shift, n_bytes), expected);
		assert_int_equal(crc32c_of(&by_table, copy + shift, n_bytes), expected);
		free(copy);
	}
}

static void known_values_come_out(void **state UNUSED)
{
	uint8_t bytes[32] = { 0 };

	assert_crc("", 0, 0);
	assert_crc("a", 1, 0xc1d04330);
	assert_crc("123456789", 9, 0xe3069283);
	/* RFC 3720, B.4 */
	assert_crc(bytes, 32, 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_crc(bytes, 32, 0x62a8ab43);
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	assert_crc(bytes, 32, 0x46dd794e);
}

static void table_and_instruction_agree_at_any_length(void **state UNUSED)
{
	struct crc32c by_table = crc;
	uint8_t bytes[300];

	by_table.has_instruction = false;
	for (size_t n = 0; n < sizeof(bytes); n++) {
		bytes[n] = (uint8_t)(n * n + 7 * n);
		assert_int_equal(crc32c_of(&crc, bytes, n), crc32c_of(&by_table, bytes, n));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values_come_out),
		cmocka_unit_test(table_and_instruction_agree_at_any_length),
	};

	crc32c_init(&crc);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "volumes/crc32c.h"

#include <string.h>

#define POLYNOMIAL UINT32_C(0x82f63b78) /* bits reversed */

void crc32c_init(struct crc32c *c)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		c->table[0][i] = crc;
	}
	for (int t = 1; t < 8; t++)
		for (int i = 0; i < 256; i++) {
			uint32_t before = c->table[t - 1][i];

			c->table[t][i] = before >> 8 ^ c->table[0][before & 0xff];
		}
#ifdef __x86_64__
	c->has_instruction = __builtin_cpu_supports("sse4.2");
#else
	c->has_instruction = false;
#endif
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t by_instruction(
	uint32_t crc, const uint8_t *at, size_t n_bytes)
{
	uint64_t wide = crc;

	for (; n_bytes >= 8; at += 8, n_bytes -= 8) {
		uint64_t word;

		memcpy(&word, at, 8);
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	for (; n_bytes > 0; at++, n_bytes--)
		crc = __builtin_ia32_crc32qi(crc, *at);
	return crc;
}
#endif

static uint32_t by_table(const struct crc32c *c, uint32_t crc, const uint8_t *at, size_t n_bytes)
{
	for (; n_bytes >= 8; at += 8, n_bytes -= 8)
		crc = c->table[7][(crc ^ at[0]) & 0xff] ^ c->table[6][(crc >> 8 ^ at[1]) & 0xff] ^
			c->table[5][(crc >> 16 ^ at[2]) & 0xff] ^ c->table[4][crc >> 24 ^ at[3]] ^
			c->table[3][at[4]] ^ c->table[2][at[5]] ^ c->table[1][at[6]] ^
			c->table[0][at[7]];
	for (; n_bytes > 0; at++, n_bytes--)
		crc = crc >> 8 ^ c->table[0][(crc ^ *at) & 0xff];
	return crc;
}

uint32_t crc32c_of(const struct crc32c *c, const void *data, size_t n_bytes)
{
#ifdef __x86_64__
	if (c->has_instruction)
		return ~by_instruction(~UINT32_C(0), data, n_bytes);
#endif
	return ~by_table(c, ~UINT32_C(0), data, n_bytes);
}

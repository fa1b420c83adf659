/* crc32c.h - the checksum of Snappy and S2 streams (Castagnoli's polynomial). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct crc32c {
	bool has_instruction; /* a test may clear it */
	uint32_t table[8][256];
};

/* Some microseconds. */
void crc32c_init(struct crc32c *c);
uint32_t crc32c_of(const struct crc32c *c, const void *data, size_t n_bytes);

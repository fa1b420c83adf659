/* sha256.h - the digest that images are named by (FIPS 180-4). No heap; one thread per state. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define SHA256_HEX_SIZE 65 /* with its NUL */

struct sha256 {
	uint32_t h[8];
	uint64_t n_bytes;
	uint8_t block[64];
};

void sha256_init(struct sha256 *sum);
void sha256_add(struct sha256 *sum, const void *data, size_t n_bytes);
/* In lower case hex digits. */
void sha256_end(struct sha256 *sum, char ret_hex[SHA256_HEX_SIZE]);

/* s2_block.h - one block of Snappy or S2: a length, then literals and copies. No memory is taken,
 * nothing is read or written outside of what is given. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decoding writes up to so many bytes behind the block: room for copies in whole words. */
#define S2_BLOCK_SLOP 16

/* What a Snappy block has at most, and S2_BLOCK_ENCODED_BYTES may come of n bytes. */
#define SNAPPY_BLOCK_BYTES 65536
#define S2_BLOCK_ENCODED_BYTES(n) (32 + (n) + (n) / 6)

#define SNAPPY_HASH_BITS 14

/* Scratch space of the encoder, its content is of no interest. */
struct snappy_table {
	uint16_t place[1 << SNAPPY_HASH_BITS];
};

/* The length that the block claims to have, at most max_bytes; returns how many bytes say so, or
 * -EBADMSG. */
int s2_block_length(const uint8_t *block, size_t n_bytes, size_t max_bytes, size_t *ret_length);

/* The elements behind the length, into space of n_out + S2_BLOCK_SLOP bytes. may_repeat: S2, where
 * a copy may use the offset of the one before. 0; -EBADMSG if they are damaged or do not make
 * exactly n_out bytes, and then space holds anything. */
int s2_block_decode(
	const uint8_t *elements, size_t n_bytes, bool may_repeat, uint8_t *space, size_t n_out);

/* A whole Snappy block of 0 to SNAPPY_BLOCK_BYTES bytes, into space of S2_BLOCK_ENCODED_BYTES.
 * Returns its length. */
size_t snappy_block_encode(
	struct snappy_table *table, const uint8_t *data, size_t n_bytes, uint8_t *space);

/* S2 and Snappy framed streams. What goes out is plain Snappy, which readers of both accept. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "volumes/codec_impl.h"
#include "volumes/crc32c.h"
#include "volumes/s2_block.h"

/* A stream is a sequence of chunks: a type, the length of the rest in 3 bytes. Types from 0x80 on
 * mean nothing to those who do not know them. */
enum chunk_type { CHUNK_COMPRESSED, CHUNK_STORED, CHUNK_SKIPPABLE = 0x80, CHUNK_MAGIC = 0xff };

#define HEAD_BYTES 4
#define CRC_BYTES 4
#define MAGIC_BYTES 6
#define S2_BLOCK_BYTES (4 * 1024 * 1024)

static uint32_t le24(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
}

static uint32_t masked_crc(const struct crc32c *c, const void *data, size_t n_bytes)
{
	uint32_t crc = crc32c_of(c, data, n_bytes);

	return (crc >> 15 | crc << 17) + UINT32_C(0xa282ead8);
}

/* ---- decoder --------------------------------------------------------------------------------- */

struct s2 {
	struct crc32c crc;
	bool has_begun, is_snappy;
	uint8_t out[S2_BLOCK_BYTES + S2_BLOCK_SLOP];
};

static int open_decoder(struct decoder *d)
{
	struct s2 *s = malloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	crc32c_init(&s->crc);
	s->has_begun = s->is_snappy = false;
	d->state = s;
	return 0;
}

/* That many bytes in one piece: 1, or -errno. */
static int need(struct decoder *d, size_t n_bytes)
{
	ssize_t n = n_bytes ? input_have(&d->in, n_bytes) : 0;

	if (n < 0)
		return (int)n;
	return (size_t)n < n_bytes ? decoder_bad(d, "cut short") : 1;
}

static int check_magic(struct decoder *d, struct s2 *s, size_t n_bytes)
{
	int r = n_bytes == MAGIC_BYTES ? need(d, MAGIC_BYTES) : 0;

	if (r < 0)
		return r;
	s->is_snappy = r && !memcmp(input_at(&d->in), "sNaPpY", MAGIC_BYTES);
	if (!s->is_snappy && (!r || memcmp(input_at(&d->in), "S2sTwO", MAGIC_BYTES)))
		return decoder_bad(d, "not in S2 or Snappy format");
	s->has_begun = true;
	input_take(&d->in, MAGIC_BYTES);
	return 0;
}

static ssize_t check_crc(
	struct decoder *d, const struct s2 *s, const uint8_t *crc, const void *data, size_t n_bytes)
{
	uint32_t expected = le24(crc) | (uint32_t)crc[3] << 24;

	if (masked_crc(&s->crc, data, n_bytes) != expected)
		return decoder_bad(d, "a block's checksum is wrong");
	return (ssize_t)n_bytes;
}

/* A chunk with a block in it: the block's length, 0 too, or -errno. */
static ssize_t decode_block(
	struct decoder *d, struct s2 *s, uint8_t type, size_t n_bytes, const void **ret_data)
{
	size_t max_bytes = s->is_snappy ? SNAPPY_BLOCK_BYTES : S2_BLOCK_BYTES, n_out;
	const uint8_t *at;
	int r;

	if (n_bytes < CRC_BYTES || n_bytes > CRC_BYTES + S2_BLOCK_ENCODED_BYTES(max_bytes))
		return decoder_bad(d, "a chunk has an impossible length");
	r = need(d, n_bytes);
	if (r < 0)
		return r;
	at = input_at(&d->in);
	input_take(&d->in, n_bytes);
	n_bytes -= CRC_BYTES;
	if (type == CHUNK_STORED) {
		*ret_data = at + CRC_BYTES;
		return n_bytes > max_bytes ? decoder_bad(d, "a block is too long")
					   : check_crc(d, s, at, *ret_data, n_bytes);
	}
	r = s2_block_length(at + CRC_BYTES, n_bytes, max_bytes, &n_out);
	if (r < 0)
		return decoder_bad(d, "a block has an impossible length");
	if (s2_block_decode(at + CRC_BYTES + r, n_bytes - (size_t)r, !s->is_snappy, s->out, n_out))
		return decoder_bad(d, "a block is damaged");
	*ret_data = s->out;
	return check_crc(d, s, at, s->out, n_out);
}

static ssize_t decode_chunk(
	struct decoder *d, struct s2 *s, uint8_t type, size_t n_bytes, const void **ret_data)
{
	int r;

	if (type == CHUNK_MAGIC)
		return check_magic(d, s, n_bytes);
	if (!s->has_begun)
		return decoder_bad(d, "not in S2 or Snappy format");
	if (type <= CHUNK_STORED)
		return decode_block(d, s, type, n_bytes, ret_data);
	if (type < CHUNK_SKIPPABLE)
		return decoder_bad(d, "something else behind the end, or a chunk of unknown type");
	r = input_skip(&d->in, n_bytes);
	if (r == 0)
		return decoder_bad(d, "cut short");
	return r < 0 ? r : 0;
}

static ssize_t next(struct decoder *d, const void **ret_data)
{
	struct s2 *s = d->state;
	ssize_t n = 0;

	while (n == 0) {
		const uint8_t *head;

		n = input_have(&d->in, HEAD_BYTES);
		if (n < 0 || (n == 0 && s->has_begun))
			return n;
		if (n < HEAD_BYTES)
			return decoder_bad(d, "cut short");
		head = input_at(&d->in);
		input_take(&d->in, HEAD_BYTES);
		n = decode_chunk(d, s, head[0], le24(head + 1), ret_data);
	}
	return n;
}

const struct decoder_type s2_decoder = {
	.name = "s2",
	.open = open_decoder,
	.next = next,
	.close = free,
};

/* ---- encoder --------------------------------------------------------------------------------- */

struct snappy {
	struct crc32c crc;
	bool has_begun;
	size_t n_in;
	uint8_t in[SNAPPY_BLOCK_BYTES];
	uint8_t out[HEAD_BYTES + CRC_BYTES + S2_BLOCK_ENCODED_BYTES(SNAPPY_BLOCK_BYTES)];
	struct snappy_table table;
};

static int open_encoder(struct encoder *e, unsigned n_threads)
{
	struct snappy *s = malloc(sizeof(*s));

	(void)n_threads;
	if (!s)
		return -ENOMEM;
	crc32c_init(&s->crc);
	s->has_begun = false;
	s->n_in = 0;
	e->state = s;
	return 0;
}

static int put_block(struct encoder *e, struct snappy *s, const uint8_t *data, size_t n_bytes)
{
	uint8_t *block = s->out + HEAD_BYTES + CRC_BYTES;
	uint32_t crc = masked_crc(&s->crc, data, n_bytes);
	size_t n = snappy_block_encode(&s->table, data, n_bytes, block);
	bool is_stored = n >= n_bytes - n_bytes / 8;

	if (is_stored) {
		memcpy(block, data, n_bytes);
		n = n_bytes;
	}
	n += CRC_BYTES;
	s->out[0] = is_stored ? CHUNK_STORED : CHUNK_COMPRESSED;
	for (int i = 0; i < 3; i++)
		s->out[1 + i] = (uint8_t)(n >> (8 * i));
	for (int i = 0; i < CRC_BYTES; i++)
		s->out[HEAD_BYTES + i] = (uint8_t)(crc >> (8 * i));
	return encoder_put(e, s->out, HEAD_BYTES + n);
}

static int begin(struct encoder *e, struct snappy *s)
{
	if (s->has_begun)
		return 0;
	s->has_begun = true;
	return encoder_put(e, "\xff\x06\0\0sNaPpY", HEAD_BYTES + MAGIC_BYTES);
}

/* Whole blocks are compressed where they are, only the rest is kept. */
static int write_snappy(struct encoder *e, const void *data, size_t n_bytes)
{
	struct snappy *s = e->state;
	const uint8_t *at = data;
	int r = begin(e, s);

	while (r == 0 && n_bytes > 0) {
		size_t n = SNAPPY_BLOCK_BYTES - s->n_in;

		if (s->n_in == 0 && n_bytes >= n) {
			r = put_block(e, s, at, n);
		} else {
			n = n_bytes < n ? n_bytes : n;
			memcpy(s->in + s->n_in, at, n);
			s->n_in += n;
		}
		if (r == 0 && s->n_in == SNAPPY_BLOCK_BYTES) {
			s->n_in = 0;
			r = put_block(e, s, s->in, SNAPPY_BLOCK_BYTES);
		}
		at += n;
		n_bytes -= n;
	}
	return r;
}

static int end_snappy(struct encoder *e)
{
	struct snappy *s = e->state;
	int r = begin(e, s);

	return r == 0 && s->n_in ? put_block(e, s, s->in, s->n_in) : r;
}

const struct encoder_type s2_encoder = {
	.open = open_encoder,
	.write = write_snappy,
	.end = end_snappy,
	.close = free,
};

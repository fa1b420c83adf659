#include "volumes/s2_block.h"

#include <errno.h>
#include <string.h>

enum tag { TAG_LITERAL, TAG_COPY1, TAG_COPY2, TAG_COPY4 }; /* the two low bits of an element */

static size_t little_endian(const uint8_t *at, size_t n_bytes)
{
	size_t value = 0;

	for (size_t i = 0; i < n_bytes; i++)
		value |= (size_t)at[i] << (8 * i);
	return value;
}

/* ---- decoder --------------------------------------------------------------------------------- */

int s2_block_length(const uint8_t *block, size_t n_bytes, size_t max_bytes, size_t *ret_length)
{
	uint64_t length = 0;

	for (int i = 0; i < 5 && (size_t)i < n_bytes; i++) {
		length |= (uint64_t)(block[i] & 0x7f) << (7 * i);
		if (block[i] & 0x80)
			continue;
		*ret_length = (size_t)length;
		return length <= max_bytes ? i + 1 : -EBADMSG;
	}
	return -EBADMSG;
}

struct decoding {
	const uint8_t *in, *in_end;
	uint8_t *out, *out_begin, *out_end;
	size_t offset; /* of the last copy; 0: there was none */
	bool may_repeat;
};

static inline bool has(const struct decoding *d, size_t n_bytes)
{
	return (size_t)(d->in_end - d->in) >= n_bytes;
}

static inline int decode_literal(struct decoding *d, unsigned code)
{
	size_t length = code + 1, n_more = code < 60 ? 0 : code - 59;

	if (!has(d, n_more))
		return -EBADMSG;
	if (n_more) {
		length = little_endian(d->in, n_more) + 1;
		d->in += n_more;
	}
	if (!has(d, length) || (size_t)(d->out_end - d->out) < length)
		return -EBADMSG;
	if (length <= 16 && has(d, 16))
		memcpy(d->out, d->in, 16);
	else
		memcpy(d->out, d->in, length);
	d->in += length;
	d->out += length;
	return 0;
}

/* The source may reach into what it makes: then it repeats. In words it writes up to 15 bytes too
 * many, for which there is room. */
static inline void copy_within(uint8_t *to, size_t offset, size_t length)
{
	const uint8_t *from = to - offset;

	if (offset >= 16) {
		for (size_t i = 0; i < length; i += 16)
			memcpy(to + i, from + i, 16);
		return;
	}
	/* From the same place each time: what can be copied without overlap doubles. */
	while (length > 0) {
		size_t n = (size_t)(to - from);

		if (n > length)
			n = length;
		memcpy(to, from, n);
		to += n;
		length -= n;
	}
}

static inline int make_copy(struct decoding *d, size_t length)
{
	if (d->offset == 0 || d->offset > (size_t)(d->out - d->out_begin) ||
		length > (size_t)(d->out_end - d->out))
		return -EBADMSG;
	copy_within(d->out, d->offset, length);
	d->out += length;
	return 0;
}

/* S2's own element: the offset stays; lengths that do not fit into the tag follow it. */
static int decode_repeat(struct decoding *d, unsigned code)
{
	static const unsigned n_more_of[8] = { [5] = 1, [6] = 2, [7] = 3 };
	static const size_t base_of[8] = { 4, 5, 6, 7, 8, 8, 260, 65540 };
	size_t n_more = n_more_of[code], length = base_of[code];

	if (!d->may_repeat || !has(d, n_more))
		return -EBADMSG;
	length += little_endian(d->in, n_more);
	d->in += n_more;
	return make_copy(d, length);
}

static inline int decode_copy(struct decoding *d, unsigned tag)
{
	size_t n_offset = (tag & 3) == TAG_COPY4 ? 4 : tag & 3, offset;

	if (!has(d, n_offset))
		return -EBADMSG;
	if ((tag & 3) == TAG_COPY2)
		offset = d->in[0] | (size_t)d->in[1] << 8;
	else
		offset = little_endian(d->in, n_offset);
	d->in += n_offset;
	if ((tag & 3) != TAG_COPY1) {
		d->offset = offset;
		return make_copy(d, (tag >> 2) + 1);
	}
	offset |= (size_t)(tag >> 5) << 8;
	if (offset == 0)
		return decode_repeat(d, tag >> 2 & 7);
	d->offset = offset;
	return make_copy(d, (tag >> 2 & 7) + 4);
}

int s2_block_decode(
	const uint8_t *elements, size_t n_bytes, bool may_repeat, uint8_t *space, size_t n_out)
{
	struct decoding d = {
		.in = elements,
		.in_end = elements + n_bytes,
		.out = space,
		.out_begin = space,
		.out_end = space + n_out,
		.may_repeat = may_repeat,
	};
	int r = 0;

	while (r == 0 && d.in < d.in_end) {
		unsigned tag = *d.in++;

		r = (tag & 3) == TAG_LITERAL ? decode_literal(&d, tag >> 2) : decode_copy(&d, tag);
	}
	return r == 0 && d.out == d.out_end ? 0 : -EBADMSG;
}

/* ---- encoder --------------------------------------------------------------------------------- */

/* Matches are looked for as far as whole words can be read. */
#define MARGIN 16

static inline uint32_t load32(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, 4);
	return word;
}

static inline unsigned hash_of(uint32_t word)
{
	return word * UINT32_C(0x9e3779b1) >> (32 - SNAPPY_HASH_BITS);
}

static uint8_t *put_length(uint8_t *to, size_t length)
{
	for (; length >= 0x80; length >>= 7)
		*to++ = (uint8_t)(length | 0x80);
	*to++ = (uint8_t)length;
	return to;
}

static inline uint8_t *put_literal(uint8_t *to, const uint8_t *from, size_t length)
{
	if (length == 0)
		return to;
	if (length <= 60) {
		*to++ = (uint8_t)((length - 1) << 2);
	} else if (length <= 256) {
		*to++ = 60 << 2;
		*to++ = (uint8_t)(length - 1);
	} else {
		*to++ = 61 << 2;
		*to++ = (uint8_t)(length - 1);
		*to++ = (uint8_t)((length - 1) >> 8);
	}
	memcpy(to, from, length);
	return to + length;
}

static inline uint8_t *put_copy2(uint8_t *to, size_t offset, size_t length)
{
	*to++ = (uint8_t)((length - 1) << 2 | TAG_COPY2);
	*to++ = (uint8_t)offset;
	*to++ = (uint8_t)(offset >> 8);
	return to;
}

/* length is 4 at least, and stays so for the last element. */
static inline uint8_t *put_copy(uint8_t *to, size_t offset, size_t length)
{
	for (; length >= 68; length -= 64)
		to = put_copy2(to, offset, 64);
	if (length > 64) {
		to = put_copy2(to, offset, 60);
		length -= 60;
	}
	if (length > 11 || offset > 2047)
		return put_copy2(to, offset, length);
	*to++ = (uint8_t)(offset >> 8 << 5 | (length - 4) << 2 | TAG_COPY1);
	*to++ = (uint8_t)offset;
	return to;
}

/* How long the bytes at a and b are the same; b is the later one. */
static inline size_t common_length(const uint8_t *a, const uint8_t *b, const uint8_t *end)
{
	const uint8_t *begin = b;

	for (; end - b >= 8; a += 8, b += 8) {
		uint64_t x, y;

		memcpy(&x, a, 8);
		memcpy(&y, b, 8);
		if (x != y)
			break;
	}
	while (b < end && *a == *b) {
		a++;
		b++;
	}
	return (size_t)(b - begin);
}

size_t snappy_block_encode(
	struct snappy_table *table, const uint8_t *data, size_t n_bytes, uint8_t *space)
{
	const uint8_t *end = data + n_bytes;
	uint8_t *to = put_length(space, n_bytes);
	size_t at = 1, begin = 0; /* of the literal that grows */
	unsigned n_misses = 0;

	memset(table, 0, sizeof(*table));
	while (at + MARGIN <= n_bytes) {
		uint32_t word = load32(data + at);
		unsigned h = hash_of(word);
		size_t before = table->place[h], length;

		table->place[h] = (uint16_t)at;
		if (load32(data + before) != word) {
			at += 1 + (n_misses++ >> 5); /* what does not shrink is soon over */
			continue;
		}
		length = 4 + common_length(data + before + 4, data + at + 4, end);
		to = put_literal(to, data + begin, at - begin);
		to = put_copy(to, at - before, length);
		at += length;
		begin = at;
		n_misses = 0;
		if (at + MARGIN <= n_bytes)
			table->place[hash_of(load32(data + at - 1))] = (uint16_t)(at - 1);
	}
	to = put_literal(to, data + begin, n_bytes - begin);
	return (size_t)(to - space);
}

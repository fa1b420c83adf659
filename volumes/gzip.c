/* gzip coming in: any number of members, zeros behind them. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/auto.h"
#include "volumes/codec_impl.h"

#define OUT_BYTES (256 * 1024)

struct gunzip {
	z_stream z;
	bool is_inside; /* of a member */
	size_t n_members;
	uint8_t out[OUT_BYTES];
};

static void close_decoder(void *state)
{
	struct gunzip *g = state;

	if (g)
		inflateEnd(&g->z);
	free(g);
}

static int open_decoder(struct decoder *d)
{
	AUTO_FREE struct gunzip *g = malloc(sizeof(*g));

	if (!g)
		return -ENOMEM;
	memset(g, 0, offsetof(struct gunzip, out));
	if (inflateInit2(&g->z, MAX_WBITS + 16) != Z_OK)
		return -ENOMEM;
	d->state = TAKE_PTR(g);
	return 0;
}

/* Zeros up to the end of file are padding, as tapes have it. */
static int skip_padding(struct decoder *d)
{
	for (;;) {
		ssize_t n = input_have(&d->in, 1);
		const uint8_t *at = input_at(&d->in);

		if (n <= 0)
			return (int)n;
		for (ssize_t i = 0; i < n; i++)
			if (at[i])
				return decoder_bad(d, "something else behind the end");
		input_take(&d->in, (size_t)n);
	}
}

/* 1: a member begins here; 0: clean end; -errno. */
static int start_member(struct decoder *d, struct gunzip *g)
{
	ssize_t n = input_have(&d->in, 2);
	const uint8_t *at = input_at(&d->in);

	if (n < 0)
		return (int)n;
	if (n == 0 && g->n_members)
		return 0;
	if (n >= 1 && g->n_members && at[0] == 0)
		return skip_padding(d);
	if (n >= 2 && (at[0] != 0x1f || at[1] != 0x8b))
		return decoder_bad(
			d, g->n_members ? "something else behind the end" : "not in gzip format");
	if (n < 2)
		return decoder_bad(d, "cut short");
	inflateReset(&g->z);
	g->is_inside = true;
	g->n_members++;
	return 1;
}

/* Takes what is there. > 0: bytes of output; 0: none yet, or the member is over; -errno. */
static ssize_t inflate_some(struct decoder *d, struct gunzip *g)
{
	ssize_t n = input_have(&d->in, 1);
	int r;

	if (n < 0)
		return n;
	g->z.next_in = (Bytef *)input_at(&d->in);
	g->z.avail_in = (uInt)n;
	g->z.next_out = g->out;
	g->z.avail_out = OUT_BYTES;
	r = inflate(&g->z, Z_NO_FLUSH);
	input_take(&d->in, (size_t)n - g->z.avail_in);
	if (r == Z_MEM_ERROR)
		return -ENOMEM;
	if (r == Z_STREAM_END)
		g->is_inside = false;
	else if (r == Z_NEED_DICT || r == Z_DATA_ERROR || r == Z_STREAM_ERROR)
		return decoder_bad(d, g->z.msg ? g->z.msg : "damaged");
	else if (n == 0 && g->z.avail_out == OUT_BYTES)
		return decoder_bad(d, "cut short");
	return OUT_BYTES - g->z.avail_out;
}

static ssize_t next(struct decoder *d, const void **ret_data)
{
	struct gunzip *g = d->state;

	*ret_data = g->out;
	for (;;) {
		ssize_t n = g->is_inside ? 1 : start_member(d, g);

		if (n <= 0)
			return n;
		n = inflate_some(d, g);
		if (n != 0)
			return n;
	}
}

const struct decoder_type gzip_decoder = {
	.name = "gzip",
	.open = open_decoder,
	.next = next,
	.close = close_decoder,
};

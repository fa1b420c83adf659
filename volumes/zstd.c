/* zstd, both ways, by libzstd. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/auto.h"
#include "volumes/codec_impl.h"

#define OUT_BYTES (256 * 1024)

static uint32_t le32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ---- decoder --------------------------------------------------------------------------------- */

#define MAX_WINDOW_LOG 27 /* 128 MiB */

struct unzstd {
	ZSTD_DStream *z;
	bool is_inside; /* of a frame */
	size_t n_frames;
	uint8_t out[OUT_BYTES];
};

static void close_decoder(void *state)
{
	struct unzstd *u = state;

	if (u)
		ZSTD_freeDStream(u->z);
	free(u);
}

static int open_decoder(struct decoder *d)
{
	struct unzstd *u = malloc(sizeof(*u));

	if (!u)
		return -ENOMEM;
	memset(u, 0, offsetof(struct unzstd, out));
	d->state = u;
	u->z = ZSTD_createDStream();
	if (!u->z)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(u->z, ZSTD_d_windowLogMax, MAX_WINDOW_LOG);
	return 0;
}

/* 1: a frame with data begins here; 0: one without has been skipped; -errno. */
static int begin_frame(struct decoder *d, struct unzstd *u, uint32_t magic)
{
	const size_t n_head = 8;
	ssize_t n;
	int r;

	if (magic == ZSTD_MAGICNUMBER) {
		u->is_inside = true;
		return 1;
	}
	if ((magic & ZSTD_MAGIC_SKIPPABLE_MASK) != ZSTD_MAGIC_SKIPPABLE_START)
		return decoder_bad(
			d, u->n_frames ? "something else behind the end" : "not in zstd format");
	n = input_have(&d->in, n_head);
	if (n < 0)
		return (int)n;
	if ((size_t)n < n_head)
		return decoder_bad(d, "cut short");
	r = input_skip(&d->in, n_head + (uint64_t)le32(input_at(&d->in) + 4));
	if (r == 0)
		return decoder_bad(d, "cut short");
	return r < 0 ? r : 0;
}

/* 1: a frame begins here; 0: clean end; -errno. libzstd is not asked what a frame is: it would know
 * the formats before version 1.0 too. */
static int start_frame(struct decoder *d, struct unzstd *u)
{
	int r = 0;

	while (r == 0) {
		ssize_t n = input_have(&d->in, 4);

		if (n < 0)
			return (int)n;
		if (n == 0 && u->n_frames)
			return 0;
		if (n < 4)
			return decoder_bad(d, "cut short");
		r = begin_frame(d, u, le32(input_at(&d->in)));
		u->n_frames++;
	}
	return r;
}

/* Takes what is there. > 0: bytes of output; 0: none yet, or the frame is over; -errno. */
static ssize_t decode_some(struct decoder *d, struct unzstd *u)
{
	ssize_t n = input_have(&d->in, 1);
	ZSTD_outBuffer out = { .dst = u->out, .size = OUT_BYTES };
	ZSTD_inBuffer in = { .src = input_at(&d->in), .size = n < 0 ? 0 : (size_t)n };
	size_t r;

	if (n < 0)
		return n;
	r = ZSTD_decompressStream(u->z, &out, &in);
	input_take(&d->in, in.pos);
	if (ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
		return -ENOMEM;
	if (ZSTD_isError(r))
		return decoder_bad(d, ZSTD_getErrorName(r));
	if (r == 0)
		u->is_inside = false;
	else if (n == 0 && out.pos == 0)
		return decoder_bad(d, "cut short");
	return (ssize_t)out.pos;
}

static ssize_t next(struct decoder *d, const void **ret_data)
{
	struct unzstd *u = d->state;

	*ret_data = u->out;
	for (;;) {
		ssize_t n = u->is_inside ? 1 : start_frame(d, u);

		if (n <= 0)
			return n;
		n = decode_some(d, u);
		if (n != 0)
			return n;
	}
}

const struct decoder_type zstd_decoder = {
	.name = "zstd",
	.open = open_decoder,
	.next = next,
	.close = close_decoder,
};

/* ---- encoder --------------------------------------------------------------------------------- */

#define MAX_THREADS 4

static const struct {
	ZSTD_cParameter parameter;
	int value;
} settings[] = {
	{ ZSTD_c_compressionLevel,
		1 }, /* a tenth more bytes than 3, in little more than half the time */
	{ ZSTD_c_checksumFlag, 1 }, { ZSTD_c_windowLog, 21 }, /* bounds the memory of a thread */
};

struct zstd {
	ZSTD_CCtx *z;
	uint8_t out[OUT_BYTES];
};

static void close_encoder(void *state)
{
	struct zstd *s = state;

	if (s)
		ZSTD_freeCCtx(s->z);
	free(s);
}

static int open_encoder(struct encoder *e, unsigned n_threads)
{
	struct zstd *s = malloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	e->state = s;
	s->z = ZSTD_createCCtx();
	if (!s->z)
		return -ENOMEM;
	if (n_threads > MAX_THREADS)
		n_threads = MAX_THREADS;
	for (size_t i = 0; i < N_ELEMENTS(settings); i++)
		if (ZSTD_isError(
			    ZSTD_CCtx_setParameter(s->z, settings[i].parameter, settings[i].value)))
			return -EINVAL;
	if (n_threads > 1 &&
		(ZSTD_isError(ZSTD_CCtx_setParameter(s->z, ZSTD_c_nbWorkers, (int)n_threads)) ||
			ZSTD_isError(ZSTD_CCtx_setParameter(s->z, ZSTD_c_jobSize, 2 << 20))))
		return -EINVAL;
	return 0;
}

/* Until the input is taken, or, at the end, until nothing is left inside. */
static int compress(struct encoder *e, ZSTD_inBuffer in, ZSTD_EndDirective directive)
{
	struct zstd *s = e->state;
	size_t n_left;

	do {
		ZSTD_outBuffer out = { .dst = s->out, .size = OUT_BYTES };
		int r;

		n_left = ZSTD_compressStream2(s->z, &out, &in, directive);
		if (ZSTD_isError(n_left))
			return -ENOMEM; /* nothing else is left to go wrong */
		r = encoder_put(e, s->out, out.pos);
		if (r < 0)
			return r;
	} while (directive == ZSTD_e_end ? n_left > 0 : in.pos < in.size);
	return 0;
}

static int write_zstd(struct encoder *e, const void *data, size_t n_bytes)
{
	return compress(e, (ZSTD_inBuffer){ .src = data, .size = n_bytes }, ZSTD_e_continue);
}

static int end_zstd(struct encoder *e)
{
	return compress(e, (ZSTD_inBuffer){ .src = NULL }, ZSTD_e_end);
}

const struct encoder_type zstd_encoder = {
	.open = open_encoder,
	.write = write_zstd,
	.end = end_zstd,
	.close = close_encoder,
};

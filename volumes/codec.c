#include "volumes/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "volumes/codec_impl.h"

/* ---- raw ------------------------------------------------------------------------------------- */

static int open_raw(struct decoder *d)
{
	(void)d;
	return 0;
}

static ssize_t next_raw(struct decoder *d, const void **ret_data)
{
	ssize_t n = input_have(&d->in, 1);

	*ret_data = input_at(&d->in);
	if (n > 0)
		input_take(&d->in, (size_t)n);
	return n;
}

static int open_raw_encoder(struct encoder *e, unsigned n_threads)
{
	(void)e;
	(void)n_threads;
	return 0;
}

static int end_raw_encoder(struct encoder *e)
{
	(void)e;
	return 0;
}

static void close_raw(void *state)
{
	(void)state;
}

static const struct decoder_type raw_decoder = {
	.name = "raw",
	.open = open_raw,
	.next = next_raw,
	.close = close_raw,
};

static const struct encoder_type raw_encoder = {
	.open = open_raw_encoder,
	.write = encoder_put,
	.end = end_raw_encoder,
	.close = close_raw,
};

/* ---- the table ------------------------------------------------------------------------------- */

static const struct {
	const struct decoder_type *decoder;
	const struct encoder_type *encoder;
} codecs[N_CODECS] = {
	[CODEC_RAW] = { &raw_decoder, &raw_encoder },
	[CODEC_GZIP] = { &gzip_decoder, &gzip_encoder },
	[CODEC_ZSTD] = { &zstd_decoder, &zstd_encoder },
	[CODEC_S2] = { &s2_decoder, &s2_encoder },
};

static const struct {
	enum codec codec;
	uint8_t n_bytes, first_mask; /* of the first byte only the bits in the mask count */
	char bytes[11];
} magics[] = {
	{ CODEC_GZIP, 2, 0xff, "\x1f\x8b" },
	{ CODEC_ZSTD, 4, 0xff, "\x28\xb5\x2f\xfd" },
	{ CODEC_ZSTD, 4, 0xf0, "\x50\x2a\x4d\x18" },
	{ CODEC_S2, 10, 0xff, "\xff\x06\0\0S2sTwO" },
	{ CODEC_S2, 10, 0xff, "\xff\x06\0\0sNaPpY" },
};

#define MAX_MAGIC_BYTES 10
#define MOVE_BYTES (1024 * 1024)

int codec_by_name(const char *name)
{
	for (int i = 0; name && i < N_CODECS; i++)
		if (!strcmp(name, codecs[i].decoder->name))
			return i;
	return -EINVAL;
}

static enum codec codec_by_magic(const uint8_t *at, size_t n_bytes)
{
	for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++)
		if (n_bytes >= magics[i].n_bytes &&
			(at[0] & magics[i].first_mask) == (uint8_t)magics[i].bytes[0] &&
			!memcmp(at + 1, magics[i].bytes + 1, magics[i].n_bytes - 1U))
			return magics[i].codec;
	return CODEC_RAW;
}

/* ---- decoders -------------------------------------------------------------------------------- */

int decoder_bad(struct decoder *d, const char *why)
{
	snprintf(d->error, sizeof(d->error), "%s: %s", d->type->name, why);
	return -EBADMSG;
}

int decoder_open(int codec, int fd, struct decoder **ret)
{
	struct decoder *d;
	int r = 0;

	if (codec != CODEC_AUTO && (codec < 0 || codec >= N_CODECS))
		return -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->ended = 1;
	d->relay_fds[0] = d->relay_fds[1] = -1;
	input_init(&d->in, fd);
	if (codec != CODEC_AUTO) {
		d->type = codecs[codec].decoder;
		r = d->type->open(d);
	}
	if (r < 0)
		decoder_close(d);
	else
		*ret = d;
	return r;
}

static int detect(struct decoder *d)
{
	ssize_t n = input_have(&d->in, MAX_MAGIC_BYTES);

	if (n < 0)
		return (int)n;
	d->type = codecs[codec_by_magic(input_at(&d->in), (size_t)n)].decoder;
	return d->type->open(d);
}

ssize_t decoder_next(struct decoder *d, const void **ret_data)
{
	ssize_t n = d->ended;

	if (n <= 0)
		return n;
	n = d->type ? 0 : detect(d);
	if (n == 0)
		n = d->type->next(d, ret_data);
	if (n <= 0)
		d->ended = n;
	if (n < 0 && !d->error[0])
		snprintf(d->error, sizeof(d->error), "%s", strerrordesc_np((int)-n));
	return n;
}

const char *decoder_error(const struct decoder *d)
{
	return d->error;
}

void decoder_close(struct decoder *d)
{
	if (!d)
		return;
	if (d->type)
		d->type->close(d->state);
	input_done(&d->in);
	auto_fd(&d->relay_fds[0]);
	auto_fd(&d->relay_fds[1]);
	free(d);
}

/* ---- past this process ----------------------------------------------------------------------- */

static ssize_t splice_some(int from_fd, int to_fd, loff_t *offset, size_t n_bytes)
{
	ssize_t n;

	do
		n = splice(from_fd, NULL, to_fd, offset, n_bytes, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int open_relay(struct decoder *d)
{
	if (d->relay_fds[0] >= 0)
		return 0;
	if (pipe2(d->relay_fds, O_CLOEXEC) < 0)
		return -errno;
	fcntl(d->relay_fds[0], F_SETPIPE_SZ, MOVE_BYTES);
	return 0;
}

/* Up to n_bytes, which wait in a pipe of our own: the kernel holds a pipe's lock while it writes to
 * the file, and who fills the stream's pipe is not to wait for that. */
static ssize_t move_some(struct decoder *d, int to_fd, loff_t *offset, size_t n_bytes)
{
	ssize_t n_in = splice_some(d->in.fd, d->relay_fds[1], NULL, n_bytes), n_out = 0, n = 0;

	for (; n >= 0 && n_out < n_in; n_out += n)
		n = splice_some(d->relay_fds[0], to_fd, offset, (size_t)(n_in - n_out));
	return n < 0 ? n : n_in;
}

bool decoder_can_move(const struct decoder *d)
{
	return d->ended > 0 && d->type == &raw_decoder && d->in.from == d->in.to;
}

int64_t decoder_move(struct decoder *d, int to_fd, int64_t offset, int64_t n_bytes)
{
	int64_t n_left = n_bytes;
	ssize_t n = open_relay(d);

	if (n == 0)
		n = 1;
	while (n > 0 && n_left > 0) {
		n = move_some(d, to_fd, &offset, n_left < MOVE_BYTES ? (size_t)n_left : MOVE_BYTES);
		n_left -= n > 0 ? n : 0;
	}
	if (n < 0)
		d->ended = n;
	return n < 0 ? n : n_bytes - n_left;
}

/* ---- encoders -------------------------------------------------------------------------------- */

int encoder_put(struct encoder *e, const void *data, size_t n_bytes)
{
	const char *at = data;

	while (n_bytes > 0) {
		ssize_t n = write(e->fd, at, n_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

int encoder_open(enum codec codec, int fd, unsigned n_threads, struct encoder **ret)
{
	struct encoder *e;
	int r;

	if ((int)codec < 0 || codec >= N_CODECS)
		return -EINVAL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->fd = fd;
	e->ended = 1;
	e->type = codecs[codec].encoder;
	r = e->type->open(e, n_threads);
	if (r < 0)
		encoder_close(e);
	else
		*ret = e;
	return r;
}

int encoder_write(struct encoder *e, const void *data, size_t n_bytes)
{
	int r;

	if (e->ended <= 0)
		return e->ended < 0 ? e->ended : -EINVAL;
	r = e->type->write(e, data, n_bytes);
	if (r < 0)
		e->ended = r;
	return r;
}

int encoder_end(struct encoder *e)
{
	if (e->ended > 0)
		e->ended = e->type->end(e);
	return e->ended;
}

void encoder_close(struct encoder *e)
{
	if (!e)
		return;
	e->type->close(e->state);
	free(e);
}

/* codec_impl.h - what the codecs share among themselves: one vtable for each direction. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "volumes/input.h"

struct decoder {
	const struct decoder_type *type; /* NULL: not yet known, CODEC_AUTO */
	struct input in;
	void *state;
	int relay_fds[2]; /* of decoder_move: a pipe; -1 before */
	ssize_t ended; /* what decoder_next says once it has said 0 or less; 1 before */
	char error[160];
};

/* next answers as decoder_next does, and is not called again after 0 or an error. close gets any
 * state that open has left, NULL too. */
struct decoder_type {
	const char *name;
	int (*open)(struct decoder *d);
	ssize_t (*next)(struct decoder *d, const void **ret_data);
	void (*close)(void *state);
};

struct encoder {
	const struct encoder_type *type;
	int fd;
	void *state;
	int ended; /* as of decoder: 1 before the end */
};

struct encoder_type {
	int (*open)(struct encoder *e, unsigned n_threads);
	int (*write)(struct encoder *e, const void *data, size_t n_bytes);
	int (*end)(struct encoder *e);
	void (*close)(void *state);
};

extern const struct decoder_type gzip_decoder, zstd_decoder, s2_decoder;
extern const struct encoder_type gzip_encoder, zstd_encoder, s2_encoder;

/* Notes why and returns -EBADMSG. */
int decoder_bad(struct decoder *d, const char *why);

/* All of it, to the encoder's descriptor. 0 or -errno of write(2). */
int encoder_put(struct encoder *e, const void *data, size_t n_bytes);

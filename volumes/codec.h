/* codec.h - the encodings that streams of volumes travel in: raw, gzip, zstd, s2.
 *
 * Decoders trust nothing they read. Memory: 1 MB, 10 MB for s2, for zstd what the frame's window
 * asks for (128 MiB at most) beside it. Encoders need 32 MB at most. A stream is used by one thread
 * at a time; an encoder's own threads are made by encoder_open (zstd's: by the first write), need
 * no file and no descriptor, and end in encoder_close. Errors: 0 or -errno, sticky: a stream that
 * failed or ended gives the same answer for ever. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum codec { CODEC_RAW, CODEC_GZIP, CODEC_ZSTD, CODEC_S2, N_CODECS };

/* For decoder_open: by the first bytes. What is no gzip, zstd or s2 is raw. */
#define CODEC_AUTO (-1)

struct decoder;
struct encoder;

/* Exactly "raw", "gzip", "zstd" or "s2", as in requests; else, and for NULL, -EINVAL. */
int codec_by_name(const char *name);

/* codec: an enum codec or CODEC_AUTO. fd is read from its present position, blocking, by
 * decoder_next only; it stays the caller's and must outlive the decoder. Bytes past a damaged place
 * may have been read. -EINVAL, -ENOMEM. */
int decoder_open(int codec, int fd, struct decoder **ret);

/* How many bytes now lie at *ret_data, valid until the next call with this decoder. 0 is the clean
 * end: every frame complete, its checksum right, end of file seen behind it. -EBADMSG: damaged, cut
 * short, or something else behind the end. Otherwise read(2)'s error, or -ENOMEM. An s2 stream has
 * no end mark: one that is cut between two blocks looks complete. Nothing at all is a complete raw
 * stream, and one cut short in the others. */
ssize_t decoder_next(struct decoder *d, const void **ret_data);

/* Whether what comes behind the bytes that decoder_next has given can go to a file unseen: in a raw
 * stream. */
bool decoder_can_move(const struct decoder *d);

/* The next n_bytes go to the file to_fd at offset, by the kernel alone. How many have, fewer only at the
 * end of the stream; -errno of splice(2) or pipe(2), and to_fd has some of them. */
int64_t decoder_move(struct decoder *d, int to_fd, int64_t offset, int64_t n_bytes);

/* For a person, why decoder_next failed; lives as long as the decoder. "" if it did not. */
const char *decoder_error(const struct decoder *d);
void decoder_close(struct decoder *d); /* NULL allowed */

/* fd is written to by encoder_write and encoder_end only, in the caller's thread, blocking, and
 * stays the caller's. Whoever does not ignore SIGPIPE gets it. n_threads compress beside the
 * caller's (gzip: 16 at most, zstd: 2 to 4, the others: none); 0 means that the caller's does it all.
 * -EINVAL, -ENOMEM, -EAGAIN. */
int encoder_open(enum codec codec, int fd, unsigned n_threads, struct encoder **ret);

/* The bytes may be on their way for some time yet. 0, write(2)'s error (-EPIPE), -ENOMEM. */
int encoder_write(struct encoder *e, const void *data, size_t n_bytes);

/* Once, after the last write: when it returns 0 a whole stream has been written to fd. */
int encoder_end(struct encoder *e);

/* Without encoder_end before it: what has been written so far is a stream cut short. NULL allowed.
 */
void encoder_close(struct encoder *e);

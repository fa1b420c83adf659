/* decoder_next: the first byte of the input says as which codec, the rest is the stream. One more
 * value of it: a block of S2, which no checksum protects from being fuzzed. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "volumes/codec.h"
#include "volumes/s2_block.h"

/* Some bytes may mean gigabytes; that the rest decodes is of no interest. */
#define MAX_OUT_BYTES ((size_t)8 << 20)
#define MAX_KEPT_BYTES ((size_t)64 << 10)

struct output {
	size_t n_bytes; /* all of them */
	uint8_t kept[MAX_KEPT_BYTES];
};

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(write(fd, data, size) == (ssize_t)size);
	FUZZ_CHECK(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

static void keep(struct output *out, const uint8_t *data, size_t n)
{
	if (out->n_bytes + n <= MAX_KEPT_BYTES)
		memcpy(out->kept + out->n_bytes, data, n);
	else
		memcpy(out->kept, data,
			n < MAX_KEPT_BYTES ? n : MAX_KEPT_BYTES); /* it is all there */
	out->n_bytes += n;
}

static ssize_t decode(int codec, int fd, struct output *out)
{
	struct decoder *d = NULL;
	const void *data;
	ssize_t n;

	out->n_bytes = 0;
	FUZZ_CHECK(decoder_open(codec, fd, &d) == 0);
	while ((n = decoder_next(d, &data)) > 0 && out->n_bytes < MAX_OUT_BYTES)
		keep(out, data, (size_t)n);
	FUZZ_CHECK(n >= 0 || n == -EBADMSG);
	FUZZ_CHECK(n > 0 || decoder_next(d, &data) == n);
	FUZZ_CHECK((n < 0) == (*decoder_error(d) != '\0'));
	decoder_close(d);
	return n;
}

/* What was decoded can be encoded, and means the same then. */
static void check_round_trip(enum codec codec, const struct output *out)
{
	static struct output again;
	struct encoder *e = NULL;
	int fd = file_of(NULL, 0);

	FUZZ_CHECK(encoder_open(codec, fd, 0, &e) == 0);
	FUZZ_CHECK(encoder_write(e, out->kept, out->n_bytes) == 0);
	FUZZ_CHECK(encoder_end(e) == 0);
	encoder_close(e);
	FUZZ_CHECK(lseek(fd, 0, SEEK_SET) == 0);
	FUZZ_CHECK(decode(codec, fd, &again) == 0);
	FUZZ_CHECK(again.n_bytes == out->n_bytes);
	FUZZ_CHECK(!memcmp(again.kept, out->kept, out->n_bytes));
	close(fd);
}

static void check_block(const uint8_t *data, size_t size)
{
	size_t n_out = 0;
	int r = s2_block_length(data, size, MAX_KEPT_BYTES, &n_out), bad;
	uint8_t *space;

	FUZZ_CHECK(r == -EBADMSG || (r > 0 && r <= 5 && n_out <= MAX_KEPT_BYTES));
	if (r < 0)
		return;
	space = malloc(n_out + S2_BLOCK_SLOP);
	FUZZ_CHECK(space);
	memset(space, 0, n_out + S2_BLOCK_SLOP);
	bad = s2_block_decode(data + r, size - (size_t)r, true, space, n_out);
	FUZZ_CHECK(bad == 0 || bad == -EBADMSG);
	free(space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct output out;
	int codec, fd;

	if (size == 0)
		return 0;
	codec = data[0] % (N_CODECS + 2) + CODEC_AUTO;
	if (codec == N_CODECS) {
		check_block(data + 1, size - 1);
		return 0;
	}
	fd = file_of(data + 1, size - 1);
	if (decode(codec, fd, &out) == 0 && out.n_bytes <= MAX_KEPT_BYTES)
		check_round_trip(codec <= CODEC_RAW ? CODEC_S2 : (enum codec)codec, &out);
	close(fd);
	return 0;
}

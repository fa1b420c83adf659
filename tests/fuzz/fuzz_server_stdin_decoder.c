/* Whatever a client sends on a hijacked connection gives the same events, wherever it is cut.
 * Input: two bytes, where and how to cut; then the stream. */
#include "fuzz.h"

#include <string.h>

#include "base/buf.h"
#include "server/stdin_decoder.h"

struct record {
	struct buf text;
	char last;
};

/* Neighbouring pieces of data count as one. */
static void note(struct record *record, char kind)
{
	if (kind != 'D' || record->last != 'D')
		buf_addf(&record->text, "\n%c", kind);
	record->last = kind;
}

static void on_data(void *arg, const char *bytes, size_t n_bytes)
{
	struct record *record = arg;

	FUZZ_CHECK(n_bytes > 0);
	note(record, 'D');
	buf_add(&record->text, bytes, n_bytes);
}

static void on_end(void *arg)
{
	note(arg, 'E');
}

static void on_signal(void *arg, int64_t number)
{
	struct record *record = arg;

	note(record, 'S');
	buf_addf(&record->text, "%jd", (intmax_t)number);
}

static void on_resize(void *arg, uint32_t columns, uint32_t rows)
{
	struct record *record = arg;

	FUZZ_CHECK(columns <= 65535 && rows <= 65535);
	note(record, 'W');
	buf_addf(&record->text, "%ux%u", columns, rows);
}

static const struct stdin_events events = { on_data, on_end, on_signal, on_resize };

static int decode(
	struct record *record, const char *bytes, size_t size, size_t n_first, size_t n_each)
{
	struct stdin_decoder decoder;
	size_t n = n_first;
	int r = 0;

	*record = (struct record){ 0 };
	buf_init(&record->text, 1 << 26);
	stdin_decoder_init(&decoder, &events, record);
	for (size_t at = 0; at < size && r == 0; at += n, n = n_each) {
		if (n > size - at)
			n = size - at;
		r = stdin_decoder_feed(&decoder, bytes + at, n);
	}
	FUZZ_CHECK(!buf_failed(&record->text));
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record whole, cut;
	const char *bytes = (const char *)data + 2;
	int r;

	if (size < 2)
		return 0;
	size -= 2;
	r = decode(&whole, bytes, size, size, 1);
	FUZZ_CHECK(decode(&cut, bytes, size, data[0], data[1] + 1u) == r);
	FUZZ_CHECK(cut.text.len == whole.text.len);
	FUZZ_CHECK(!memcmp(buf_str(&cut.text), buf_str(&whole.text), whole.text.len));
	buf_done(&cut.text);
	buf_done(&whole.text);
	return 0;
}

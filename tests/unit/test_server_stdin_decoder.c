#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/buf.h"
#include "server/stdin_decoder.h"

/* ---- events as text: data D[..], end E, signal S<n>, size W<columns>x<rows>; neighbouring data is one ---- */

struct record {
	struct buf text, data;
};

static void flush(struct record *record)
{
	if (record->data.len) {
		buf_adds(&record->text, "D[");
		buf_add(&record->text, record->data.data, record->data.len);
		buf_adds(&record->text, "] ");
	}
	buf_clear(&record->data);
}

static void on_data(void *arg, const char *bytes, size_t n_bytes)
{
	struct record *record = arg;

	assert_true(n_bytes > 0);
	buf_add(&record->data, bytes, n_bytes);
}

static void on_end(void *arg)
{
	flush(arg);
	buf_adds(&((struct record *)arg)->text, "E ");
}

static void on_signal(void *arg, int64_t number)
{
	flush(arg);
	buf_addf(&((struct record *)arg)->text, "S%jd ", (intmax_t)number);
}

static void on_resize(void *arg, uint32_t columns, uint32_t rows)
{
	flush(arg);
	buf_addf(&((struct record *)arg)->text, "W%ux%u ", columns, rows);
}

static const struct stdin_events events = { on_data, on_end, on_signal, on_resize };

static void record_init(struct record *record)
{
	buf_init(&record->text, 1 << 24);
	buf_init(&record->data, 1 << 24);
}

static void record_done(struct record *record)
{
	buf_done(&record->text);
	buf_done(&record->data);
}

/* Feeds text in pieces: the first of n_first bytes, the others of n_each. An error ends the events with X. */
static void decode(
	struct record *record, const char *text, size_t n_bytes, size_t n_first, size_t n_each)
{
	struct stdin_decoder decoder;
	size_t n = n_first;
	int r = 0;

	buf_clear(&record->text);
	stdin_decoder_init(&decoder, &events, record);
	for (size_t at = 0; at < n_bytes && r == 0; at += n, n = n_each) {
		if (n > n_bytes - at)
			n = n_bytes - at;
		r = stdin_decoder_feed(&decoder, text + at, n);
	}
	flush(record);
	if (r < 0) {
		assert_int_equal(r, -EINVAL);
		buf_adds(&record->text, "X ");
	}
}

static void expect(const char *text, size_t n_bytes, const char *want, size_t n_want)
{
	struct record record;

	record_init(&record);
	for (size_t cut = 0; cut <= n_bytes; cut++) {
		/* in two pieces at each place, and (at 0) byte by byte */
		decode(&record, text, n_bytes, cut, cut ? n_bytes : 1);
		if (record.text.len != n_want || memcmp(buf_str(&record.text), want, n_want))
			fail_msg("%s\ncut at %zu: %s\nnot: %s", text, cut, buf_str(&record.text),
				want);
	}
	record_done(&record);
}

#define P "{\"process_id\":\"p\","

static const struct {
	const char *text, *want;
} rows[] = {
	{ "", "" },
	{ " \r\n\t", "" },
	{ P "\"source\":0,\"data\":\"hello\\n\"}\n", "D[hello\n] " },
	{ P "\"source\":0,\"data\":\"a\"}" P "\"source\":0,\"data\":\"b\"}", "D[ab] " },
	{ P "\"source\":0}\n", "E " },
	{ P "\"source\":0,\"data\":\"a\"}\n" P "\"source\":0}\n", "D[a] E " },
	{ P "\"signal\":0}\n", "S0 " },
	{ P "\"signal\":1}\n", "S1 " },
	{ P "\"signal\":2}\n", "S2 " },
	{ P "\"tty\":{\"window_size\":{\"columns\":80,\"rows\":24}}}\n", "W80x24 " },
	{ P "\"tty\":{\"window_size\":{\"rows\":24,\"columns\":80}}}\n", "W80x24 " },
	{ P "\"tty\":{\"window_size\":{\"columns\":99999,\"rows\":65536}}}\n", "W65535x65535 " },
	{ P "\"source\":0}" P "\"signal\":1}", "E S1 " },
	{ "{\"data\":\"x\",\"source\":0,\"process_id\":\"p\"}", "D[x] " },
	/* keys in any case, unknown ones, white space */
	{ "{\"DATA\":\"x\",\"Source\":0}", "D[x] " },
	{ " { \"other\" : [ 1 , { \"data\" : \"no\" } , [ ] , { } ] , \"data\" : \"x\" } ",
		"D[x] " },
	{ "{\"other\":{\"data\":\"no\",\"signal\":1},\"source\":0}", "E " },
	{ "{\"x\":-1.5e+3,\"y\":true,\"z\":false,\"data\":\"x\"}", "D[x] " },
	{ "{\"window_size\":{\"columns\":1,\"rows\":1},\"source\":0}", "E " },
	{ "{\"tty\":{\"columns\":1,\"rows\":1,\"x\":{\"columns\":7}},\"data\":\"x\"}", "D[x] " },
	/* null is absent */
	{ P "\"source\":0,\"data\":null}", "E " },
	{ P "\"signal\":null,\"data\":\"x\"}", "D[x] " },
	{ P "\"tty\":null,\"data\":\"x\"}", "D[x] " },
	/* an empty text is no end */
	{ P "\"source\":0,\"data\":\"\"}", "" },
	/* nothing known */
	{ "{}", "E " },
	{ "{\"x\":1}", "E " },
	/* escapes */
	{ "{\"data\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "D[\"\\/\b\f\n\r\t] " },
	{ "{\"data\":\"\\u003c\\u003E\\u0026\"}", "D[<>&] " },
	{ "{\"data\":\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"}",
		"D[\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf] " },
	{ "{\"data\":\"\\ud83d\\ude00\\uD83D\\uDE00\"}", "D[\xf0\x9f\x98\x80\xf0\x9f\x98\x80] " },
	{ "{\"data\":\"\\ud800\\udc00\\udbff\\udfff\"}", "D[\xf0\x90\x80\x80\xf4\x8f\xbf\xbf] " },
	/* half a pair is the replacement character */
	{ "{\"data\":\"a\\ud83d\"}", "D[a\xef\xbf\xbd] " },
	{ "{\"data\":\"\\ude00b\"}",
		"D[\xef\xbf\xbd"
		"b] " },
	{ "{\"data\":\"\\ud83dx\"}", "D[\xef\xbf\xbdx] " },
	{ "{\"data\":\"\\ud83d\\n\"}", "D[\xef\xbf\xbd\n] " },
	{ "{\"data\":\"\\ud83d\\u0041\"}",
		"D[\xef\xbf\xbd"
		"A] " },
	{ "{\"data\":\"\\ud83d\\ud83d\\ude00\"}", "D[\xef\xbf\xbd\xf0\x9f\x98\x80] " },
	{ "{\"d\\u0061ta\":\"x\"}", "D[x] " },
	{ "{\"x\\ud800\":1,\"data\":\"x\"}", "D[x] " },
	/* bytes go through as they are */
	{ "{\"data\":\"\xc3\xa9\xff\xfe\x80\x7f\"}", "D[\xc3\xa9\xff\xfe\x80\x7f] " },
	/* after garbage nothing more comes */
	{ "x", "X " },
	{ "[]", "X " },
	{ "1", "X " },
	{ "\"data\"", "X " },
	{ "null", "X " },
	{ "}", "X " },
	{ "{\"data\":\"a\"}}", "D[a] X " },
	{ "{\"data\":\"a\"},", "D[a] X " },
	{ "{\"data\":\"a\"}garbage{\"data\":\"b\"}", "D[a] X " },
	{ "{,}", "X " },
	{ "{\"a\"}", "X " },
	{ "{\"a\":}", "X " },
	{ "{\"a\":1,}", "X " },
	{ "{\"a\":1 2}", "X " },
	{ "{\"a\":1 \"b\":2}", "X " },
	{ "{\"a\" 1}", "X " },
	{ "{a:1}", "X " },
	{ "{'a':1}", "X " },
	{ "{\"a\":[1,]}", "X " },
	{ "{\"a\":[1}", "X " },
	{ "{\"a\":{\"b\":1]}", "X " },
	{ "{\"a\":nul}", "X " },
	{ "{\"a\":nullx}", "X " },
	{ "{\"a\":True}", "X " },
	{ "{\"a\":0x10}", "X " },
	{ "{\"data\":\"a\nb\"}", "D[a] X " },
	{ "{\"data\":\"a\\x\"}", "D[a] X " },
	{ "{\"data\":\"a\\u12g4\"}", "D[a] X " },
	{ "HTTP/1.1 200 OK\r\n\r\n", "X " },
	/* cut off: what was there is passed on, nothing else */
	{ "{\"data\":\"abc", "D[abc] " },
	{ "{\"data\":\"abc\\", "D[abc] " },
	{ "{\"data\":\"abc\\u00", "D[abc] " },
	{ "{\"data\":\"abc\"", "D[abc] " },
	{ "{\"signal\":1", "" },
	{ "{\"source\":0", "" },
};

static void messages_become_events_wherever_they_are_cut(void **state UNUSED)
{
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		expect(rows[i].text, strlen(rows[i].text), rows[i].want, strlen(rows[i].want));
}

static void a_zero_byte_can_be_sent(void **state UNUSED)
{
	static const char text[] = "{\"data\":\"a\\u0000b\"}", want[] = "D[a\0b] ";

	expect(text, sizeof(text) - 1, want, sizeof(want) - 1);
}

static void a_bare_zero_byte_is_garbage(void **state UNUSED)
{
	static const char text[] = "{\"data\":\"a\0b\"}";

	expect(text, sizeof(text) - 1, "D[a] X ", 7);
}

/* As Go writes a terminal without a size, and a size of nothing by nothing: neither ends stdin. */
static void a_terminal_without_a_size_is_no_end_of_stdin(void **state UNUSED)
{
	static const char *const texts[] = { P "\"tty\":{}}", P "\"tty\":{\"window_size\":{}}}",
		P "\"tty\":{\"window_size\":null}}" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		struct record record;

		record_init(&record);
		decode(&record, texts[i], strlen(texts[i]), strlen(texts[i]), 1);
		if (strchr(buf_str(&record.text), 'E'))
			fail_msg("%s: %s", texts[i], buf_str(&record.text));
		record_done(&record);
	}
}

static void numbers_that_nobody_means_are_no_known_signal(void **state UNUSED)
{
	static const char *const numbers[] = { "-1", "1.5", "1e0", "99999999999999999999", "true" };

	for (size_t i = 0; i < N_ELEMENTS(numbers); i++) {
		struct record record;
		char text[100];

		snprintf(text, sizeof(text), P "\"signal\":%s}", numbers[i]);
		record_init(&record);
		decode(&record, text, strlen(text), strlen(text), 1);
		if (strstr(buf_str(&record.text), "S0") || strstr(buf_str(&record.text), "S1"))
			fail_msg("%s: %s", text, buf_str(&record.text));
		record_done(&record);
	}
}

static void one_message_may_be_of_any_length(void **state UNUSED)
{
	const size_t n_data = 5 << 20;
	struct record record;
	struct buf text;

	buf_init(&text, n_data + 100);
	buf_adds(&text, "{\"data\":\"");
	for (size_t i = 0; i < n_data; i++)
		buf_add(&text, &"abcdefghijklmnopqrstuvw"[i % 23], 1);
	buf_adds(&text, "\"}");
	record_init(&record);
	decode(&record, text.data, text.len, 1000, 65536);
	assert_int_equal(record.text.len, n_data + 4);
	assert_memory_equal(record.text.data + 2, text.data + 9, n_data);
	record_done(&record);
	buf_done(&text);
}

static void a_long_key_or_number_is_passed_over(void **state UNUSED)
{
	struct record record;
	struct buf text;

	buf_init(&text, 1 << 20);
	buf_adds(&text, "{\"data");
	for (int i = 0; i < 10000; i++)
		buf_adds(&text, "x");
	buf_adds(&text, "\":1");
	for (int i = 0; i < 10000; i++)
		buf_adds(&text, "0");
	buf_adds(&text, ",\"data\":\"x\"}");
	record_init(&record);
	decode(&record, text.data, text.len, 7, 1000);
	assert_string_equal(buf_str(&record.text), "D[x] ");
	record_done(&record);
	buf_done(&text);
}

static void nesting_has_an_end(void **state UNUSED)
{
	for (int depth = 1; depth < 100; depth++) {
		struct record record;
		struct buf text;

		buf_init(&text, 1 << 20);
		buf_adds(&text, "{\"a\":");
		for (int i = 1; i < depth; i++)
			buf_adds(&text, i % 2 ? "[" : "{\"b\":");
		buf_adds(&text, "1");
		for (int i = depth - 1; i >= 1; i--)
			buf_adds(&text, i % 2 ? "]" : "}");
		buf_adds(&text, ",\"data\":\"x\"}");
		record_init(&record);
		decode(&record, text.data, text.len, text.len, 1);
		assert_string_equal(buf_str(&record.text), depth < DECODER_DEPTH ? "D[x] " : "X ");
		record_done(&record);
		buf_done(&text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_become_events_wherever_they_are_cut),
		cmocka_unit_test(a_zero_byte_can_be_sent),
		cmocka_unit_test(a_bare_zero_byte_is_garbage),
		cmocka_unit_test(a_terminal_without_a_size_is_no_end_of_stdin),
		cmocka_unit_test(numbers_that_nobody_means_are_no_known_signal),
		cmocka_unit_test(one_message_may_be_of_any_length),
		cmocka_unit_test(a_long_key_or_number_is_passed_over),
		cmocka_unit_test(nesting_has_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

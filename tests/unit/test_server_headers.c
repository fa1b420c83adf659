#include "server/headers.h"

#include <string.h>

#include "base/auto.h"
#include "unit.h"

struct row {
	const char *headers[6]; /* key, value, ... */
	const char *fault; /* how it begins; NULL: none */
	bool is_http_1_0, has_body, is_browser;
};

static void each_set_of_headers_is_judged(void **state)
{
	static const struct row rows[] = {
		{ .headers = { "Host", "x" } },
		{ .headers = { "host", "x", "content-LENGTH", "5" }, .has_body = true },
		{ .headers = { "Host", "x", "Content-Length", "0" } },
		{ .headers = { "Host", "x", "Transfer-Encoding", "Chunked" }, .has_body = true },
		{ .headers = { "X", "y" }, .fault = "exactly one Host" },
		{ .headers = { "X", "y" }, .is_http_1_0 = true },
		{ .headers = { "Host", "x", "Host", "x" }, .fault = "exactly one Host" },
		{ .headers = { "Host", "x", "Content-Length", "-1" },
			.fault = "Content-Length: not" },
		{ .headers = { "Host", "x", "Content-Length", "" },
			.fault = "Content-Length: not" },
		{ .headers = { "Host", "x", "Content-Length", "12345678901234567890" },
			.fault = "Content-Length: not" },
		{ .headers = { "Host", "x", "Transfer-Encoding", "gzip, chunked" },
			.fault = "Transfer-Encoding: only" },
		{ .headers = { "Host", "x", "Transfer-Encoding", "chunked" },
			.is_http_1_0 = true,
			.fault = "Transfer-Encoding: not in" },
		{ .headers = { "Content-Length", "1", "Content-Length", "1", "Host", "x" },
			.fault = "Content-Length: given twice" },
		{ .headers = { "Content-Length", "1", "Transfer-Encoding", "chunked", "Host", "x" },
			.fault = "Content-Length and Transfer-Encoding" },
		{ .headers = { "Host", "x", "bad name", "y" }, .fault = "a header's name" },
		{ .headers = { "Host", "x", "", "y" }, .fault = "a header's name" },
		{ .headers = { "Host", "x", "origin", "null" }, .is_browser = true },
		{ .headers = { "Host", "x", "Sec-Fetch-Site", "none" } },
		{ .headers = { "Host", "x", "Sec-Fetch-Site", "same-origin" }, .is_browser = true },
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct headers headers = { 0 };
		const char *fault;

		for (int k = 0; k < 6 && rows[i].headers[k]; k += 2)
			headers_note(&headers, rows[i].headers[k], rows[i].headers[k + 1]);
		fault = headers_fault(&headers, rows[i].is_http_1_0);
		if (!rows[i].fault != !fault ||
			(fault && strncmp(fault, rows[i].fault, strlen(rows[i].fault)) != 0))
			fail_msg("row %zu: %s", i, fault ? fault : "no fault");
		if (!fault && headers.has_body != (rows[i].has_body && !rows[i].is_http_1_0))
			fail_msg("row %zu: has_body is %d", i, headers.has_body);
		assert_int_equal(headers.from_browser != NULL, rows[i].is_browser);
	}
}

static void what_is_expected_is_known_or_not(void **state)
{
	struct headers headers = { 0 };

	(void)state;
	headers_note(&headers, "Expect", "100-Continue");
	assert_false(headers.bad_expect);
	headers_note(&headers, "Expect", "200-ok");
	assert_true(headers.bad_expect);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_set_of_headers_is_judged),
		cmocka_unit_test(what_is_expected_is_known_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

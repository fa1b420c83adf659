/* headers.h - what the headers of a request say about its framing and about who sends it: the
 * library lets through what proxies and servers could understand differently (RFC 9112, 6.3), and
 * what only web pages send. Pure; any thread. */
#pragma once
#include <stdbool.h>

struct headers {
	int n_host, n_length, n_encoding;
	bool bad_length, bad_encoding, bad_expect, has_body;
	bool bad_name, wants_close;
	const char *from_browser; /* a header that only browsers send; borrowed */
};

/* One header; begin with all members zero. */
void headers_note(struct headers *headers, const char *key, const char *value);
/* NULL if the framing is sound, else what is wrong with it. */
const char *headers_fault(const struct headers *headers, bool is_http_1_0);

#include "server/headers.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"

static bool is_browser_header(const char *key, const char *value)
{
	static const char *const names[] = { "Origin", "Referer", "Sec-Fetch-Mode",
		"Sec-Fetch-Dest", "Sec-WebSocket-Key", "Access-Control-Request-Method",
		"Access-Control-Request-Headers" };

	if (!strcasecmp(key, "Sec-Fetch-Site"))
		return strcasecmp(value, "none") != 0;
	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		if (!strcasecmp(key, names[i]))
			return true;
	return false;
}

void headers_note(struct headers *headers, const char *key, const char *value)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

	headers->bad_name |= !*key || strspn(key, token) != strlen(key);
	if (!strcasecmp(key, "Host"))
		headers->n_host++;
	if (!strcasecmp(key, "Content-Length")) {
		headers->n_length++;
		headers->bad_length |= !*value || strlen(value) > 19 ||
			strspn(value, "0123456789") != strlen(value);
		headers->has_body |= strspn(value, "0") != strlen(value);
	}
	if (!strcasecmp(key, "Transfer-Encoding")) {
		headers->n_encoding++;
		headers->bad_encoding |= strcasecmp(value, "chunked") != 0;
		headers->has_body = true;
	}
	if (!strcasecmp(key, "Connection"))
		headers->wants_close |= !strcasecmp(value, "close");
	if (!strcasecmp(key, "Expect"))
		headers->bad_expect |= strcasecmp(value, "100-continue") != 0;
	if (is_browser_header(key, value))
		headers->from_browser = key;
}

const char *headers_fault(const struct headers *headers, bool is_http_1_0)
{
	if (headers->bad_name)
		return "a header's name is no token (RFC 9110)";
	if (headers->n_host > 1 || (headers->n_host == 0 && !is_http_1_0))
		return "exactly one Host header is wanted";
	if (headers->n_length > 1)
		return "Content-Length: given twice";
	if (headers->bad_length)
		return "Content-Length: not a number";
	if (headers->n_encoding > 1 || headers->bad_encoding)
		return "Transfer-Encoding: only chunked is known";
	if (headers->n_encoding && headers->n_length)
		return "Content-Length and Transfer-Encoding exclude each other";
	if (headers->n_encoding && is_http_1_0)
		return "Transfer-Encoding: not in HTTP/1.0";
	return NULL;
}

/* reply.h - how answers look; the only place that turns a kind of error into an HTTP status. */
#pragma once
#include <stddef.h>

struct err;
struct request;

/* The error document and a newline, a shorter one where there is no memory for it. The caller frees *ret_owned, and not
 * the text. */
const char *error_document(const struct request *request, const struct err *err, char **ret_owned);

/* server/http.c: bytes through the HTTP library, with the usual headers; allow may be NULL. */
void reply_bytes(struct request *request, unsigned status, const char *content_type,
	const char *allow, const char *text, size_t n_bytes);

/* reply.h - how answers look; the only place that turns a kind of error into an HTTP status. */
#pragma once
#include <stddef.h>

struct err;
struct request;

/* The error document and a newline; the caller frees; NULL: no memory. */
char *error_document(const struct request *request, const struct err *err);

/* server/http.c: bytes through the HTTP library, with the usual headers; allow may be NULL. */
void reply_bytes(struct request *request, unsigned status, const char *content_type,
	const char *allow, const char *text, size_t n_bytes);

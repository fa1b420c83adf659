/* err.h - why something failed, for three readers: policy (kind), kernel (code), person (msg).
 * Functions return 0 or a negative errno and fill one struct err that the caller owns. Nothing is
 * allocated, so it works in the shim and in threads, and cannot fail itself.
 * The kinds stand in api-spec/errors.def, beside the HTTP status that server/reply.c gives them. */
#pragma once

enum err_kind {
	ERR_NONE,
#define ERROR_KIND(kind, status, type) ERR_##kind,
#include "api-spec/errors.def"
#undef ERROR_KIND
	N_ERR_KINDS
};

struct err {
	enum err_kind kind;
	int code; /* positive errno */
	char msg[512];
};

/* Returns -code, or -EIO if code is 0: never 0. err may be NULL. */
int err_set(struct err *err, enum err_kind kind, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ERR_SYSTEM with ": <text of the errno>" behind the message. ret is a negative errno; returns it.
 */
int err_system(struct err *err, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "fmt: " in front of the message. Returns ret. */
int err_context(struct err *err, int ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

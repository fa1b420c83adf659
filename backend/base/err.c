#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, enum err_kind kind, int code, const char *fmt, ...)
{
	va_list ap;

	if (code <= 0)
		code = EIO;
	if (!err)
		return -code;
	err->kind = kind;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return -code;
}

int err_system(struct err *err, int ret, const char *fmt, ...)
{
	const char *text = strerrordesc_np(-ret);
	char what[sizeof(err->msg)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(err, ERR_SYSTEM, -ret, "%.400s: %s", what, text ? text : "unknown error");
}

int err_context(struct err *err, int ret, const char *fmt, ...)
{
	char front[sizeof(err->msg)], rest[sizeof(err->msg)];
	va_list ap;

	if (!err)
		return ret;
	va_start(ap, fmt);
	vsnprintf(front, sizeof(front), fmt, ap);
	va_end(ap);
	memcpy(rest, err->msg, sizeof(rest));
	snprintf(err->msg, sizeof(err->msg), "%.200s: %.300s", front, rest);
	return ret;
}

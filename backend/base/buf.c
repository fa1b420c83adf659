#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *buf, size_t cap_bytes)
{
	*buf = (struct buf){ .cap_bytes = cap_bytes };
}

void buf_done(struct buf *buf)
{
	free(buf->data);
	*buf = (struct buf){ .cap_bytes = buf->cap_bytes };
}

void buf_clear(struct buf *buf)
{
	buf->len = 0;
	buf->failed = 0;
	if (buf->data)
		buf->data[0] = '\0';
}

static int buf_reserve(struct buf *buf, size_t n_bytes)
{
	size_t size = buf->size ? buf->size : 64;
	char *data;

	if (buf->failed)
		return buf->failed;
	if (n_bytes > buf->cap_bytes - buf->len)
		return buf->failed = -E2BIG;
	while (size < buf->len + n_bytes + 1)
		size *= 2;
	if (size == buf->size)
		return 0;
	data = realloc(buf->data, size);
	if (!data)
		return buf->failed = -ENOMEM;
	buf->data = data;
	buf->size = size;
	return 0;
}

int buf_add(struct buf *buf, const void *data, size_t n_bytes)
{
	int r = buf_reserve(buf, n_bytes);

	if (r < 0)
		return r;
	if (n_bytes)
		memcpy(buf->data + buf->len, data, n_bytes);
	buf->len += n_bytes;
	buf->data[buf->len] = '\0';
	return 0;
}

int buf_adds(struct buf *buf, const char *text)
{
	return buf_add(buf, text, strlen(text));
}

int buf_addf(struct buf *buf, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return buf->failed = -EINVAL;
	r = buf_reserve(buf, n);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	vsnprintf(buf->data + buf->len, n + 1, fmt, ap);
	va_end(ap);
	buf->len += n;
	return 0;
}

int buf_failed(const struct buf *buf)
{
	return buf->failed;
}

const char *buf_str(const struct buf *buf)
{
	return buf->data ? buf->data : "";
}

char *buf_take(struct buf *buf)
{
	char *data = buf->data ? buf->data : calloc(1, 1);

	*buf = (struct buf){ .cap_bytes = buf->cap_bytes };
	return data;
}

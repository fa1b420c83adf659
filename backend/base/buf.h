/* buf.h - bytes that grow up to a cap given at birth. Always NUL-terminated (the NUL does not
 * count). A failed append leaves the content as it was and latches: check buf_failed() once at the
 * end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct buf {
	char *data;
	size_t len, size, cap_bytes;
	int failed; /* 0, or -E2BIG / -ENOMEM of the first append that did not fit */
};

/* cap_bytes counts the content, 1 to SIZE_MAX / 2. Takes no memory yet. */
void buf_init(struct buf *buf, size_t cap_bytes);
void buf_done(struct buf *buf);
void buf_clear(struct buf *buf);

int buf_add(struct buf *buf, const void *data, size_t n_bytes);
int buf_adds(struct buf *buf, const char *text);
int buf_addf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_failed(const struct buf *buf);

/* The content (never NULL); the caller of buf_take frees it and buf is empty afterwards. */
const char *buf_str(const struct buf *buf);
char *buf_take(struct buf *buf);
#define AUTO_BUF AUTO(buf_done)

/* chunks.h - answers that are written to the connection as they come, in chunks; to a client of
 * HTTP/1.0 as they are, up to the end of the connection. In the connection's own thread. 0, or the
 * -errno of sock.h. */
#pragma once
#include <stddef.h>

struct request;

/* Takes the connection and sends the head. more_headers: whole lines, or "". */
int chunks_begin(struct request *request, const char *content_type, const char *more_headers);
/* Nothing at all would be the end: n_bytes > 0. */
int chunks_add(struct request *request, const void *data, size_t n_bytes);
/* What is in a pipe, at least n_bytes > 0. */
int chunks_splice(struct request *request, int pipe_fd, size_t n_bytes);
/* Without it the answer is not whole. trailers: whole lines, or "". */
int chunks_end(struct request *request, const char *trailers);

/* http.h - one connection to a server, as plain as a client can be: requests are sent whole, answers are read into one
 * buffer, nobody looks into documents. Errors: -1, with a text in conn->error. One thread at a time. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

enum { HTTP_BUFFER = 64 * 1024, HTTP_GUARD_S = 120 };

struct http {
	int fd; /* -1: closed */
	size_t start, end; /* what is read and not yet used */
	char error[256];
	char buffer[HTTP_BUFFER + 1];
};

struct http_request {
	const char *method, *path, *body; /* body "": none */
	bool closes; /* "Connection: close", as Go's clients have it for plain calls */
};

int http_open(struct http *conn, const struct sockaddr_in *address);
void http_close(struct http *conn);
int http_send(struct http *conn, const struct http_request *request);
int http_send_bytes(struct http *conn, const char *bytes, size_t n);
/* The status; *ret_length is that of the body, 0 if no length is named. */
int http_read_head(struct http *conn, size_t *ret_length);
/* Reads away so many bytes. */
int http_skip(struct http *conn, size_t n_bytes);
/* The next line without its end, valid until the next call; NULL at the end of the stream (error is empty) or on error. */
const char *http_read_line(struct http *conn);
/* Until the other side ends. Returns how many bytes. */
long http_drain(struct http *conn);

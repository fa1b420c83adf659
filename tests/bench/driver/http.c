#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(struct http *conn, const char *what)
{
	snprintf(conn->error, sizeof(conn->error), "%s: %s", what,
		errno ? strerror(errno) : "the connection has ended");
	return -1;
}

int http_open(struct http *conn, const struct sockaddr_in *address)
{
	const struct timeval guard = { .tv_sec = HTTP_GUARD_S };
	int one = 1;

	conn->start = conn->end = 0;
	conn->error[0] = 0;
	conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (conn->fd < 0)
		return fail(conn, "socket");
	setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
	setsockopt(conn->fd, SOL_SOCKET, SO_SNDTIMEO, &guard, sizeof(guard));
	if (connect(conn->fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return 0;
	fail(conn, "connect");
	http_close(conn);
	return -1;
}

void http_close(struct http *conn)
{
	if (conn->fd >= 0)
		close(conn->fd);
	conn->fd = -1;
}

int http_send_bytes(struct http *conn, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(conn->fd, bytes, n, MSG_NOSIGNAL);

		if (sent < 0)
			return fail(conn, "send");
		bytes += sent;
		n -= (size_t)sent;
	}
	return 0;
}

int http_send(struct http *conn, const struct http_request *request)
{
	char *text;
	int n = asprintf(&text,
		"%s %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
		request->method, request->path, strlen(request->body),
		request->closes ? "Connection: close\r\n" : "", request->body);
	int r;

	if (n < 0)
		return fail(conn, "request");
	r = http_send_bytes(conn, text, (size_t)n);
	free(text);
	return r;
}

/* Reads more behind what is there. 0 at the end of the stream. */
static ssize_t fill(struct http *conn)
{
	ssize_t got;

	if (conn->start > 0) {
		memmove(conn->buffer, conn->buffer + conn->start, conn->end - conn->start);
		conn->end -= conn->start;
		conn->start = 0;
	}
	if (conn->end == HTTP_BUFFER) {
		errno = EMSGSIZE;
		return fail(conn, "read");
	}
	errno = 0;
	got = recv(conn->fd, conn->buffer + conn->end, HTTP_BUFFER - conn->end, 0);
	if (got < 0)
		return fail(conn, "read");
	conn->end += (size_t)got;
	conn->buffer[conn->end] = 0;
	return got;
}

static size_t content_length(const char *head)
{
	const char *field = strcasestr(head, "\r\ncontent-length:");

	return field ? strtoul(strchr(field, ':') + 1, NULL, 10) : 0;
}

int http_read_head(struct http *conn, size_t *ret_length)
{
	char *head, *stop;
	long status;

	conn->buffer[conn->end] = 0;
	while (!(stop = strstr(conn->buffer + conn->start, "\r\n\r\n")))
		if (fill(conn) <= 0)
			return conn->error[0] ? -1 : fail(conn, "head of the answer");
	head = conn->buffer + conn->start;
	*stop = 0;
	conn->start = (size_t)(stop - conn->buffer) + 4;
	if (strncmp(head, "HTTP/1.1 ", 9) != 0) {
		errno = EPROTO;
		return fail(conn, "head of the answer");
	}
	status = strtol(head + 9, NULL, 10);
	*ret_length = status == 204 ? 0 : content_length(head);
	return (int)status;
}

int http_skip(struct http *conn, size_t n_bytes)
{
	while (n_bytes > 0) {
		size_t have = conn->end - conn->start;

		if (have > n_bytes)
			have = n_bytes;
		conn->start += have;
		n_bytes -= have;
		if (n_bytes > 0 && fill(conn) <= 0)
			return conn->error[0] ? -1 : fail(conn, "inside a document");
	}
	return 0;
}

const char *http_read_line(struct http *conn)
{
	char *stop;

	while (!(stop = memchr(conn->buffer + conn->start, '\n', conn->end - conn->start)))
		if (fill(conn) <= 0)
			return NULL;
	char *line = conn->buffer + conn->start;

	*stop = 0;
	conn->start = (size_t)(stop - conn->buffer) + 1;
	return line;
}

long http_drain(struct http *conn)
{
	long total = 0;
	ssize_t got;

	do {
		total += (long)(conn->end - conn->start);
		conn->start = conn->end = 0;
		got = fill(conn);
	} while (got > 0);
	return got < 0 ? -1 : total;
}

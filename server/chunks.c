#include "server/chunks.h"

#include <stdio.h>
#include <sys/uio.h>
#include <time.h>

#include "server/request.h"
#include "server/sock.h"

int chunks_begin(struct request *request, const char *content_type, const char *more_headers)
{
	char date[40];
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	request_take(request);
	return sock_printf(request->fd, request_stop_fd(request),
		"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDate: %s\r\n%s%sConnection: close\r\n\r\n",
		content_type, date, request->is_http_1_0 ? "" : "Transfer-Encoding: chunked\r\n",
		more_headers);
}

int chunks_add(struct request *request, const void *data, size_t n_bytes)
{
	char size[24];
	struct iovec parts[] = { { .iov_base = size },
		{ .iov_base = (void *)data, .iov_len = n_bytes },
		{ .iov_base = (void *)"\r\n", .iov_len = 2 } };

	parts[0].iov_len = snprintf(size, sizeof(size), "%zx\r\n", n_bytes);
	return request->is_http_1_0
		? sock_writev(request->fd, &parts[1], 1, request_stop_fd(request))
		: sock_writev(request->fd, parts, 3, request_stop_fd(request));
}

int chunks_splice(struct request *request, int pipe_fd, size_t n_bytes)
{
	int stop_fd = request_stop_fd(request), r = 0;
	char size[24];
	size_t len = snprintf(size, sizeof(size), "%zx\r\n", n_bytes);

	if (!request->is_http_1_0)
		r = sock_write_more(request->fd, size, len, stop_fd);
	if (r == 0)
		r = sock_splice(request->fd, pipe_fd, n_bytes, stop_fd);
	if (r == 0 && !request->is_http_1_0)
		r = sock_write_more(request->fd, "\r\n", 2, stop_fd);
	return r;
}

int chunks_end(struct request *request, const char *trailers)
{
	return request->is_http_1_0
		? 0
		: sock_printf(request->fd, request_stop_fd(request), "0\r\n%s\r\n", trailers);
}

#include "server/chunks.h"

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
	int stop_fd = request_stop_fd(request);
	int r = request->is_http_1_0 ? 0 : sock_printf(request->fd, stop_fd, "%zx\r\n", n_bytes);

	if (r == 0)
		r = sock_write(request->fd, data, n_bytes, stop_fd);
	return r < 0 || request->is_http_1_0 ? r : sock_write(request->fd, "\r\n", 2, stop_fd);
}

int chunks_end(struct request *request, const char *trailers)
{
	return request->is_http_1_0
		? 0
		: sock_printf(request->fd, request_stop_fd(request), "0\r\n%s\r\n", trailers);
}

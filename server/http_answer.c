/* Answers: past the library, and through it. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "base/auto.h"
#include "server/http_internal.h"
#include "server/reply.h"
#include "server/sock.h"

#define DRAIN_MS 2000

/* ---- answers past the library ---------------------------------------------------------------- */

static void date_now(char text[40])
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(text, 40, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

/* A reader that pauses is not dead: a stream's connection has no deadline for acknowledgements. */
void request_take(struct request *request)
{
	int never_ms = 0;

	setsockopt(request->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &never_ms, sizeof(never_ms));
	request->is_answered = request->is_taken = true;
	connection_set_phase(((struct exchange *)request)->connection, PHASE_STREAM);
}

/* A client of HTTP/1.0 cannot be told of chunks, and then takes the body as it is: curl, for one.
 */
int hijack(struct request *request, const char *status, const char *content_type)
{
	char date[40];

	date_now(date);
	request_take(request);
	return sock_printf(request->fd, request_stop_fd(request),
		"HTTP/1.1 %s\r\n%s%s%sDate: %s\r\n%s\r\n\r\n", status,
		content_type ? "Content-Type: " : "", content_type ? content_type : "",
		content_type ? "\r\n" : "", date,
		request->is_http_1_0 ? "Connection: close" : "Transfer-Encoding: chunked");
}

static const char *phrase_of(unsigned status)
{
	static const struct {
		unsigned status;
		const char *phrase;
	} phrases[] = { { 200, "OK" }, { 201, "Created" }, { 202, "Accepted" },
		{ 400, "Bad Request" }, { 403, "Forbidden" }, { 404, "Not Found" },
		{ 405, "Method Not Allowed" }, { 413, "Request Entity Too Large" },
		{ 417, "Expectation Failed" }, { 422, "Unprocessable Entity" } };

	for (size_t i = 0; i < N_ELEMENTS(phrases); i++)
		if (phrases[i].status == status)
			return phrases[i].phrase;
	return "Internal Server Error";
}

static bool is_body_to_come(const struct request *request)
{
	const struct exchange *exchange = (const struct exchange *)request;

	return exchange->has_body && !exchange->is_body_read;
}

void answer_and_close(struct request *request, unsigned status, const char *content_type,
	const char *allow, const char *text, size_t n_bytes)
{
	char date[40];

	date_now(date);
	request->is_answered = request->is_taken = true;
	if (sock_printf(request->fd, request_stop_fd(request),
		    "HTTP/1.1 %u %s\r\nContent-Type: %s\r\n%s%s%sDate: %s\r\nContent-Length: %zu\r\n"
		    "Connection: close\r\n\r\n",
		    status, phrase_of(status), content_type, allow ? "Allow: " : "",
		    allow ? allow : "", allow ? "\r\n" : "", date, n_bytes) == 0)
		sock_write(request->fd, text, n_bytes, request_stop_fd(request));
	sock_finish(request->fd, DRAIN_MS, request_stop_fd(request));
}

/* ---- answers through the library ------------------------------------------------------------- */

static const char *const quiet_headers[][2] = { { "X-Content-Type-Options", "nosniff" },
	{ "Cross-Origin-Resource-Policy", "same-origin" }, { "Cache-Control", "no-store" } };

/* Nothing comes after it, so the library need not know, which would zero half of the connection's memory
 * before it sent a byte. False: it has to do it after all. */
static bool answer_last(struct request *request, unsigned status, const char *content_type,
	const char *text, size_t n_bytes)
{
	struct iovec parts[2] = { { .iov_len = 0 },
		{ .iov_base = (void *)text, .iov_len = n_bytes } };
	char date[40], head[512];
	int n;

	date_now(date);
	n = snprintf(head, sizeof(head),
		"HTTP/1.1 %u %s\r\nDate: %s\r\nConnection: close\r\n%s%s%sContent-Length: %zu\r\n",
		status, phrase_of(status), date, content_type ? "Content-Type: " : "",
		content_type ? content_type : "", content_type ? "\r\n" : "", n_bytes);
	for (size_t i = 0; i < N_ELEMENTS(quiet_headers) && n < (int)sizeof(head); i++)
		n += snprintf(head + n, sizeof(head) - n, "%s: %s\r\n", quiet_headers[i][0],
			quiet_headers[i][1]);
	if (n + 2 >= (int)sizeof(head))
		return false;
	memcpy(head + n, "\r\n", 2);
	parts[0] = (struct iovec){ head, n + 2 };
	request->is_answered = request->is_taken = true;
	sock_writev(request->fd, parts, N_ELEMENTS(parts), -1);
	return true;
}

void reply_bytes(struct request *request, unsigned status, const char *content_type,
	const char *allow, const char *text, size_t n_bytes)
{
	struct MHD_Response *response;

	if (request->is_answered)
		return;
	if (is_body_to_come(request)) { /* the library would cut it short */
		answer_and_close(request, status, content_type, allow, text, n_bytes);
		return;
	}
	if (((const struct exchange *)request)->is_last && status <= 202 &&
		answer_last(request, status, content_type, text, n_bytes))
		return;
	request->is_answered = true;
	response = MHD_create_response_from_buffer(n_bytes, (void *)text, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return;
	if (content_type)
		MHD_add_response_header(response, "Content-Type", content_type);
	if (allow)
		MHD_add_response_header(response, "Allow", allow);
	for (size_t i = 0; i < N_ELEMENTS(quiet_headers); i++)
		MHD_add_response_header(response, quiet_headers[i][0], quiet_headers[i][1]);
	MHD_queue_response(request->connection, status, response);
	MHD_destroy_response(response);
}

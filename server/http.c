/* With http_answer.c the only file that knows libmicrohttpd. One thread accepts and watches deadlines; each connection
 * has a thread of the library's, in which its handler runs. */
#include "server/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/log.h"
#include "server/headers.h"
#include "server/http_internal.h"
#include "server/reply.h"
#include "server/router.h"

#define HEADER_BYTES (256u * 1024) /* bulk_info of thousands of handles */
#define STACK_BYTES (256u * 1024)
#define MAX_WATCHERS                                                                               \
	64 /* whoever reaches those ports must not take the descriptors and threads of the APIs */

struct backend *request_backend(const struct request *request)
{
	return request->server->config.backend;
}

struct volumes *request_volumes(const struct request *request)
{
	return request->server->config.volumes;
}

const struct p2p_config *request_p2p(const struct request *request)
{
	return request->server->config.p2p;
}

const struct health_config *request_health(const struct request *request)
{
	return request->server->config.health;
}

const char *request_header(const struct request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

const char *request_own_address(const struct request *request)
{
	return request->server->address;
}

int request_stop_fd(const struct request *request)
{
	return connections_stop_fd(request->server->connections);
}

int request_stall_ms(const struct request *request)
{
	return request->server->config.stall_ms;
}

/* ---- before the body: headers that decide ---------------------------------------------------- */

static enum MHD_Result check_header(
	void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
	(void)kind;
	headers_note(arg, key, value ? value : "");
	return MHD_YES;
}

static void answer_error_and_close(
	struct request *request, enum err_kind kind, unsigned status, const char *message)
{
	struct err err = { .kind = kind };
	AUTO_FREE char *owned = NULL;
	const char *text;

	snprintf(err.msg, sizeof(err.msg), "%s", message);
	text = error_document(request, &err, &owned);
	answer_and_close(request, status, "application/json", NULL, text, strlen(text));
}

static void answer_error(struct request *request, enum err_kind kind, const char *message)
{
	struct err err = { .kind = kind };

	snprintf(err.msg, sizeof(err.msg), "%s", message);
	reply_error(request, &err);
}

static void answer_no_route(struct request *request, int why, const char *allow)
{
	bool is_method = why == -EPERM;
	const char *text = is_method ? "Method Not Allowed\n" : "404 page not found\n";

	if (is_method)
		allow = *allow ? allow : "GET, PUT, POST, DELETE";
	else
		allow = NULL;
	reply_bytes(request, is_method ? 405 : 404, "text/plain; charset=utf-8", allow, text,
		strlen(text));
}

static void check_target(struct request *request, const struct headers *check)
{
	static const char *const methods[] = { "GET", "PUT", "POST", "DELETE" };
	bool is_known_method = false;
	char allow[64], message[128];
	int r;

	if (router_takes_all(request))
		return;
	if (check->from_browser && GUARD(BROWSER)) {
		snprintf(message, sizeof(message), "%s: requests from web pages are refused",
			check->from_browser);
		answer_error(request, ERR_FORBIDDEN, message);
		return;
	}
	for (size_t i = 0; i < N_ELEMENTS(methods); i++)
		is_known_method |= !strcmp(request->method, methods[i]);
	r = router_match(request, allow, sizeof(allow));
	if (r != -EINVAL && !is_known_method)
		r = -EPERM;
	if (r == 0)
		r = router_parse_query(request);
	if (r == -EINVAL)
		answer_error(request, ERR_BAD_REQUEST,
			"path or query: broken escape, or too many parts");
	else if (r < 0)
		answer_no_route(request, r, allow);
}

/* An upload that is over has an answer, but where there was no memory for one: then its connection is cut. */
static void check_upload(struct request *request)
{
	if (!request->upload && !request->is_answered)
		request->is_answered = request->is_taken = true;
}

/* Nothing but the client's patience limits how long an upload takes. */
static void expect_body(struct exchange *exchange)
{
	struct request *request = &exchange->request;
	const struct route *route = request->route;

	exchange->body_cap =
		strstr(route->name, "process_") || !strcmp(route->name, "container_create")
		? SPEC_BODY_BYTES
		: JSON_BODY_BYTES;
	if (!route->upload)
		return;
	connection_set_phase(exchange->connection, PHASE_UPLOAD);
	exchange->is_uploading = true;
	route->upload->begin(request);
	check_upload(request);
}

static void take_upload(struct request *request, const char *data, size_t n_bytes)
{
	request->route->upload->data(request, data, n_bytes);
	check_upload(request);
}

static void begin(struct exchange *exchange, struct MHD_Connection *connection, const char *method,
	const char *version)
{
	struct request *request = &exchange->request;
	struct headers check = { 0 };
	const char *fault;

	exchange->has_begun = true;
	request->method = method;
	request->is_http_1_0 = !strcmp(version, "HTTP/1.0");
	MHD_get_connection_values(connection, MHD_HEADER_KIND, check_header, &check);
	exchange->has_body = check.has_body;
	exchange->is_last =
		check.wants_close && !request->is_http_1_0 && strcmp(method, "HEAD") != 0;
	fault = !GUARD(FRAMING) ? NULL : headers_fault(&check, request->is_http_1_0);
	if (fault)
		answer_error_and_close(request, ERR_BAD_REQUEST, 400, fault);
	else if (check.bad_expect)
		answer_error_and_close(
			request, ERR_BAD_REQUEST, 417, "Expect: only 100-continue is known");
	else
		check_target(request, &check);
	if (!request->is_answered)
		expect_body(exchange);
}

/* ---- the body -------------------------------------------------------------------------------- */

static void take_body(struct exchange *exchange, const char *data, size_t n_bytes)
{
	struct request *request = &exchange->request;
	size_t wanted = request->body_bytes + n_bytes;
	char message[64], *more;

	if (wanted > exchange->body_cap) {
		snprintf(message, sizeof(message), "body: longer than %zu bytes",
			exchange->body_cap);
		answer_error_and_close(request, ERR_TOO_LARGE, 413, message);
		return;
	}
	if (wanted > exchange->body_room) {
		exchange->body_room = wanted < 4096 ? 4096 : 2 * wanted;
		more = realloc(request->body, exchange->body_room);
		if (!more) {
			answer_error_and_close(request, ERR_SYSTEM, 500, "body: out of memory");
			return;
		}
		request->body = more;
	}
	memcpy(request->body + request->body_bytes, data, n_bytes);
	request->body_bytes = wanted;
}

/* ---- the library calls ----------------------------------------------------------------------- */

static struct connection *connection_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static int fd_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

/* First of all, with the target as it was sent. What it returns is the exchange of the calls below.
 */
static void *on_uri(void *arg, const char *uri, struct MHD_Connection *connection)
{
	const struct server *server = arg;
	struct exchange *exchange = calloc(1, sizeof(*exchange));
	char *query;

	if (!exchange)
		return NULL;
	exchange->request.server = arg;
	exchange->request.service = server->config.service;
	exchange->request.connection = connection;
	exchange->request.fd = fd_of(connection);
	exchange->connection = connection_of(connection);
	exchange->uri = strdup(uri);
	if (!exchange->uri || !exchange->connection) {
		free(exchange->uri);
		free(exchange);
		return NULL;
	}
	query = strchr(exchange->uri, '?');
	if (query)
		*query++ = '\0';
	exchange->request.path_text = exchange->uri;
	exchange->request.query_text = query;
	return exchange;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *data, size_t *n_bytes, void **slot)
{
	struct exchange *exchange = *slot;
	struct request *request;

	(void)arg;
	(void)url;
	if (!exchange)
		return MHD_NO;
	request = &exchange->request;
	if (!exchange->has_begun) {
		connection_set_phase(exchange->connection, PHASE_BODY);
		begin(exchange, connection, method, version);
		return request->is_taken ? MHD_NO : MHD_YES;
	}
	if (*n_bytes) {
		if (!request->is_answered && request->route->upload)
			take_upload(request, data, *n_bytes);
		else if (!request->is_answered)
			take_body(exchange, data, *n_bytes);
		*n_bytes = 0;
		return request->is_taken ? MHD_NO : MHD_YES;
	}
	exchange->is_body_read = true;
	connection_set_phase(exchange->connection, PHASE_BUSY);
	if (!request->is_answered) {
		exchange->is_uploading = false;
		request->route->handle(request);
	}
	return request->is_taken || !request->is_answered ? MHD_NO : MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **slot,
	enum MHD_RequestTerminationCode code)
{
	struct exchange *exchange = *slot;

	(void)arg;
	(void)connection;
	(void)code;
	if (!exchange)
		return;
	if (exchange->is_uploading)
		exchange->request.route->upload->abort(&exchange->request);
	connection_set_phase(exchange->connection, PHASE_IDLE);
	free(exchange->request.body);
	free(exchange->uri);
	free(exchange);
	*slot = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
	enum MHD_ConnectionNotificationCode code)
{
	struct server *server = arg;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*context = connection_enter(server->connections, fd_of(connection));
	} else if (*context) {
		connection_leave(*context);
		*context = NULL;
	}
}

static size_t leave_escaped(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg;
	(void)connection;
	return strlen(text);
}

/* Every hijack is an error to the library, and so is every client that goes away. */
static void on_log(void *arg, const char *fmt, va_list ap)
{
	char text[256];

	(void)arg;
	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	LOG(LOG_DEBUG, "http", KV_STR("text", text));
}

static void on_accept(void *arg, int take_fd, const struct sockaddr *address, socklen_t len)
{
	struct server *server = arg;

	MHD_add_connection(server->daemon, take_fd, address, len);
}

/* ---- life ------------------------------------------------------------------------------------ */

static struct MHD_Daemon *start_library(struct server *server)
{
	unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
		MHD_USE_POLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_USE_ERROR_LOG;

	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, server,
		MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_URI_LOG_CALLBACK, on_uri,
		server, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_UNESCAPE_CALLBACK,
		leave_escaped, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)HEADER_BYTES + 8192, MHD_OPTION_CONNECTION_LIMIT, 1u << 20,
		MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
		0u, MHD_OPTION_END);
}

int server_listen(const struct server_config *config, struct server **ret_server, char *address,
	struct err *err)
{
	struct server *server = calloc(1, sizeof(*server));
	struct connections_config accept = { .bind_ip = config->bind_ip,
		.port = config->port,
		.socket_path = config->socket_path,
		.socket_mode = config->socket_mode,
		.n_max = config->service >= SERVICE_HEALTH ? MAX_WATCHERS : 0,
		.timeout_ms = { [PHASE_HEADER] = config->header_timeout_ms,
			[PHASE_BODY] = config->body_timeout_ms,
			[PHASE_IDLE] = config->idle_timeout_ms },
		.on_accept = on_accept,
		.arg = server };
	int r;

	if (!server)
		return err_system(err, -ENOMEM, "server");
	server->config = *config;
	r = connections_open(&accept, &server->connections, address, err);
	if (r < 0) {
		free(server);
		return r;
	}
	snprintf(server->address, sizeof(server->address), "%s", address);
	*ret_server = server;
	return 0;
}

int server_serve(
	struct server *server, struct backend *backend, struct volumes *volumes, struct err *err)
{
	server->config.backend = backend;
	server->config.volumes = volumes;
	server->daemon = start_library(server);
	return server->daemon ? connections_serve(server->connections, err)
			      : err_set(err, ERR_SYSTEM, EIO, "libmicrohttpd does not start");
}

int server_start(const struct server_config *config, struct server **ret_server, char *address,
	struct err *err)
{
	struct server *server = NULL;
	int r = server_listen(config, &server, address, err);

	if (r == 0)
		r = server_serve(server, config->backend, config->volumes, err);
	if (r < 0)
		server_stop(server);
	else
		*ret_server = server;
	return r;
}

void server_stop(struct server *server)
{
	if (!server)
		return;
	connections_stop(server->connections);
	if (server->daemon)
		MHD_stop_daemon(server->daemon);
	connections_close(server->connections);
	free(server);
}

/* request.h - one HTTP request as handlers see it, and what they can answer. Only server/http.c
 * knows the library behind it; a handler is a plain function that runs from top to bottom in its
 * connection's thread. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http.h"

struct backend;
struct err;
struct p2p_config;
struct route;
struct server;
struct volumes;

#define MAX_PATH_PARTS 8
#define MAX_QUERY 64
#define JSON_BODY_BYTES (1u << 20)
#define SPEC_BODY_BYTES (4u << 20) /* create and run: environments can be long */

struct query_pair {
	const char *key, *value; /* decoded */
};

struct request {
	struct server *server;
	enum service service;
	void *connection; /* the library's */
	int fd; /* the socket, for those who take it */
	const char *method;
	char *path_text, *query_text; /* what parts and query point into */
	const char *parts[MAX_PATH_PARTS];
	int n_parts;
	struct query_pair query[MAX_QUERY];
	int n_query;
	bool is_http_1_0;
	const struct route *route;
	char *body;
	size_t body_bytes;
	void *upload; /* of a route with one: its handlers' own */
	bool is_answered;
	bool is_taken; /* the handler has written to fd itself */
};

/* A path part by the name it has in routes.def ("handle"), "" if there is none. */
const char *request_param(const struct request *request, const char *name);
/* The first value of a query key, or NULL. */
const char *request_query(const struct request *request, const char *key);
struct backend *request_backend(const struct request *request);
/* The container of the path, or NULL and answered. It is put by the caller. */
struct container *request_container(struct request *request);
void auto_container(struct container **container);
#define AUTO_CONTAINER AUTO(auto_container)
struct volumes *request_volumes(const struct request *request);
/* A header of the request, NULL if it has none. */
const char *request_header(const struct request *request, const char *name);
/* Readable once the server is to stop. */
int request_stop_fd(const struct request *request);
int request_stall_ms(const struct request *request);
const struct health_config *request_health(const struct request *request);
const struct p2p_config *request_p2p(const struct request *request);
/* The address that the volume API listens on, "ip:port". */
const char *request_own_address(const struct request *request);
/* The body as a JSON object; -errno and answered if it is none. */
int request_json(struct request *request, json_t **ret_json, struct err *err);

/* Answers, each once per request. take_json is consumed. */
void reply_json(struct request *request, unsigned status, json_t *take_json);
void reply_empty(struct request *request); /* 200 {} */
/* Of a bulk route: what entry says of each of ?handles=a,b. */
void reply_bulk(
	struct request *request, json_t *(*entry)(struct backend *backend, const char *handle));
void reply_text(struct request *request, unsigned status, const char *text);
/* The error document, with the status that the kind has. Handle and ProcessID come from the path.
 */
void reply_error(struct request *request, const struct err *err);

/* {"error": "message"}, as baggageclaim has it. */
void reply_failure(struct request *request, unsigned status, const char *message);
void reply_nothing(struct request *request, unsigned status); /* no body, no type */

/* Takes the connection: everything is the handler's to write to request->fd, and to end. */
void request_take(struct request *request);
/* The same, and the head goes out, the rest is the handler's to write to request->fd. content_type
 * may be NULL. "Transfer-Encoding: chunked" is what Go's hijacking client insists on although the
 * body is raw. */
int hijack(struct request *request, const char *status, const char *content_type);

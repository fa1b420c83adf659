/* http_internal.h - what http.c and http_answer.c share: the servers, and requests as libmicrohttpd gives them. */
#pragma once
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/connections.h"
#include "server/http.h"
#include "server/request.h"

struct server {
	struct server_config config;
	char address[64];
	struct MHD_Daemon *daemon;
	struct connections *connections;
};

/* The library's view of a request: what has been read of it so far. */
struct exchange {
	struct request request;
	struct connection *connection;
	char *uri;
	bool has_begun, has_body, is_body_read;
	bool is_last; /* the client wants the connection closed */
	bool is_uploading; /* the route's abort is owed */
	size_t body_cap, body_room;
};

/* The upload goes on while we already know the answer, or the framing is not to be trusted: says it, ends our side, reads
 * away what comes within a bound. allow may be NULL. */
void answer_and_close(struct request *request, unsigned status, const char *content_type,
	const char *allow, const char *text, size_t n_bytes);

/* router.h - api-spec/routes.def as a table: from method and path to handler. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct request;

struct route {
	const char *method, *path, *name;
	void (*handle)(struct request *request);
	const struct upload *upload; /* NULL: the body is read before the handler is called */
};

/* A body that is taken piece by piece; handle comes at its end. Each may answer; then the rest of
 * the body is read away. */
struct upload {
	void (*begin)(struct request *request);
	void (*data)(struct request *request, const char *data, size_t n_bytes);
	void (*abort)(struct request *request); /* whenever handle was not reached after begin */
};

/* Splits the path, decodes each part once, finds the route. 0; -EINVAL: a broken path; -ENOENT: no
 * such path; -EPERM: not with this method (allow then lists those that would do). */
int router_match(struct request *request, char *allow, unsigned allow_bytes);
/* True if its service has one handler for any method and path: it is the request's route. */
bool router_takes_all(struct request *request);
/* Splits and decodes the query. -EINVAL: broken, or more than MAX_QUERY pairs. */
int router_parse_query(struct request *request);
/* The n-th route of Garden's, NULL past the end. */
const struct route *router_route(unsigned n);

void handle_health(struct request *request);
void handle_debug(struct request *request);
/* Handlers, by their names in routes.def. */
#define ROUTE(method, path, name) void handle_##name(struct request *request);
#define UPLOAD(name)                                                                               \
	void handle_##name(struct request *request);                                               \
	void handle_##name##_begin(struct request *request);                                       \
	void handle_##name##_data(struct request *request, const char *data, size_t n_bytes);      \
	void handle_##name##_abort(struct request *request);
#define ROUTE_UPLOAD(method, path, name) UPLOAD(name)
#include "api-spec/routes.def"
#define ROUTE_UPLOAD(method, path, name) UPLOAD(name)
#include "api-spec/volume_routes.def"
#undef UPLOAD
#undef ROUTE

/* router.h - api-spec/routes.def as a table: from method and path to handler. */
#pragma once
#include <stdbool.h>

struct request;

struct route {
	const char *method, *path, *name;
	void (*handle)(struct request *request);
	bool is_built;
};

/* Splits the path, decodes each part once, finds the route. 0; -EINVAL: a broken path; -ENOENT: no
 * such path; -EPERM: not with this method (allow then lists those that would do). */
int router_match(struct request *request, char *allow, unsigned allow_bytes);
/* Splits and decodes the query. -EINVAL: broken, or more than MAX_QUERY pairs. */
int router_parse_query(struct request *request);
/* The n-th route, NULL past the end. */
const struct route *router_route(unsigned n);

/* Handlers, by their names in routes.def. */
#define ROUTE(method, path, name) void handle_##name(struct request *request);
#define ROUTE_UNBUILT(method, path, name)
#include "api-spec/routes.def"
#undef ROUTE

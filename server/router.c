#include "server/router.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "server/request.h"

#define ROUTE(verb, text, id) { .method = #verb, .path = text, .name = #id, .handle = handle_##id },
#define UPLOAD(verb, text, id)                                                                     \
	{ .method = #verb,                                                                         \
		.path = text,                                                                      \
		.name = #id,                                                                       \
		.handle = handle_##id,                                                             \
		.upload = &(const struct upload){                                                  \
			handle_##id##_begin, handle_##id##_data, handle_##id##_abort } },
#define ROUTE_UPLOAD UPLOAD
static const struct route garden_routes[] = {
#include "api-spec/routes.def"
};

#define ROUTE_UPLOAD UPLOAD
static const struct route volume_routes[] = {
#include "api-spec/volume_routes.def"
};
#undef ROUTE

static const struct {
	const struct route *routes;
	size_t n_routes;
} tables[] = { [SERVICE_GARDEN] = { garden_routes, N_ELEMENTS(garden_routes) },
	[SERVICE_VOLUMES] = { volume_routes, N_ELEMENTS(volume_routes) } };

/* Whoever watches a server must not be told that it asks in the wrong way. */
static const struct route any_routes[] = { [SERVICE_HEALTH] = { .name = "health",
						   .handle = handle_health },
	[SERVICE_DEBUG] = { .name = "debug", .handle = handle_debug } };

bool router_takes_all(struct request *request)
{
	if (request->service < SERVICE_HEALTH)
		return false;
	request->route = &any_routes[request->service];
	return true;
}

const struct route *router_route(unsigned n)
{
	return n < N_ELEMENTS(garden_routes) ? &garden_routes[n] : NULL;
}

/* ---- paths ----------------------------------------------------------------------------------- */

/* Volumes are looked up as baggageclaim's router does it: a part may be empty but at the end, '+' is a
 * space, and what cannot be decoded fits no route. */
static int split_path(struct request *request)
{
	bool is_volumes = request->service == SERVICE_VOLUMES;
	char *rest = request->path_text + 1, *part;

	if (request->path_text[0] != '/')
		return -EINVAL;
	request->n_parts = 0;
	while (*rest && (part = strsep(&rest, "/"))) {
		if (request->n_parts == MAX_PATH_PARTS)
			return -ENOENT;
		if ((!*part && !(is_volumes && rest)) || percent_decode(part, is_volumes) < 0 ||
			!utf8_is_valid(part))
			return is_volumes ? -ENOENT : -EINVAL;
		request->parts[request->n_parts++] = part;
		if (!rest)
			break;
	}
	return rest && !*rest && request->n_parts ? -ENOENT : 0; /* "/ping/" is not "/ping" */
}

/* The part of the pattern that pattern begins with; *ret_next is what follows. */
static size_t pattern_part(const char *pattern, const char **ret_next)
{
	size_t len = strcspn(pattern, "/");

	*ret_next = pattern[len] ? pattern + len + 1 : pattern + len;
	return len;
}

static bool fits(const struct route *route, const struct request *request)
{
	const char *pattern = route->path + 1;
	int i = 0;

	for (; *pattern && i < request->n_parts; i++) {
		const char *here = pattern;
		size_t len = pattern_part(pattern, &pattern);

		if (*here != ':' &&
			(strlen(request->parts[i]) != len || memcmp(here, request->parts[i], len)))
			return false;
	}
	return !*pattern && i == request->n_parts;
}

static bool is_literal(const struct route *route)
{
	return !strchr(route->path, ':');
}

int router_match(struct request *request, char *allow, unsigned allow_bytes)
{
	const struct route *found = NULL;
	int r = split_path(request);

	if (r < 0)
		return r;
	allow[0] = '\0';
	for (size_t i = 0; i < tables[request->service].n_routes; i++) {
		const struct route *route = &tables[request->service].routes[i];

		if (!fits(route, request))
			continue;
		if (!strcmp(route->method, request->method)) {
			if (!found || is_literal(route))
				found = route;
		} else if (!strstr(allow, route->method)) {
			snprintf(allow + strlen(allow), allow_bytes - strlen(allow), "%s%s",
				*allow ? ", " : "", route->method);
		}
	}
	request->route = found;
	return found ? 0 : *allow ? -EPERM : -ENOENT;
}

const char *request_param(const struct request *request, const char *name)
{
	const char *pattern = request->route ? request->route->path + 1 : "";

	for (int i = 0; *pattern && i < request->n_parts; i++) {
		const char *here = pattern;
		size_t len = pattern_part(pattern, &pattern);

		if (*here == ':' && strlen(name) == len - 1 && !memcmp(here + 1, name, len - 1))
			return request->parts[i];
	}
	return "";
}

struct container *request_container(struct request *request)
{
	struct err err;
	struct container *container =
		container_get(request_backend(request), request_param(request, "handle"), &err);

	if (!container)
		reply_error(request, &err);
	return container;
}

void auto_container(struct container **container)
{
	container_put(*container);
}

/* ---- queries --------------------------------------------------------------------------------- */

int router_parse_query(struct request *request)
{
	char *rest = request->query_text, *pair;

	request->n_query = 0;
	while ((pair = strsep(&rest, "&"))) {
		char *key = strsep(&pair, "=");
		const char *value = pair ? pair : "";

		if (!*key && !*value)
			continue;
		if (request->n_query == MAX_QUERY || percent_decode(key, true) < 0 ||
			(pair && percent_decode(pair, true) < 0) || !utf8_is_valid(key) ||
			!utf8_is_valid(value))
			return -EINVAL;
		request->query[request->n_query++] = (struct query_pair){ key, value };
	}
	return 0;
}

const char *request_query(const struct request *request, const char *key)
{
	for (int i = 0; i < request->n_query; i++)
		if (!strcmp(request->query[i].key, key))
			return request->query[i].value;
	return NULL;
}

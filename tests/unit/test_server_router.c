#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "server/request.h"
#include "server/router.h"

struct matched {
	struct request request;
	char *text;
	char allow[64];
	int r;
};

static void match(struct matched *matched, const char *method, const char *path)
{
	*matched = (struct matched){ .text = strdup(path) };
	matched->request.method = method;
	matched->request.path_text = matched->text;
	matched->r = router_match(&matched->request, matched->allow, sizeof(matched->allow));
}

static void paths_find_their_routes(void **state UNUSED)
{
	static const struct {
		const char *method, *path, *name;
	} rows[] = {
		{ "GET", "/", "index" },
		{ "GET", "/ping", "ping" },
		{ "GET", "/capacity", "capacity" },
		{ "GET", "/containers", "container_list" },
		{ "POST", "/containers", "container_create" },
		{ "GET", "/containers/bulk_info", "container_bulk_info" },
		{ "GET", "/containers/bulk_metrics", "container_bulk_metrics" },
		{ "DELETE", "/containers/c1", "container_destroy" },
		{ "GET", "/containers/c1/info", "container_info" },
		{ "PUT", "/containers/c1/stop", "container_stop" },
		{ "POST", "/containers/c1/net/out/bulk", "net_out_bulk" },
		{ "POST", "/containers/c1/processes", "process_run" },
		{ "GET", "/containers/c1/processes/p1", "process_attach" },
		{ "GET", "/containers/c1/processes/p1/attaches/7/stdout", "process_stdout" },
		{ "GET", "/containers/c1/processes/p1/attaches/7/stderr", "process_stderr" },
		{ "PUT", "/containers/c1/properties/a%2Fb", "property_set" },
		{ "DELETE", "/containers/c1/properties/%C3%A9", "property_delete" },
		{ "POST", "/containers/c1/exec", "process_exec" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct matched m;

		match(&m, rows[i].method, rows[i].path);
		if (m.r || strcmp(m.request.route->name, rows[i].name))
			fail_msg("%s %s: %d, %s", rows[i].method, rows[i].path, m.r,
				m.request.route ? m.request.route->name : "no route");
		free(m.text);
	}
}

static void paths_of_no_route_are_not_found(void **state UNUSED)
{
	static const char *const paths[] = { "/nothing", "/ping/", "/ping/x", "/containers/",
		"/containers/c1/", "/containers/c1/nothing",
		"/containers/c1/processes/p1/attaches/7",
		"/containers/c1/processes/p1/attaches/7/stdin", "/Ping", "/containers/c1/INFO",
		"/a/b/c/d/e/f/g/h/i/j", "/containers/c1/net" };

	for (size_t i = 0; i < N_ELEMENTS(paths); i++) {
		struct matched m;

		match(&m, "GET", paths[i]);
		if (m.r != -ENOENT)
			fail_msg("%s: %d", paths[i], m.r);
		free(m.text);
	}
}

static void broken_paths_are_invalid(void **state UNUSED)
{
	static const char *const paths[] = { "", "ping", "*", "http://x/ping", "//", "//ping",
		"/containers//info", "/containers/%/info", "/containers/%4/info",
		"/containers/%zz/info", "/containers/a%00b/info" };

	for (size_t i = 0; i < N_ELEMENTS(paths); i++) {
		struct matched m;

		match(&m, "GET", paths[i]);
		if (m.r != -EINVAL)
			fail_msg("'%s': %d", paths[i], m.r);
		free(m.text);
	}
}

static void another_method_is_refused_with_those_that_would_do(void **state UNUSED)
{
	static const struct {
		const char *method, *path, *allow;
	} rows[] = {
		{ "POST", "/ping", "GET" },
		{ "OPTIONS", "/containers", "GET, POST" },
		{ "get", "/ping", "GET" },
		{ "PATCH", "/containers/c1/properties/k", "GET, PUT, DELETE" },
		{ "HEAD", "/containers/c1", "DELETE" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct matched m;

		match(&m, rows[i].method, rows[i].path);
		assert_int_equal(m.r, -EPERM);
		assert_string_equal(m.allow, rows[i].allow);
		free(m.text);
	}
}

static void parameters_are_decoded_once_and_found_by_name(void **state UNUSED)
{
	struct matched m;

	match(&m, "GET", "/containers/a+b/properties/x%20y%2Fz%252F");
	assert_int_equal(m.r, 0);
	assert_string_equal(request_param(&m.request, "handle"), "a+b");
	assert_string_equal(request_param(&m.request, "key"), "x y/z%2F");
	assert_string_equal(request_param(&m.request, "process"), "");
	assert_string_equal(request_param(&m.request, "han"), "");
	assert_string_equal(request_param(&m.request, ""), "");
	free(m.text);
	assert_string_equal(request_param(&(struct request){ 0 }, "handle"), "");
}

static void every_route_is_found_by_its_own_path(void **state UNUSED)
{
	const struct route *route;
	unsigned n = 0;

	for (; (route = router_route(n)); n++) {
		struct matched m;

		match(&m, route->method, route->path);
		assert_int_equal(m.r, 0);
		assert_ptr_equal(m.request.route, route);
		free(m.text);
	}
	assert_in_range(n, 28, 100);
	assert_null(router_route(n + 1));
}

static int parse_query(struct request *request, const char *text)
{
	*request = (struct request){ .query_text = strdup(text) };
	return router_parse_query(request);
}

static void queries_are_split_and_decoded(void **state UNUSED)
{
	struct request request;

	assert_int_equal(parse_query(&request, "a=1&b=x+y%2B&c&d=&%C3%A9=%26%3D&a=2&e=f=g"), 0);
	assert_string_equal(request_query(&request, "a"), "1");
	assert_string_equal(request_query(&request, "b"), "x y+");
	assert_string_equal(request_query(&request, "c"), "");
	assert_string_equal(request_query(&request, "d"), "");
	assert_string_equal(request_query(&request, "\xc3\xa9"), "&=");
	assert_string_equal(request_query(&request, "e"), "f=g");
	assert_null(request_query(&request, "f"));
	assert_null(request_query(&request, "A"));
	free(request.query_text);
	assert_int_equal(parse_query(&request, "&&a=1&&"), 0);
	assert_int_equal(request.n_query, 1);
	free(request.query_text);
	assert_int_equal(parse_query(&request, ""), 0);
	assert_int_equal(request.n_query, 0);
	free(request.query_text);
}

static void broken_and_endless_queries_are_refused(void **state UNUSED)
{
	static const char *const texts[] = { "a=%", "%=a", "a=%4", "a=%zz", "a=%00", "a=1&b=%" };
	struct request request;
	char text[4 * MAX_QUERY + 5] = "";

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		assert_int_equal(parse_query(&request, texts[i]), -EINVAL);
		free(request.query_text);
	}
	for (int i = 0; i < MAX_QUERY; i++)
		strcat(text, "a=1&");
	assert_int_equal(parse_query(&request, text), 0);
	free(request.query_text);
	strcat(text, "a=1&");
	assert_int_equal(parse_query(&request, text), -EINVAL);
	free(request.query_text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_find_their_routes),
		cmocka_unit_test(paths_of_no_route_are_not_found),
		cmocka_unit_test(broken_paths_are_invalid),
		cmocka_unit_test(another_method_is_refused_with_those_that_would_do),
		cmocka_unit_test(parameters_are_decoded_once_and_found_by_name),
		cmocka_unit_test(every_route_is_found_by_its_own_path),
		cmocka_unit_test(queries_are_split_and_decoded),
		cmocka_unit_test(broken_and_endless_queries_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>
#include <jansson.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/err.h"
#include "server/reply.h"
#include "server/request.h"
#include "server/router.h"

static const struct route route = { .path = "/containers/:handle/processes/:process" };

static struct request on_process(void)
{
	return (struct request){
		.route = &route, .parts = { "containers", "c1", "processes", "p1" }, .n_parts = 4
	};
}

static json_t *as_json(const char *text)
{
	json_t *json;

	assert_int_equal(text[strlen(text) - 1], '\n');
	assert_ptr_equal(strchr(text, '\n'), &text[strlen(text) - 1]);
	json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(json);
	return json;
}

static json_t *document(const struct request *request, const struct err *err)
{
	AUTO_FREE char *owned = NULL;
	json_t *json = as_json(error_document(request, err, &owned));

	assert_int_equal(json_object_size(json), 5);
	return json;
}

static void assert_key(const json_t *json, const char *key, const char *want)
{
	const char *text = json_string_value(json_object_get(json, key));

	if (!text || strcmp(text, want))
		fail_msg("%s is '%s', not '%s'", key, text ? text : "absent", want);
}

static void every_kind_has_all_five_keys(void **state UNUSED)
{
	struct request request = on_process();

	for (int kind = ERR_NONE; kind < N_ERR_KINDS; kind++) {
		struct err err = { .kind = kind, .code = EIO, .msg = "why" };
		json_t *json = document(&request, &err);

		assert_key(json, "Message", "why");
		assert_key(json, "Binary", "");
		assert_key(json, "Handle", kind == ERR_NO_CONTAINER ? "c1" : "");
		assert_key(json, "ProcessID", kind == ERR_NO_PROCESS ? "p1" : "");
		assert_non_null(json_string_value(json_object_get(json, "Type")));
		json_decref(json);
	}
}

static void types_are_those_that_go_clients_know(void **state UNUSED)
{
	static const struct {
		enum err_kind kind;
		const char *type;
	} rows[] = {
		{ ERR_INVALID, "" },
		{ ERR_NO_CONTAINER, "ContainerNotFoundError" },
		{ ERR_NO_PROCESS, "ProcessNotFoundError" },
		{ ERR_NO_EXEC, "ExecutableNotFoundError" },
		{ ERR_EXHAUSTED, "ServiceUnavailableError" },
		{ ERR_SYSTEM, "" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct request request = on_process();
		struct err err = { .kind = rows[i].kind, .msg = "why" };
		json_t *json = document(&request, &err);

		assert_key(json, "Type", rows[i].type);
		json_decref(json);
	}
}

static void a_request_of_no_route_has_an_error_document_too(void **state UNUSED)
{
	struct request request = { 0 };
	struct err err = { .kind = ERR_NO_CONTAINER, .msg = "why" };
	json_t *json = document(&request, &err);

	assert_key(json, "Handle", "");
	json_decref(json);
}

static void what_a_message_quotes_cannot_break_the_document(void **state UNUSED)
{
	static const char *const texts[] = { "\"},\"Type\":\"x", "a\nb\\", "\xc3\xa9", "" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		struct request request = on_process();
		struct err err = { .kind = ERR_INVALID };
		json_t *json;

		snprintf(err.msg, sizeof(err.msg), "%s", texts[i]);
		json = document(&request, &err);
		assert_key(json, "Message", texts[i]);
		json_decref(json);
	}
}

/* err.msg is cut at a byte; the person should still read what came before it. */
static void a_message_that_is_cut_within_a_letter_keeps_its_beginning(void **state UNUSED)
{
	struct request request = on_process();
	struct err err = { .kind = ERR_INVALID, .msg = "user '\xc3\xa9\xc3" };
	json_t *json = document(&request, &err);
	const char *text = json_string_value(json_object_get(json, "Message"));

	if (strncmp(text, "user '", 6))
		fail_msg("%s", text);
	json_decref(json);
}

static void try_without_memory(enum service service, const char *cause_key)
{
	struct request request = on_process();
	struct err err = { .kind = ERR_INVALID, .msg = "why" };
	bool has_failed = true;

	request.service = service;
	for (long n = 1; has_failed; n++) {
		AUTO_FREE char *owned = NULL;
		const char *text;
		json_t *json;

		alloc_fail_at(n);
		text = error_document(&request, &err, &owned);
		has_failed = alloc_has_failed();
		json = as_json(text);
		if (!owned || !has_failed)
			assert_key(json, cause_key, owned ? "why" : "out of memory");
		assert_true(owned || has_failed);
		json_decref(json);
	}
}

static void without_memory_an_error_is_a_short_document(void **state UNUSED)
{
	if (!alloc_can_fail)
		skip();
	try_without_memory(SERVICE_GARDEN, "Message");
	try_without_memory(SERVICE_VOLUMES, "error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_has_all_five_keys),
		cmocka_unit_test(types_are_those_that_go_clients_know),
		cmocka_unit_test(a_request_of_no_route_has_an_error_document_too),
		cmocka_unit_test(what_a_message_quotes_cannot_break_the_document),
		cmocka_unit_test(a_message_that_is_cut_within_a_letter_keeps_its_beginning),
		cmocka_unit_test(without_memory_an_error_is_a_short_document),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

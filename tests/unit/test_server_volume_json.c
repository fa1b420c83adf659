#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/registry.h"
#include "server/json.h"
#include "server/volume_json.h"
#include "volumes/volumes.h"

#define CAP_BYTES 65536

/* Every byte below 0x80 but NUL, and letters of two to four bytes. */
static void every_letter(char text[160])
{
	for (int c = 1; c < 0x80; c++)
		text[c - 1] = (char)c;
	snprintf(text + 0x7f, 32, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\xb1");
}

static void assert_same(const struct volume_view *view)
{
	AUTO_JSON json_t *json = volume_json(view);
	AUTO_FREE char *expected = json_dumps(json, JSON_COMPACT);
	AUTO_BUF struct buf text;

	buf_init(&text, CAP_BYTES);
	assert_int_equal(volume_json_add(&text, view), 0);
	assert_non_null(expected);
	assert_string_equal(buf_str(&text), expected);
}

static void a_text_is_written_as_jansson_writes_it(void **state UNUSED)
{
	const char *const texts[] = { "", "a", "\"", "\\", "/", "\x1f\x7f", "a\nb\n" };
	char all[160];

	every_letter(all);
	for (size_t i = 0; i <= N_ELEMENTS(texts); i++) {
		const char *text = i < N_ELEMENTS(texts) ? texts[i] : all;
		AUTO_JSON json_t *json = json_string(text);
		AUTO_FREE char *expected = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
		AUTO_BUF struct buf out;

		buf_init(&out, CAP_BYTES);
		json_add_string(&out, text);
		assert_string_equal(buf_str(&out), expected);
	}
}

static void a_volume_of_a_list_looks_like_one_by_itself(void **state UNUSED)
{
	static char value[] = "v", other[] = "say \"no\"";
	struct registry *properties = registry_new();
	struct volume_view view = { .handle = "h", .path = "/work/volumes/live/h/volume" };
	char all[160];

	every_letter(all);
	assert_same(&view);
	view.privileged = true;
	view.properties = properties;
	assert_same(&view);
	assert_int_equal(registry_add(properties, "z", value), 0);
	assert_same(&view);
	assert_int_equal(registry_add(properties, "a", other), 0);
	assert_int_equal(registry_add(properties, all, all), 0);
	assert_same(&view);
	registry_free(properties);
}

static void what_does_not_fit_is_told(void **state UNUSED)
{
	struct volume_view view = { .handle = "handle", .path = "/path" };
	AUTO_BUF struct buf out;

	buf_init(&out, 20);
	assert_int_equal(volume_json_add(&out, &view), -E2BIG);
}

static const char import_spec[] =
	"{\"handle\":\"h\",\"strategy\":{\"type\":\"import\",\"path\":\"/p\"},\"properties\":{\"k\":\"v\"},\"uid\":1}";

/* True if it failed, which must be nobody's fault. */
static bool is_not_read(void)
{
	AUTO(volume_spec_done) struct volume_spec spec = { 0 };
	struct err err = { 0 };
	int r = volume_spec_parse(import_spec, strlen(import_spec), &spec, &err);

	if (r < 0 && (r != -ENOMEM || err.kind == ERR_INVALID || err.kind == ERR_BAD_REQUEST))
		fail_msg("%d: %s", r, err.msg);
	return r < 0;
}

/* What jansson has no memory for it takes for a mistake in the text. */
static void *never_fails(size_t n_bytes)
{
#if alloc_can_fail
	return __libc_malloc(n_bytes);
#else
	return malloc(n_bytes);
#endif
}

static void no_memory_for_a_specification_is_not_the_clients_fault(void **state UNUSED)
{
	long n = 1;

	if (!alloc_can_fail)
		skip();
	json_set_alloc_funcs(never_fails, free);
	for (alloc_fail_at(n); is_not_read(); alloc_fail_at(++n))
		;
	json_set_alloc_funcs(malloc, free);
	assert_false(alloc_has_failed());
	assert_true(n > 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_is_written_as_jansson_writes_it),
		cmocka_unit_test(a_volume_of_a_list_looks_like_one_by_itself),
		cmocka_unit_test(what_does_not_fit_is_told),
		cmocka_unit_test(no_memory_for_a_specification_is_not_the_clients_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

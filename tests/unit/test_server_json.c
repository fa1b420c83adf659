#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/strv.h"
#include "server/json.h"

static json_t *parse(const char *text)
{
	struct err err = { 0 };
	json_t *json = NULL;

	if (json_parse(text, strlen(text), &json, &err))
		fail_msg("%s: %s", text, err.msg);
	return json;
}

static void documents_are_told_apart(void **state UNUSED)
{
	static const struct {
		const char *text;
		enum err_kind kind;
	} rows[] = {
		{ "{}", ERR_NONE },
		{ " {\"a\":[1,-2,3.5,\"x\",true,false,null]} \r\n", ERR_NONE },
		{ "12", ERR_NONE },
		{ "\"a\\\\u0000\"", ERR_NONE },
		{ "[{},{},{}]", ERR_NONE },
		{ "", ERR_INVALID },
		{ " ", ERR_INVALID },
		{ "{", ERR_INVALID },
		{ "{\"a\"", ERR_INVALID },
		{ "{\"a\":", ERR_INVALID },
		{ "{\"a\":1", ERR_INVALID },
		{ "{\"a\":1,}", ERR_INVALID },
		{ "{a:1}", ERR_INVALID },
		{ "{\"a\":01}", ERR_INVALID },
		{ "{\"a\":000000000000000000000001}", ERR_INVALID },
		{ "{\"a\":1e400}", ERR_INVALID },
		{ "{\"a\":+1}", ERR_INVALID },
		{ "{\"a\":.5}", ERR_INVALID },
		{ "{\"a\":NaN}", ERR_INVALID },
		{ "{\"a\":\"x}", ERR_INVALID },
		{ "{\"a\":\"x\\", ERR_INVALID },
		{ "{\"a\":\"x\\\"}", ERR_INVALID },
		{ "{\"a\":\"\\x\"}", ERR_INVALID },
		{ "{\"a\":\"\n\"}", ERR_INVALID },
		{ "{\"a\":\"\xff\"}", ERR_INVALID },
		{ "{\"a\":\"\xc0\x80\"}", ERR_INVALID },
		{ "{\"a\":\"\xed\xa0\x80\"}", ERR_INVALID },
		{ "{18446744073709551615:1}", ERR_INVALID },
		{ "{\"a\":-18446744073709551615}", ERR_INVALID },
		{ "jelly", ERR_INVALID },
		{ "{\"a\":1,\"a\":2}", ERR_BAD_REQUEST },
		{ "{\"x\":{\"a\":1,\"a\":1}}", ERR_BAD_REQUEST },
		{ "{}{}", ERR_BAD_REQUEST },
		{ "{} x", ERR_BAD_REQUEST },
		{ "{}]", ERR_BAD_REQUEST },
		{ "{\"a\":\"x\\u0000\"}", ERR_BAD_REQUEST },
		{ "{\"a\\u0000\":1}", ERR_BAD_REQUEST },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		AUTO_JSON json_t *json = NULL;
		struct err err = { 0 };
		int r = json_parse(rows[i].text, strlen(rows[i].text), &json, &err);

		if (err.kind != rows[i].kind || (r == 0) != (json != NULL) || (r == 0) != !err.kind)
			fail_msg("'%s': %d, kind %d (%s)", rows[i].text, r, (int)err.kind, err.msg);
	}
}

static void a_zero_byte_is_no_text(void **state UNUSED)
{
	static const char text[] = "{\"a\":\"x\0y\"}", behind[] = "{}\0{}";
	json_t *json = NULL;

	assert_true(json_parse(text, sizeof(text) - 1, &json, NULL) < 0);
	assert_true(json_parse(behind, sizeof(behind) - 1, &json, NULL) < 0);
	assert_null(json);
}

static void only_the_bytes_given_are_read(void **state UNUSED)
{
	static const char text[] = "{\"a\":\"\\u00e9\",\"b\":18446744073709551615}";

	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		AUTO_FREE char *exact =
			malloc(n + 1); /* so that a sanitizer sees each byte too far */
		json_t *json = NULL;

		memcpy(exact, text, n);
		exact = realloc(exact, n ? n : 1);
		assert_true(json_parse(exact, n, &json, NULL) < 0);
	}
}

static void nesting_ends_at_its_limit(void **state UNUSED)
{
	for (int depth = 1; depth <= 2 * JSON_DEPTH_MAX; depth++) {
		AUTO_JSON json_t *json = NULL;
		AUTO_BUF struct buf text;
		int r;

		buf_init(&text, 1000);
		for (int i = 0; i < depth; i++)
			buf_adds(&text, i % 2 ? "{\"a\":" : "[");
		buf_adds(&text, "1");
		for (int i = depth - 1; i >= 0; i--)
			buf_adds(&text, i % 2 ? "}" : "]");
		r = json_parse(buf_str(&text), text.len, &json, NULL);
		assert_int_equal(r == 0, depth <= JSON_DEPTH_MAX);
	}
}

static void a_million_brackets_are_refused(void **state UNUSED)
{
	AUTO_FREE char *text = malloc(1000000);
	json_t *json = NULL;

	memset(text, '[', 1000000);
	assert_true(json_parse(text, 1000000, &json, NULL) < 0);
	memset(text, '1', 1000000);
	assert_int_equal(json_parse(text, 1000000, &json, NULL), 0);
	assert_int_equal(json_u64(json, UINT64_MAX, &(uint64_t){ 0 }), -ERANGE);
	json_decref(json);
	memset(text, '"', 1000000);
	assert_true(json_parse(text, 1000000, &json, NULL) < 0);
	memset(text, '\\', 1000000);
	assert_true(json_parse(text, 1000000, &json, NULL) < 0);
}

static void integers_are_exact_over_64_bits(void **state UNUSED)
{
	static const struct {
		const char *text;
		uint64_t max;
		int r;
		uint64_t value;
	} rows[] = {
		{ "0", 0, 0, 0 },
		{ "7", 7, 0, 7 },
		{ "8", 7, -ERANGE, 0 },
		{ "9007199254740993", UINT64_MAX, 0, UINT64_C(9007199254740993) },
		{ "9223372036854775807", UINT64_MAX, 0, INT64_MAX },
		{ "9223372036854775808", UINT64_MAX, 0, UINT64_C(9223372036854775808) },
		{ "18446744073709551615", UINT64_MAX, 0, UINT64_MAX },
		{ "18446744073709551615", UINT64_MAX - 1, -ERANGE, 0 },
		{ "18446744073709551616", UINT64_MAX, -ERANGE, 0 },
		{ "100000000000000000000000000", UINT64_MAX, -ERANGE, 0 },
		{ "-1", UINT64_MAX, -EINVAL, 0 },
		{ "-9223372036854775807", UINT64_MAX, -EINVAL, 0 },
		{ "1.0", UINT64_MAX, -EINVAL, 0 },
		{ "1e3", UINT64_MAX, -EINVAL, 0 },
		{ "true", UINT64_MAX, -EINVAL, 0 },
		{ "\"7\"", UINT64_MAX, -EINVAL, 0 },
		{ "\"18446744073709551615\"", UINT64_MAX, -EINVAL, 0 },
		{ "[7]", UINT64_MAX, -EINVAL, 0 },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		AUTO_JSON json_t *json = parse(rows[i].text);
		uint64_t value = 12345;
		int r = json_u64(json, rows[i].max, &value);

		if (r != rows[i].r || value != (r ? 12345 : rows[i].value))
			fail_msg("%s: %d, %ju", rows[i].text, r, (uintmax_t)value);
	}
}

static void signed_integers_are_exact(void **state UNUSED)
{
	AUTO_JSON json_t *json = parse("{\"a\":-9223372036854775807,\"b\":9223372036854775807,"
				       "\"c\":9223372036854775808,\"d\":1.5,\"e\":null}");
	int64_t value = 0;

	assert_int_equal(json_i64_field(json, "", "a", &value, NULL), 0);
	assert_true(value == -INT64_MAX);
	assert_int_equal(json_i64_field(json, "", "b", &value, NULL), 0);
	assert_true(value == INT64_MAX);
	assert_true(json_i64_field(json, "", "c", &value, NULL) < 0);
	assert_true(json_i64_field(json, "", "d", &value, NULL) < 0);
	assert_int_equal(json_i64_field(json, "", "e", &value, NULL), 0);
	assert_int_equal(json_i64_field(json, "", "f", &value, NULL), 0);
	assert_true(value == INT64_MAX);
}

static void fields_are_found_in_any_case_and_only_once(void **state UNUSED)
{
	AUTO_JSON json_t *json = parse("{\"Handle\":\"c1\",\"ENV\":[\"A=1\",\"B=2\"],\"priv\":true,"
				       "\"Twice\":1,\"tWICE\":2,\"nothing\":null}");
	AUTO_FREE char *handle = NULL;
	AUTO_STRV struct strv env = { 0 };
	struct err err = { 0 };
	bool priv = false;
	uint64_t value = 5;
	json_t *found;

	assert_int_equal(json_string_field(json, "", "handle", &handle, &err), 0);
	assert_string_equal(handle, "c1");
	assert_int_equal(json_strv_field(json, "", "env", &env, &err), 0);
	assert_int_equal(env.n_items, 2);
	assert_string_equal(env.items[1], "B=2");
	assert_int_equal(json_bool_field(json, "", "PRIV", &priv, &err), 0);
	assert_true(priv);
	assert_true(json_u64_field(json, "", "twice", 10, &value, &err) < 0);
	assert_int_equal(err.kind, ERR_BAD_REQUEST);
	assert_int_equal(json_field(json, "", "nothing", &found, &err), 0);
	assert_null(found);
	assert_int_equal(json_u64_field(json, "", "absent", 10, &value, &err), 0);
	assert_int_equal(value, 5);
}

static void a_field_of_another_type_is_refused_by_its_name(void **state UNUSED)
{
	AUTO_JSON json_t *json =
		parse("{\"n\":18446744073709551615,\"s\":\"text\",\"l\":[1],\"o\":{},"
		      "\"b\":[\"x\",18446744073709551615]}");
	AUTO_FREE char *text = NULL;
	AUTO_STRV struct strv list = { 0 };
	struct err err = { 0 };
	json_t *found;
	uint64_t value;
	bool flag;

	/* a large number is no text, although it travels as one */
	assert_true(json_string_field(json, "limits", "n", &text, &err) < 0);
	assert_non_null(strstr(err.msg, "limits.n"));
	assert_null(text);
	assert_true(json_strv_field(json, "", "b", &list, &err) < 0);
	assert_true(json_bool_field(json, "", "s", &flag, &err) < 0);
	assert_true(json_u64_field(json, "", "s", 9, &value, &err) < 0);
	assert_non_null(strstr(err.msg, "0 to 9"));
	assert_true(json_strv_field(json, "", "l", &list, &err) < 0);
	assert_true(json_strv_field(json, "", "o", &list, &err) < 0);
	assert_true(json_object_field(json, "", "l", &found, &err) < 0);
	assert_true(json_array_field(json, "", "o", &found, &err) < 0);
	assert_int_equal(json_object_field(json, "", "o", &found, &err), 0);
	assert_non_null(found);
	assert_int_equal(json_array_field(json, "", "l", &found, &err), 0);
	assert_non_null(found);
	assert_int_equal(err.kind, ERR_INVALID);
}

static void what_holds_nothing_is_as_if_it_were_absent(void **state UNUSED)
{
	static const char *const nothing[] = { "null", "false", "0", "0.0", "\"\"", "[]", "{}",
		"{\"a\":{\"b\":0},\"c\":null,\"d\":[]}" };
	static const char *const something[] = { "true", "1", "-1", "0.5", "\"x\"", "[0]", "[null]",
		"{\"a\":{\"b\":1}}", "18446744073709551615", "{\"a\":18446744073709551615}" };

	assert_true(json_is_nothing(NULL));
	for (size_t i = 0; i < N_ELEMENTS(nothing); i++) {
		AUTO_JSON json_t *json = parse(nothing[i]);

		assert_true(json_is_nothing(json));
	}
	for (size_t i = 0; i < N_ELEMENTS(something); i++) {
		AUTO_JSON json_t *json = parse(something[i]);

		assert_false(json_is_nothing(json));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(documents_are_told_apart),
		cmocka_unit_test(a_zero_byte_is_no_text),
		cmocka_unit_test(only_the_bytes_given_are_read),
		cmocka_unit_test(nesting_ends_at_its_limit),
		cmocka_unit_test(a_million_brackets_are_refused),
		cmocka_unit_test(integers_are_exact_over_64_bits),
		cmocka_unit_test(signed_integers_are_exact),
		cmocka_unit_test(fields_are_found_in_any_case_and_only_once),
		cmocka_unit_test(a_field_of_another_type_is_refused_by_its_name),
		cmocka_unit_test(what_holds_nothing_is_as_if_it_were_absent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

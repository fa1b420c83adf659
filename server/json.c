#include "server/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/strv.h"

/* ---- before jansson -------------------------------------------------------------------------- */

/* jansson's integers end at 2^63 - 1. Longer ones are handed over as strings with a NUL in front,
 * which no string of the document can have: "\u0000" is refused. */
static const char big_mark[] = "\"\\u0000";

struct scan {
	const char *text;
	size_t n_bytes, at;
	int depth;
	bool only_first; /* document */
	struct buf out;
};

static int scan_string(struct scan *scan, struct err *err)
{
	size_t start = scan->at++;

	while (scan->at < scan->n_bytes && scan->text[scan->at] != '"') {
		if (scan->text[scan->at] == '\\') {
			if (scan->n_bytes - scan->at >= 6 &&
				!memcmp(scan->text + scan->at, "\\u0000", 6))
				return err_set(err, ERR_BAD_REQUEST, EINVAL,
					"JSON: \\u0000 at byte %zu: no text here may hold a NUL",
					scan->at);
			scan->at++;
		}
		scan->at++;
	}
	if (scan->at >= scan->n_bytes)
		return err_set(err, ERR_INVALID, EINVAL, "JSON: unexpected end in a string");
	scan->at++;
	buf_add(&scan->out, scan->text + start, scan->at - start);
	return 0;
}

static void scan_digits(struct scan *scan)
{
	const char *start = scan->text + scan->at;
	size_t n = 0, left = scan->n_bytes - scan->at;
	bool is_integer = true;

	while (n < left && memchr("0123456789.eE+-", start[n], 15)) {
		is_integer &= start[n] >= '0' && start[n] <= '9';
		n++;
	}
	scan->at += n;
	if (!is_integer || *start == '0' || n < 19 ||
		(n == 19 && memcmp(start, "9223372036854775807", 19) <= 0)) {
		buf_add(&scan->out, start, n);
		return;
	}
	buf_adds(&scan->out, big_mark);
	buf_add(&scan->out, start, n);
	buf_adds(&scan->out, "\"");
}

static int scan_document(struct scan *scan, struct err *err)
{
	while (scan->at < scan->n_bytes) {
		char c = scan->text[scan->at];
		int r;

		if (c == '"') {
			r = scan_string(scan, err);
			if (r < 0)
				return r;
		} else if (c >= '0' && c <= '9') {
			scan_digits(scan);
		} else {
			scan->depth += (c == '{' || c == '[') - (c == '}' || c == ']');
			if (scan->depth > JSON_DEPTH_MAX)
				return err_set(err, ERR_INVALID, EINVAL,
					"JSON: nested deeper than %d", JSON_DEPTH_MAX);
			buf_add(&scan->out, &c, 1);
			scan->at++;
			if (scan->only_first && scan->depth == 0 && (c == '}' || c == ']'))
				break;
		}
	}
	return buf_failed(&scan->out) ? err_system(err, buf_failed(&scan->out), "JSON") : 0;
}

static int explain(const json_error_t *error, struct err *err)
{
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "JSON: %s", error->text);
	case json_error_end_of_input_expected:
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "JSON: bytes behind the document");
	default:
		return err_set(err, ERR_INVALID, EINVAL, "JSON: line %d, column %d: %s",
			error->line, error->column, error->text);
	}
}

static int parse(struct scan *scan, size_t flags, json_t **ret_json, struct err *err)
{
	json_error_t error;
	int r;

	buf_init(&scan->out, 2 * scan->n_bytes + 64);
	r = scan_document(scan, err);
	if (r == 0) {
		*ret_json = json_loadb(buf_str(&scan->out), scan->out.len,
			flags | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
		if (!*ret_json)
			r = explain(&error, err);
	}
	buf_done(&scan->out);
	return r;
}

int json_parse(const char *text, size_t n_bytes, json_t **ret_json, struct err *err)
{
	return parse(&(struct scan){ .text = text, .n_bytes = n_bytes }, 0, ret_json, err);
}

int json_parse_first(const char *text, size_t n_bytes, json_t **ret_json, struct err *err)
{
	return parse(&(struct scan){ .text = text, .n_bytes = n_bytes, .only_first = true },
		JSON_DISABLE_EOF_CHECK, ret_json, err);
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int wrong(const char *where, const char *name, const char *expected, struct err *err)
{
	return err_set(err, ERR_INVALID, EINVAL, "%s%s%s: expected %s", where, *where ? "." : "",
		name, expected);
}

int json_field(const json_t *object, const char *where, const char *name, json_t **ret_value,
	struct err *err)
{
	const char *key;
	json_t *value, *found = NULL;

	*ret_value = NULL;
	json_object_foreach((json_t *)object, key, value)
	{
		if (strcasecmp(key, name))
			continue;
		if (found)
			return err_set(err, ERR_BAD_REQUEST, EINVAL, "%s%s%s: given twice", where,
				*where ? "." : "", name);
		found = value;
	}
	if (found && !json_is_null(found))
		*ret_value = found;
	return 0;
}

/* An integer too long for jansson, in disguise. */
static bool is_big(const json_t *value)
{
	return json_is_string(value) && json_string_length(value) > 1 &&
		!json_string_value(value)[0];
}

bool json_is_text(const json_t *value)
{
	return json_is_string(value) && !is_big(value);
}

int json_string_field(
	const json_t *object, const char *where, const char *name, char **ret_text, struct err *err)
{
	json_t *value;
	char *copy;
	int r = json_field(object, where, name, &value, err);

	if (r < 0 || !value)
		return r;
	if (!json_is_text(value))
		return wrong(where, name, "a string", err);
	copy = strdup(json_string_value(value));
	if (!copy)
		return err_system(err, -ENOMEM, "%s", name);
	free(*ret_text);
	*ret_text = copy;
	return 0;
}

int json_bool_field(
	const json_t *object, const char *where, const char *name, bool *ret, struct err *err)
{
	json_t *value;
	int r = json_field(object, where, name, &value, err);

	if (r < 0 || !value)
		return r;
	if (!json_is_boolean(value))
		return wrong(where, name, "true or false", err);
	*ret = json_is_true(value);
	return 0;
}

int json_u64(const json_t *value, uint64_t max, uint64_t *ret)
{
	if (is_big(value))
		return parse_u64(json_string_value(value) + 1, max, ret);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EINVAL;
	if ((uint64_t)json_integer_value(value) > max)
		return -ERANGE;
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

int json_u64_field(const json_t *object, const char *where, const char *name, uint64_t max,
	uint64_t *ret, struct err *err)
{
	char expected[64];
	json_t *value;
	int r = json_field(object, where, name, &value, err);

	if (r < 0 || !value || json_u64(value, max, ret) == 0)
		return r;
	snprintf(expected, sizeof(expected), "an integer of 0 to %llu", (unsigned long long)max);
	return wrong(where, name, expected, err);
}

int json_i64_field(
	const json_t *object, const char *where, const char *name, int64_t *ret, struct err *err)
{
	json_t *value;
	int r = json_field(object, where, name, &value, err);

	if (r < 0 || !value)
		return r;
	if (!json_is_integer(value))
		return wrong(where, name, "an integer of 64 bits", err);
	*ret = json_integer_value(value);
	return 0;
}

int json_object_field(
	const json_t *object, const char *where, const char *name, json_t **ret, struct err *err)
{
	int r = json_field(object, where, name, ret, err);

	return r == 0 && *ret && !json_is_object(*ret) ? wrong(where, name, "an object", err) : r;
}

int json_array_field(
	const json_t *object, const char *where, const char *name, json_t **ret, struct err *err)
{
	int r = json_field(object, where, name, ret, err);

	return r == 0 && *ret && !json_is_array(*ret) ? wrong(where, name, "a list", err) : r;
}

#define WHERE_BYTES 96

int json_list_parse(const json_t *array, const char *where, const struct json_list *list,
	void **ret_items, size_t *ret_n, struct err *err)
{
	char at[WHERE_BYTES];
	int r = 0;

	if (json_array_size(array) > list->max)
		return err_set(err, ERR_INVALID, E2BIG, "%s: more than %zu",
			*where ? where : list->name, list->max);
	*ret_items = calloc(json_array_size(array) + 1, list->item_bytes);
	if (!*ret_items)
		return err_system(err, -ENOMEM, "%s", list->name);
	for (size_t i = 0; i < json_array_size(array) && r == 0; i++) {
		snprintf(at, sizeof(at), "%.60s[%zu]", where, i);
		r = list->parse(json_array_get(array, i), at,
			(char *)*ret_items + (*ret_n)++ * list->item_bytes, err);
	}
	return r;
}

int json_list_field(const json_t *object, const char *where, const struct json_list *list,
	void **ret_items, size_t *ret_n, struct err *err)
{
	char at[WHERE_BYTES];
	json_t *array;
	int r = json_array_field(object, where, list->name, &array, err);

	if (r < 0 || !array)
		return r;
	snprintf(at, sizeof(at), "%.60s%s%s", where, *where ? "." : "", list->name);
	return json_list_parse(array, at, list, ret_items, ret_n, err);
}

int json_strv_field(const json_t *object, const char *where, const char *name, struct strv *ret,
	struct err *err)
{
	json_t *list, *item;
	size_t i;
	int r = json_array_field(object, where, name, &list, err);

	if (r < 0 || !list)
		return r;
	json_array_foreach(list, i, item)
	{
		if (!json_is_text(item))
			return wrong(where, name, "a list of strings", err);
		if (strv_add(ret, json_string_value(item)) < 0)
			return err_system(err, -ENOMEM, "%s", name);
	}
	return 0;
}

bool json_is_nothing(const json_t *value)
{
	const char *key;
	json_t *item;

	if (!value || json_is_null(value) || json_is_false(value))
		return true;
	if (json_is_string(value))
		return json_string_length(value) == 0;
	if (json_is_number(value))
		return json_number_value(value) == 0;
	if (json_is_array(value))
		return json_array_size(value) == 0;
	json_object_foreach((json_t *)value, key, item) if (!json_is_nothing(item)) return false;
	return json_is_object(value);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void add_escape(struct buf *out, unsigned char c)
{
	static const char letters[] = { ['\b'] = 'b',
		['\f'] = 'f',
		['\n'] = 'n',
		['\r'] = 'r',
		['\t'] = 't',
		['"'] = '"',
		['\\'] = '\\' };

	if (letters[c])
		buf_addf(out, "\\%c", letters[c]);
	else
		buf_addf(out, "\\u%04X", c);
}

static size_t plain_length(const char *text)
{
	size_t n = 0;

	while ((unsigned char)text[n] >= 0x20 && text[n] != '"' && text[n] != '\\')
		n++;
	return n;
}

void json_add_string(struct buf *out, const char *text)
{
	buf_add(out, "\"", 1);
	for (;;) {
		size_t n = plain_length(text);

		buf_add(out, text, n);
		text += n;
		if (!*text)
			break;
		add_escape(out, (unsigned char)*text++);
	}
	buf_add(out, "\"", 1);
}

#include "server/volume_json.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/registry.h"
#include "server/json.h"
#include "volumes/volumes.h"

struct member {
	const char *key, *value;
};

static int add_member(const char *key, void *value, void *arg)
{
	struct member **next = arg;

	*(*next)++ = (struct member){ key, value };
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct member *left = a, *right = b;

	return strcmp(left->key, right->key);
}

/* In the order of the keys' bytes, as Go writes maps. */
static struct member *sorted_members(const struct registry *properties, size_t *ret_n)
{
	size_t n = properties ? registry_count(properties) : 0;
	struct member *members = calloc(n + 1, sizeof(*members));
	struct member *next = members;

	if (!members)
		return NULL;
	if (n)
		registry_each(properties, add_member, &next);
	qsort(members, n, sizeof(*members), by_key);
	*ret_n = n;
	return members;
}

static json_t *properties_json(const struct registry *properties)
{
	size_t n = 0;
	AUTO_FREE struct member *members = sorted_members(properties, &n);
	json_t *json;

	if (!properties)
		return json_null();
	if (!members)
		return NULL;
	json = json_object();
	for (size_t i = 0; i < n; i++)
		json_object_set_new(json, members[i].key, json_string(members[i].value));
	return json;
}

json_t *volume_json(const struct volume_view *view)
{
	return json_pack("{s:s, s:s, s:o, s:b}", "handle", view->handle, "path", view->path,
		"properties", properties_json(view->properties), "privileged", view->privileged);
}

static int add_properties(struct buf *out, const struct registry *properties)
{
	size_t n = 0;
	AUTO_FREE struct member *members = sorted_members(properties, &n);

	if (!members)
		return -ENOMEM;
	if (!properties)
		return buf_adds(out, "null");
	buf_adds(out, "{");
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_adds(out, ",");
		json_add_string(out, members[i].key);
		buf_adds(out, ":");
		json_add_string(out, members[i].value);
	}
	return buf_adds(out, "}");
}

int volume_json_add(struct buf *out, const struct volume_view *view)
{
	int r;

	buf_adds(out, "{\"handle\":");
	json_add_string(out, view->handle);
	buf_adds(out, ",\"path\":");
	json_add_string(out, view->path);
	buf_adds(out, ",\"properties\":");
	r = add_properties(out, view->properties);
	buf_adds(out, view->privileged ? ",\"privileged\":true}" : ",\"privileged\":false}");
	return r < 0 ? r : buf_failed(out);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* What is wrong with the document itself is the client's fault in its most literal sense. */
static int bad(int r, struct err *err)
{
	if (r < 0 && err->kind == ERR_INVALID)
		err->kind = ERR_BAD_REQUEST;
	return r;
}

/* null is an empty object. */
static int parse_object(const char *text, size_t n_bytes, json_t **ret_json, struct err *err)
{
	AUTO_JSON json_t *json = NULL;
	int r = bad(json_parse_first(text ? text : "", n_bytes, &json, err), err);

	if (r < 0)
		return r;
	if (json_is_null(json)) {
		*ret_json = json_object();
		return *ret_json ? 0 : err_system(err, -ENOMEM, "JSON");
	}
	if (!json_is_object(json))
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "JSON: expected an object");
	*ret_json = TAKE_PTR(json);
	return 0;
}

static int parse_id(
	const json_t *json, const char *name, bool *ret_has, int64_t *ret_id, struct err *err)
{
	json_t *value;
	int r = json_field(json, "", name, &value, err);

	if (r < 0 || !value)
		return r;
	*ret_has = true;
	r = json_i64_field(json, "", name, ret_id, err);
	if (r == 0 && *ret_id >= UINT32_MAX)
		r = err_set(err, ERR_BAD_REQUEST, ERANGE, "%s: expected at most %u", name,
			UINT32_MAX - 1);
	return r;
}

static int parse_properties(const json_t *json, struct volume_spec *spec, struct err *err)
{
	json_t *properties, *value;
	const char *key;
	int r = json_object_field(json, "", "properties", &properties, err);

	if (r < 0 || !properties)
		return r;
	spec->has_properties = true;
	json_object_foreach(properties, key, value)
	{
		if (!json_is_text(value))
			return err_set(err, ERR_BAD_REQUEST, EINVAL,
				"properties.%.100s: expected a string", key);
		if (strv_add(&spec->keys, key) < 0 ||
			strv_add(&spec->values, json_string_value(value)) < 0)
			return err_system(err, -ENOMEM, "properties");
	}
	return 0;
}

/* The members of a strategy that are of a wrong type are as good as absent. */
static int text_or_null(const json_t *json, const char *name, char **ret_text, struct err *err)
{
	int r = json_string_field(json, "strategy", name, ret_text, err);

	if (*ret_text && !**ret_text) {
		free(*ret_text);
		*ret_text = NULL;
	}
	return r == -ENOMEM ? r : 0;
}

static int parse_type(const json_t *strategy, enum volume_strategy *ret_type, struct err *err)
{
	AUTO_FREE char *type = NULL;
	int r = text_or_null(strategy, "type", &type, err);

	if (r < 0)
		return r;
	if (type && !strcmp(type, "empty"))
		*ret_type = VOLUME_EMPTY;
	else if (type && !strcmp(type, "cow"))
		*ret_type = VOLUME_COW;
	else if (type && !strcmp(type, "import"))
		*ret_type = VOLUME_IMPORT;
	else
		r = err_set(err, ERR_INVALID, EINVAL,
			"strategy.type '%.60s': expected empty, cow or import", type ? type : "");
	return r;
}

static int parse_strategy(const json_t *json, struct volume_spec *spec, struct err *err)
{
	struct err ignored;
	json_t *strategy;
	int r = json_field(json, "", "strategy", &strategy, err);

	if (r < 0)
		return bad(r, err);
	if (!json_is_object(strategy))
		return err_set(err, ERR_INVALID, EINVAL, "strategy: expected an object");
	r = parse_type(strategy, &spec->strategy, err);
	if (r < 0 || spec->strategy == VOLUME_EMPTY)
		return r;
	if (spec->strategy == VOLUME_COW)
		return text_or_null(strategy, "volume", &spec->source, err);
	json_bool_field(strategy, "strategy", "follow_symlinks", &spec->follow_symlinks, &ignored);
	return text_or_null(strategy, "path", &spec->source, err);
}

int volume_spec_parse(
	const char *text, size_t n_bytes, struct volume_spec *ret_spec, struct err *err)
{
	AUTO_JSON json_t *json = NULL;
	int r = parse_object(text, n_bytes, &json, err);

	if (r == 0)
		r = json_string_field(json, "", "handle", &ret_spec->handle, err);
	if (r == 0)
		r = parse_properties(json, ret_spec, err);
	if (r == 0)
		r = json_bool_field(json, "", "privileged", &ret_spec->privileged, err);
	if (r == 0)
		r = parse_id(json, "uid", &ret_spec->has_uid, &ret_spec->uid, err);
	if (r == 0)
		r = parse_id(json, "gid", &ret_spec->has_gid, &ret_spec->gid, err);
	return r < 0 ? bad(r, err) : parse_strategy(json, ret_spec, err);
}

int volume_value_parse(const char *text, size_t n_bytes, char **ret_value, struct err *err)
{
	AUTO_JSON json_t *json = NULL;
	int r = parse_object(text, n_bytes, &json, err);

	return r < 0 ? r : bad(json_string_field(json, "", "value", ret_value, err), err);
}

int volume_flag_parse(const char *text, size_t n_bytes, bool *ret_value, struct err *err)
{
	AUTO_JSON json_t *json = NULL;
	int r = parse_object(text, n_bytes, &json, err);

	return r < 0 ? r : bad(json_bool_field(json, "", "value", ret_value, err), err);
}

int volume_handles_parse(
	const char *text, size_t n_bytes, struct strv *ret_handles, struct err *err)
{
	AUTO_JSON json_t *json = NULL;
	int r = bad(json_parse_first(text ? text : "", n_bytes, &json, err), err);

	if (r < 0 || json_is_null(json))
		return r;
	if (!json_is_array(json))
		return err_set(err, ERR_BAD_REQUEST, EINVAL, "JSON: expected an array");
	for (size_t i = 0; i < json_array_size(json); i++) {
		const json_t *item = json_array_get(json, i);

		if (!json_is_text(item))
			return err_set(err, ERR_BAD_REQUEST, EINVAL, "[%zu]: expected a string", i);
		r = strv_add(ret_handles, json_string_value(item));
		if (r < 0)
			return err_system(err, r, "handles");
	}
	return 0;
}

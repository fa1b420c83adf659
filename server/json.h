/* json.h - request documents: jansson behind a look at the text (depth, NUL, integers up to 2^64 -
 * 1), and fields that say what is wrong with them. Keys in any case, twice the same (folded) is
 * refused, unknown ones are passed over, null is absent: as Go reads them, only stricter. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;
struct strv;

#define JSON_DEPTH_MAX 32

/* ERR_INVALID for broken JSON, ERR_BAD_REQUEST for duplicate keys and bytes behind the document. An
 * empty body is broken. *ret_json is the caller's. */
int json_parse(const char *text, size_t n_bytes, json_t **ret_json, struct err *err);

/* The same, and what stands behind the document is nobody's business. */
int json_parse_first(const char *text, size_t n_bytes, json_t **ret_json, struct err *err);

static inline void auto_json(json_t **json)
{
	json_decref(*json);
}
#define AUTO_JSON AUTO(auto_json)

/* The member or NULL (also for null), borrowed. where is the path of object for messages ("" at the
 * top). */
int json_field(const json_t *object, const char *where, const char *name, json_t **ret_value,
	struct err *err);
/* Each leaves *ret alone if the member is absent. */
int json_string_field(const json_t *object, const char *where, const char *name, char **ret_text,
	struct err *err);
int json_bool_field(
	const json_t *object, const char *where, const char *name, bool *ret, struct err *err);
int json_u64_field(const json_t *object, const char *where, const char *name, uint64_t max,
	uint64_t *ret, struct err *err);
int json_i64_field(
	const json_t *object, const char *where, const char *name, int64_t *ret, struct err *err);
int json_strv_field(const json_t *object, const char *where, const char *name, struct strv *ret,
	struct err *err);
/* An object or array member, borrowed; NULL if absent. */
int json_object_field(
	const json_t *object, const char *where, const char *name, json_t **ret, struct err *err);
int json_array_field(
	const json_t *object, const char *where, const char *name, json_t **ret, struct err *err);

/* A JSON array, whose path is where, as a new array of items: zeroed ones of item_bytes, which parse fills
 * one after the other, told the path of each. *ret_items and *ret_n (0 before) are the caller's, also when it
 * fails. */
struct json_list {
	const char *name;
	size_t max, item_bytes;
	int (*parse)(const json_t *json, const char *where, void *item, struct err *err);
};
int json_list_parse(const json_t *array, const char *where, const struct json_list *list,
	void **ret_items, size_t *ret_n, struct err *err);
/* The same for the member list->name; all is left alone if it is absent. */
int json_list_field(const json_t *object, const char *where, const struct json_list *list,
	void **ret_items, size_t *ret_n, struct err *err);

/* A value that is a string (integers beyond 2^63 - 1 look like one to jansson here). */
bool json_is_text(const json_t *value);
/* A value that is an integer of 0 to max, in the whole range of uint64_t. */
int json_u64(const json_t *value, uint64_t max, uint64_t *ret);
/* Nothing but null, false, 0, "" and empty things in it: as if it were not there. */
bool json_is_nothing(const json_t *value);

/* With its quotes, as jansson writes it; text is UTF-8. Failures show in buf_failed. */
void json_add_string(struct buf *out, const char *text);

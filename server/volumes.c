/* Handlers of the volume API. Statuses and texts are baggageclaim's, each with the cause behind it. */
#include "volumes/volumes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/registry.h"
#include "server/json.h"
#include "server/reply.h"
#include "server/request.h"
#include "server/router.h"
#include "server/volume_json.h"

#define LIST_CAP_BYTES ((size_t)1 << 30)
#define HOLD_MS 20000 /* a poll; clients wait 60 s for the head of an answer */

static const char failed_to_create[] = "failed to create volume";
static const char failed_to_get[] = "failed to get volume";
static const char failed_to_set_property[] = "failed to set property on volume";
static const char failed_to_get_privileged[] = "failed to get privileged status of volume";
static const char failed_to_set_privileged[] = "failed to change privileged status of volume";
static const char failed_to_destroy[] = "failed to destroy volume";

void volume_fail(struct request *request, unsigned status, const char *what, const struct err *err)
{
	char message[sizeof(err->msg) + 64];

	snprintf(message, sizeof(message), "%s: %s", what, err->msg);
	reply_failure(request, status, message);
}

/* 404 for what is not there, else 500. */
static void fail(struct request *request, int r, const char *what, const struct err *err)
{
	volume_fail(request, r == -ENOENT ? 404 : 500, what, err);
}

static const char *handle_of(const struct request *request)
{
	return request_param(request, "handle");
}

/* ---- lists ----------------------------------------------------------------------------------- */

static int add_to_list(const struct volume_view *view, void *arg)
{
	struct buf *list = arg;

	if (list->len > 1)
		buf_adds(list, ",");
	return volume_json_add(list, view);
}

/* NULL, or the first key that is given twice, with both values. */
static const char *repeated_key(const struct request *request, const char *values[2])
{
	for (int i = 0; i < request->n_query; i++)
		for (int j = i + 1; j < request->n_query; j++)
			if (!strcmp(request->query[i].key, request->query[j].key)) {
				values[0] = request->query[i].value;
				values[1] = request->query[j].value;
				return request->query[i].key;
			}
	return NULL;
}

void handle_volume_list(struct request *request)
{
	const char *keys[MAX_QUERY], *values[MAX_QUERY], *twice[2];
	const char *repeated = repeated_key(request, twice);
	AUTO_BUF struct buf list;
	char message[512];
	struct err err = { 0 };
	int r;

	buf_init(&list, LIST_CAP_BYTES);
	if (repeated) {
		snprintf(message, sizeof(message),
			"a property may only have a single value: %.120s has many (%.120s, %.120s)",
			repeated, twice[0], twice[1]);
		reply_failure(request, 422, message);
		return;
	}
	for (int i = 0; i < request->n_query; i++) {
		keys[i] = request->query[i].key;
		values[i] = request->query[i].value;
	}
	buf_adds(&list, "[");
	r = volumes_each(
		request_volumes(request), keys, values, request->n_query, add_to_list, &list, &err);
	buf_adds(&list, "]\n");
	if (r == 0)
		r = buf_failed(&list);
	if (r < 0 && err.kind == ERR_NONE)
		err_system(&err, r, "list");
	if (r < 0)
		volume_fail(request, 500, "failed to list volumes", &err);
	else
		reply_bytes(request, 200, "application/json", NULL, list.data, list.len);
}

static int take_json(const struct volume_view *view, void *arg)
{
	json_t **ret_json = arg;

	*ret_json = volume_json(view);
	return 0;
}

void handle_volume_get(struct request *request)
{
	json_t *json = NULL;
	struct err err;
	int r = volume_look(request_volumes(request), handle_of(request), take_json, &json, &err);

	if (r < 0)
		fail(request, r, failed_to_get, &err);
	else
		reply_json(request, 200, json);
}

/* ---- making ---------------------------------------------------------------------------------- */

static void fail_to_parse(struct request *request, const char *what, const struct err *err)
{
	unsigned status = err->kind == ERR_INVALID ? 422 : err->kind == ERR_BAD_REQUEST ? 400 : 500;

	volume_fail(request, status, what, err);
}

/* 0, or -errno and answered. */
static int parse_spec(struct request *request, struct volume_spec *spec)
{
	struct err err;
	int r = volume_spec_parse(request->body, request->body_bytes, spec, &err);

	if (r == 0)
		return 0;
	fail_to_parse(request, failed_to_create, &err);
	return r;
}

static void fail_to_create(struct request *request, int r, const struct err *err)
{
	bool is_clients = r == -ENOENT && err->kind == ERR_NOT_FOUND;

	volume_fail(request,
		is_clients                             ? 422
			: err->kind == ERR_BAD_REQUEST ? 400
						       : 500,
		failed_to_create, err);
}

/* As the client asked for it: what was null stays null. */
static void reply_made(struct request *request, unsigned status, const struct volume_spec *spec)
{
	json_t *json = NULL;
	struct err err;

	if (volume_look(request_volumes(request), spec->handle, take_json, &json, &err) < 0) {
		reply_failure(request, 500, "failed to create volume: it was destroyed meanwhile");
		return;
	}
	if (spec->has_uid)
		json_object_set_new(json, "uid", json_integer(spec->uid));
	if (spec->has_gid)
		json_object_set_new(json, "gid", json_integer(spec->gid));
	reply_json(request, status, json);
}

void handle_volume_create(struct request *request)
{
	AUTO(volume_spec_done) struct volume_spec spec = { 0 };
	struct err err;
	int r;

	if (parse_spec(request, &spec) < 0)
		return;
	r = volume_create(request_volumes(request), &spec, &err);
	if (r < 0)
		fail_to_create(request, r, &err);
	else
		reply_made(request, 201, &spec);
}

void handle_volume_create_async(struct request *request)
{
	AUTO(volume_spec_done) struct volume_spec spec = { 0 };
	char handle[VOLUME_HANDLE_SIZE];
	struct err err;
	int r;

	if (parse_spec(request, &spec) < 0)
		return;
	r = volume_create_later(request_volumes(request), &spec, handle, &err);
	if (r == -EALREADY)
		reply_failure(request, 500, err.msg);
	else if (r < 0)
		fail_to_create(request, r, &err);
	else
		reply_json(request, 201, json_pack("{s:s}", "handle", handle));
}

void handle_volume_future_poll(struct request *request)
{
	AUTO(volume_spec_done) struct volume_spec spec = { 0 };
	struct err err;
	int r = volume_future_wait(request_volumes(request), handle_of(request), HOLD_MS,
		request_stop_fd(request), &spec, &err);

	if (r == -ESRCH)
		reply_nothing(request, 404);
	else if (r == -EAGAIN)
		reply_nothing(request, 204);
	else if (r < 0)
		fail_to_create(request, r, &err);
	else
		reply_made(request, 200, &spec);
}

void handle_volume_future_cancel(struct request *request)
{
	if (volume_future_drop(request_volumes(request), handle_of(request)) < 0)
		reply_nothing(request, 404);
	else
		reply_nothing(request, 204);
}

/* ---- properties and the privileged flag ------------------------------------------------------ */

void handle_volume_property_set(struct request *request)
{
	AUTO_FREE char *value = NULL;
	struct err err;
	int r = volume_value_parse(request->body, request->body_bytes, &value, &err);

	if (r < 0) {
		fail_to_parse(request, failed_to_set_property, &err);
		return;
	}
	r = volume_set_property(request_volumes(request), handle_of(request),
		request_param(request, "property"), value ? value : "", &err);
	if (r < 0)
		fail(request, r, failed_to_set_property, &err);
	else
		reply_nothing(request, 204);
}

static int take_privileged(const struct volume_view *view, void *arg)
{
	*(bool *)arg = view->privileged;
	return 0;
}

void handle_volume_privileged_get(struct request *request)
{
	bool privileged;
	struct err err;
	int r = volume_look(
		request_volumes(request), handle_of(request), take_privileged, &privileged, &err);

	if (r < 0)
		fail(request, r, failed_to_get_privileged, &err);
	else
		reply_json(request, 200, json_boolean(privileged));
}

void handle_volume_privileged_set(struct request *request)
{
	bool value = false;
	struct err err;
	int r = volume_flag_parse(request->body, request->body_bytes, &value, &err);

	if (r < 0) {
		fail_to_parse(request, failed_to_set_privileged, &err);
		return;
	}
	r = volume_set_privileged(request_volumes(request), handle_of(request), value, &err);
	if (r < 0)
		fail(request, r, failed_to_set_privileged, &err);
	else
		reply_nothing(request, 204);
}

void handle_volume_size(struct request *request)
{
	uint64_t bytes, names;
	struct err err;
	int r = volume_size(request_volumes(request), handle_of(request), &bytes, &names, &err);

	if (r < 0)
		fail(request, r, "failed to measure volume", &err);
	else
		reply_json(request, 200,
			json_pack("{s:I, s:I}", "bytes", (json_int_t)bytes, "names",
				(json_int_t)names));
}

/* ---- destroying ------------------------------------------------------------------------------ */

void handle_volume_destroy(struct request *request)
{
	struct err err;
	int r = volume_destroy(request_volumes(request), handle_of(request), &err);

	if (r < 0)
		fail(request, r, failed_to_destroy, &err);
	else
		reply_nothing(request, 204);
}

void handle_volume_destroy_many(struct request *request)
{
	AUTO_STRV struct strv handles = { 0 };
	struct err err;
	int r = volume_handles_parse(request->body, request->body_bytes, &handles, &err);

	if (r < 0) {
		fail_to_parse(request, failed_to_destroy, &err);
		return;
	}
	if (volumes_destroy(request_volumes(request), &handles, &err) < 0)
		volume_fail(request, 500, failed_to_destroy, &err);
	else
		reply_nothing(request, 204);
}

/* There are none: what nobody uses is deleted when its last user goes. */
void handle_volume_cleanup(struct request *request)
{
	reply_nothing(request, 204);
}

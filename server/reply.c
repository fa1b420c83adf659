#include "server/reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "server/json.h"
#include "server/request.h"

static const struct {
	unsigned status;
	const char *type;
} kinds[N_ERR_KINDS] = {
	[ERR_NONE] = { 500, "" },
#define ERROR_KIND(kind, http_status, garden_type) [ERR_##kind] = { http_status, garden_type },
#include "api-spec/errors.def"
#undef ERROR_KIND
};

/* One line: clients of Garden read a document and a newline. */
static char *dump_line(json_t *json)
{
	size_t n = json_dumpb(json, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
	char *text = n ? malloc(n + 2) : NULL; /* 0: it has no memory either */

	if (!text)
		return NULL;
	if (json_dumpb(json, text, n, JSON_COMPACT | JSON_ENCODE_ANY) != n) {
		free(text);
		return NULL;
	}
	text[n] = '\n';
	text[n + 1] = '\0';
	return text;
}

/* The message may quote what a client sent in bytes that are no UTF-8, or be cut within a letter
 * (of four bytes at most). */
static json_t *text_value(const char *text)
{
	size_t len = strlen(text);
	json_t *value = NULL;

	for (size_t less = 0; !value && less < 4 && less <= len; less++)
		value = json_stringn(text, len - less);
	return value ? value : json_string("(not UTF-8)");
}

static char *garden_document(const struct request *request, const struct err *err)
{
	const char *type = kinds[err->kind].type;
	const char *handle = err->kind == ERR_NO_CONTAINER ? request_param(request, "handle") : "";
	const char *process = err->kind == ERR_NO_PROCESS ? request_param(request, "process") : "";
	json_t *json = json_pack("{s:s, s:o, s:o, s:o, s:s}", "Type", type, "Message",
		text_value(err->msg), "Handle", text_value(handle), "ProcessID",
		text_value(process), "Binary", "");
	char *text = json ? dump_line(json) : NULL;

	json_decref(json);
	return text;
}

static char *failure_document(const char *message)
{
	json_t *json = json_pack("{s:o}", "error", text_value(message));
	char *text = json ? dump_line(json) : NULL;

	json_decref(json);
	return text;
}

static const char *or_short(const struct request *request, const char *document)
{
	if (document)
		return document;
	return request->service == SERVICE_VOLUMES
		? "{\"error\":\"out of memory\"}\n"
		: "{\"Type\":\"\",\"Message\":\"out of memory\",\"Handle\":\"\",\"ProcessID\":\"\",\"Binary\":\"\"}\n";
}

const char *error_document(const struct request *request, const struct err *err, char **ret_owned)
{
	*ret_owned = request->service == SERVICE_VOLUMES ? failure_document(err->msg)
							 : garden_document(request, err);
	return or_short(request, *ret_owned);
}

static void reply_document(struct request *request, unsigned status, const char *text)
{
	reply_bytes(request, status, "application/json", NULL, text, strlen(text));
}

void reply_failure(struct request *request, unsigned status, const char *message)
{
	AUTO_FREE char *document = failure_document(message);

	reply_document(request, status, or_short(request, document));
}

void reply_nothing(struct request *request, unsigned status)
{
	reply_bytes(request, status, NULL, NULL, "", 0);
}

void reply_error(struct request *request, const struct err *err)
{
	AUTO_FREE char *owned = NULL;
	const char *text = error_document(request, err, &owned);

	reply_document(request, kinds[err->kind].status, text);
}

void reply_json(struct request *request, unsigned status, json_t *take_json)
{
	AUTO_FREE char *text = take_json ? dump_line(take_json) : NULL;
	struct err err;

	json_decref(take_json);
	if (text) {
		reply_document(request, status, text);
		return;
	}
	err_system(&err, -ENOMEM, "reply");
	reply_error(request, &err);
}

void reply_empty(struct request *request)
{
	reply_bytes(request, 200, "application/json", NULL, "{}\n", 3);
}

void reply_text(struct request *request, unsigned status, const char *text)
{
	reply_bytes(request, status, "text/plain; charset=utf-8", NULL, text, strlen(text));
}

int request_json(struct request *request, json_t **ret_json, struct err *err)
{
	AUTO_JSON json_t *json = NULL;
	int r = json_parse(request->body ? request->body : "", request->body_bytes, &json, err);

	if (r == 0 && !json_is_object(json))
		r = err_set(err, ERR_INVALID, EINVAL, "JSON: expected an object");
	if (r < 0) {
		reply_error(request, err);
		return r;
	}
	*ret_json = TAKE_PTR(json);
	return 0;
}

void reply_bulk(
	struct request *request, json_t *(*entry)(struct backend *backend, const char *handle))
{
	const char *given = request_query(request, "handles");
	AUTO_FREE char *handles = given ? strdup(given) : NULL;
	char *rest = handles, *handle;
	json_t *json;
	struct err err;

	if (!handles) {
		err_set(&err, ERR_INVALID, EINVAL, "handles: the query parameter is missing");
		reply_error(request, &err);
		return;
	}
	json = json_object();
	while ((handle = strsep(&rest, ",")))
		if (*handle)
			json_object_set_new(json, handle, entry(request_backend(request), handle));
	reply_json(request, 200, json);
}

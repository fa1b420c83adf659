/* Handlers of containers and their properties. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "metrics.h"
#include "net_rule.h"
#include "pea.h"
#include "server/json.h"
#include "server/limits_json.h"
#include "server/metrics_json.h"
#include "server/request.h"
#include "server/router.h"
#include "server/spec_json.h"

static void reply_result(struct request *request, int r, const struct err *err)
{
	if (r < 0)
		reply_error(request, err);
	else
		reply_empty(request);
}

/* ---- the server ------------------------------------------------------------------------------ */

void handle_index(struct request *request)
{
	AUTO_BUF struct buf text;
	const struct route *route;

	buf_init(&text, 65536);
	buf_adds(&text, "cloche: a Garden server. It runs programs in containers.\n\n");
	for (unsigned i = 0; (route = router_route(i)); i++)
		buf_addf(&text, "%-7s%s\n", route->method, route->path);
	reply_text(request, 200, buf_str(&text));
}

void handle_ping(struct request *request)
{
	struct err err;

	if (backend_check(request_backend(request), &err) < 0)
		reply_error(request, &err);
	else
		reply_empty(request);
}

void handle_capacity(struct request *request)
{
	uint64_t memory, disk, max;

	backend_capacity(request_backend(request), &memory, &disk, &max);
	reply_json(request, 200,
		json_pack("{s:I, s:I, s:I, s:I}", "memory_in_bytes", (json_int_t)memory,
			"disk_in_bytes", (json_int_t)disk, "schedulable_disk_in_bytes",
			(json_int_t)disk, "max_containers", (json_int_t)max));
}

/* ---- containers ------------------------------------------------------------------------------ */

static json_t *strings(const struct strv *list)
{
	json_t *json = json_array();

	for (size_t i = 0; json && i < list->n_items; i++)
		json_array_append_new(json, json_string(list->items[i]));
	return json;
}

/* Only the first value of a repeated key counts. */
static size_t filter_of(const struct request *request, struct property *filter)
{
	size_t n = 0;

	for (int i = 0; i < request->n_query; i++) {
		const struct query_pair *pair = &request->query[i];

		if (pair->value == request_query(request, pair->key))
			filter[n++] = (struct property){ (char *)pair->key, (char *)pair->value };
	}
	return n;
}

void handle_container_list(struct request *request)
{
	struct property filter[MAX_QUERY];
	AUTO_STRV struct strv handles = { 0 };
	struct err err;

	if (container_list(request_backend(request), filter, filter_of(request, filter), &handles,
		    &err) < 0)
		reply_error(request, &err);
	else
		reply_json(request, 200, json_pack("{s:o}", "Handles", strings(&handles)));
}

void handle_container_create(struct request *request)
{
	AUTO(container_spec_done) struct container_spec spec = { 0 };
	AUTO_JSON json_t *json = NULL;
	char handle[HANDLE_SIZE];
	struct err err;
	int r;

	if (request_json(request, &json, &err) < 0)
		return;
	r = container_spec_parse(json, &spec, &err);
	if (r == 0)
		r = container_create(request_backend(request), &spec, handle, &err);
	if (r < 0)
		reply_error(request, &err);
	else
		reply_json(request, 200, json_pack("{s:s}", "Handle", handle));
}

void handle_container_destroy(struct request *request)
{
	struct err err;
	int r = container_destroy(request_backend(request), request_param(request, "handle"), &err);

	reply_result(request, r, &err);
}

void handle_container_stop(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	AUTO_JSON json_t *json = NULL;
	bool kill_now = false;
	struct err err;
	int r;

	if (!container || request_json(request, &json, &err) < 0)
		return;
	r = json_bool_field(json, "", "kill", &kill_now, &err);
	if (r == 0)
		r = container_stop(container, kill_now, &err);
	reply_result(request, r, &err);
}

void handle_container_grace_time(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	AUTO_JSON json_t *json = NULL;
	struct err err;
	int r;

	if (!container)
		return;
	r = json_parse(request->body ? request->body : "", request->body_bytes, &json, &err);
	if (r == 0 && (!json_is_integer(json) || json_integer_value(json) < 0))
		r = err_set(&err, ERR_INVALID, EINVAL,
			"grace time: expected an integer of nanoseconds");
	if (r == 0)
		r = container_set_grace(container, json_integer_value(json), &err);
	reply_result(request, r, &err);
}

/* ---- info ------------------------------------------------------------------------------------ */

static int add_property(const char *key, const char *value, void *arg)
{
	return json_object_set_new(arg, key, json_string(value));
}

static json_t *properties_json(struct container *container)
{
	json_t *json = json_object();

	if (json)
		container_properties(container, add_property, json);
	return json;
}

static json_t *ports_json(const struct container_info *info)
{
	json_t *json = json_array();

	for (size_t i = 0; json && i < info->n_ports; i++)
		json_array_append_new(json,
			json_pack("{s:i, s:i}", "HostPort", info->ports[i].host, "ContainerPort",
				info->ports[i].container));
	return json;
}

static json_t *info_json(struct container *container, struct err *err)
{
	AUTO(container_info_done) struct container_info info = { 0 };

	if (container_info(container, &info, err) < 0)
		return NULL;
	return json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "State", info.state,
		"Events", info.events.n_items ? strings(&info.events) : json_null(), "HostIP",
		info.network.host_ip, "ContainerIP", info.network.container_ip, "ContainerIPv6",
		info.network.container_ip_6, "ExternalIP", info.network.external_ip,
		"ContainerPath", info.path, "ProcessIDs", strings(&info.process_ids), "Properties",
		properties_json(container), "MappedPorts", ports_json(&info));
}

void handle_container_info(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	struct err err;
	json_t *json;

	if (!container)
		return;
	json = info_json(container, &err);
	if (json)
		reply_json(request, 200, json);
	else
		reply_error(request, &err);
}

/* An unknown one has an empty info and an error without type and handle, as the reference flattens
 * it. */
static json_t *bulk_entry(struct backend *backend, const char *handle)
{
	struct err err;
	struct container *container AUTO_CONTAINER = container_get(backend, handle, &err);
	json_t *info = container ? info_json(container, &err) : NULL;

	if (info)
		return json_pack("{s:o, s:n}", "Info", info, "Err");
	info = json_pack("{s:s, s:n, s:s, s:s, s:s, s:s, s:s, s:n, s:n, s:n}", "State", "",
		"Events", "HostIP", "", "ContainerIP", "", "ContainerIPv6", "", "ExternalIP", "",
		"ContainerPath", "", "ProcessIDs", "Properties", "MappedPorts");
	return json_pack("{s:o, s:{s:s, s:s, s:s, s:s, s:s}}", "Info", info, "Err", "Type", "",
		"Message", err.msg, "Handle", "", "ProcessID", "", "Binary", "");
}

void handle_container_bulk_info(struct request *request)
{
	reply_bulk(request, bulk_entry);
}

/* ---- properties ------------------------------------------------------------------------------ */

void handle_property_list(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);

	if (container)
		reply_json(request, 200, properties_json(container));
}

void handle_property_get(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	AUTO_FREE char *value = NULL;
	struct err err;

	if (!container)
		return;
	if (property_get(container, request_param(request, "key"), &value, &err) < 0)
		reply_error(request, &err);
	else
		reply_json(request, 200, json_pack("{s:s}", "value", value));
}

void handle_property_set(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	AUTO_FREE char *value = NULL;
	AUTO_JSON json_t *json = NULL;
	struct err err;
	int r;

	if (!container || request_json(request, &json, &err) < 0)
		return;
	r = json_string_field(json, "", "value", &value, &err);
	if (r == 0)
		r = property_set(
			container, request_param(request, "key"), value ? value : "", &err);
	reply_result(request, r, &err);
}

void handle_property_delete(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	struct err err;
	int r;

	if (!container)
		return;
	r = property_remove(container, request_param(request, "key"), &err);
	reply_result(request, r, &err);
}

/* ---- limits and metrics ---------------------------------------------------------------------- */

static void reply_limits(struct request *request, enum limits_group group)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	struct limits limits;

	if (!container)
		return;
	container_limits(container, &limits);
	if (group == LIMITS_CPU) { /* one number, that which weighs */
		limits.cpu_shares = container_cpu_weight(container);
		limits.cpu_weight = 0;
	}
	reply_json(request, 200, limits_json(&limits, group));
}

void handle_limits_bandwidth(struct request *request)
{
	reply_limits(request, LIMITS_BANDWIDTH);
}

void handle_limits_cpu(struct request *request)
{
	reply_limits(request, LIMITS_CPU);
}

void handle_limits_disk(struct request *request)
{
	reply_limits(request, LIMITS_DISK);
}

void handle_limits_memory(struct request *request)
{
	reply_limits(request, LIMITS_MEMORY);
}

void handle_container_metrics(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	struct metrics metrics;
	struct err err;

	if (!container)
		return;
	if (container_metrics(container, &metrics, &err) < 0)
		reply_error(request, &err);
	else
		reply_json(request, 200, metrics_json(&metrics));
}

/* What cannot be told has zeroes, and an error without type and handle, as the reference flattens it. */
static json_t *bulk_metrics_entry(struct backend *backend, const char *handle)
{
	struct metrics metrics = { 0 };
	struct err err;
	struct container *container = container_get(backend, handle, &err);
	int r = container ? container_metrics(container, &metrics, &err)
			  : pea_metrics(backend, handle, &metrics, &err);

	container_put(container);
	if (r == 0)
		return json_pack("{s:o, s:n}", "Metrics", metrics_json(&metrics), "Err");
	metrics = (struct metrics){ 0 };
	return json_pack("{s:o, s:{s:s, s:s, s:s, s:s, s:s}}", "Metrics", metrics_json(&metrics),
		"Err", "Type", "", "Message", err.msg, "Handle", "", "ProcessID", "", "Binary", "");
}

void handle_container_bulk_metrics(struct request *request)
{
	reply_bulk(request, bulk_metrics_entry);
}

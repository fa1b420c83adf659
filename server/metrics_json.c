/* Handlers of metrics: of one container, and of many. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "metrics.h"
#include "pea.h"
#include "server/json.h"
#include "server/request.h"
#include "server/router.h"

static const char *const memory_names[N_MEMORY_STATS] = {
#define MEMORY_STAT(name) [MEMORY_##name] = #name,
#include "memory_stat.def"
#undef MEMORY_STAT
};

static json_t *number(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static json_t *memory_json(const struct metrics *metrics)
{
	json_t *json = json_object();

	for (int i = 0; json && i < N_MEMORY_STATS; i++)
		json_object_set_new(json, memory_names[i], number(metrics->memory[i]));
	return json;
}

/* null without a network. */
static json_t *network_json(const struct metrics *metrics)
{
	return metrics->has_network ? json_pack("{s:o, s:o}", "RxBytes", number(metrics->rx_bytes),
					      "TxBytes", number(metrics->tx_bytes))
				    : json_null();
}

static json_t *metrics_json(const struct metrics *metrics)
{
	return json_pack(
		"{s:o, s:{s:o, s:o, s:o}, s:{s:o, s:o, s:o, s:o}, s:o, s:{s:o, s:o}, s:o, s:o}",
		"MemoryStat", memory_json(metrics), "CPUStat", "Usage", number(metrics->cpu_ns),
		"User", number(metrics->user_ns), "System", number(metrics->system_ns), "DiskStat",
		"TotalBytesUsed", number(metrics->total_bytes), "TotalInodesUsed",
		number(metrics->total_inodes), "ExclusiveBytesUsed", number(metrics->own_bytes),
		"ExclusiveInodesUsed", number(metrics->own_inodes), "NetworkStat",
		network_json(metrics), "PidStat", "Current", number(metrics->n_pids), "Max",
		number(metrics->max_pids), "Age", number(metrics->age_ns), "CPUEntitlement",
		number(metrics->entitlement_ns));
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
static json_t *bulk_entry(struct backend *backend, const char *handle)
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
	reply_bulk(request, bulk_entry);
}

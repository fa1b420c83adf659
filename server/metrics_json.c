#include "server/metrics_json.h"

#include "metrics.h"

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

json_t *metrics_json(const struct metrics *metrics)
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

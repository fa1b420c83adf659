#include "server/limits_json.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "server/json.h"

static const char *const group_names[N_LIMITS_GROUPS] = { [LIMITS_BANDWIDTH] = "bandwidth_limits",
	[LIMITS_CPU] = "cpu_limits",
	[LIMITS_DISK] = "disk_limits",
	[LIMITS_MEMORY] = "memory_limits",
	[LIMITS_PIDS] = "pid_limits" };

static const struct {
	enum limits_group group;
	const char *name;
	size_t offset;
	uint64_t max;
} fields[] = {
	{ LIMITS_BANDWIDTH, "rate", offsetof(struct limits, rate_bytes), UINT64_MAX },
	{ LIMITS_BANDWIDTH, "burst", offsetof(struct limits, burst_bytes), UINT64_MAX },
	{ LIMITS_CPU, "weight", offsetof(struct limits, cpu_weight), UINT64_MAX },
	{ LIMITS_CPU, "limit_in_shares", offsetof(struct limits, cpu_shares), UINT64_MAX },
	{ LIMITS_DISK, "inode_soft", offsetof(struct limits, disk_inodes_soft), UINT64_MAX },
	{ LIMITS_DISK, "inode_hard", offsetof(struct limits, disk_inodes_hard), UINT64_MAX },
	{ LIMITS_DISK, "byte_soft", offsetof(struct limits, disk_bytes_soft), UINT64_MAX },
	{ LIMITS_DISK, "byte_hard", offsetof(struct limits, disk_bytes_hard), UINT64_MAX },
	{ LIMITS_DISK, "scope", offsetof(struct limits, disk_scope), 1 },
	{ LIMITS_MEMORY, "limit_in_bytes", offsetof(struct limits, memory_bytes), UINT64_MAX },
	{ LIMITS_PIDS, "max", offsetof(struct limits, n_pids), UINT64_MAX },
};

static uint64_t *field(struct limits *limits, size_t i)
{
	return (uint64_t *)(void *)((char *)limits + fields[i].offset);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int parse_group(const json_t *object, const char *where, enum limits_group group,
	struct limits *limits, struct err *err)
{
	char path[64];
	json_t *values;
	int r = json_object_field(object, where, group_names[group], &values, err);

	snprintf(path, sizeof(path), "%s.%s", where, group_names[group]);
	for (size_t i = 0; r == 0 && values && i < N_ELEMENTS(fields); i++)
		if (fields[i].group == group)
			r = json_u64_field(
				values, path, fields[i].name, fields[i].max, field(limits, i), err);
	return r;
}

int limits_parse_cpu_and_memory(
	const json_t *object, const char *where, struct limits *ret_limits, struct err *err)
{
	int r = parse_group(object, where, LIMITS_CPU, ret_limits, err);

	return r < 0 ? r : parse_group(object, where, LIMITS_MEMORY, ret_limits, err);
}

int limits_parse(const json_t *spec, struct limits *ret_limits, struct err *err)
{
	json_t *object;
	int r = json_object_field(spec, "", "limits", &object, err);

	for (enum limits_group group = 0; r == 0 && object && group < N_LIMITS_GROUPS; group++)
		r = parse_group(object, "limits", group, ret_limits, err);
	return r;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* A number as large as the API has: jansson's own end at 2^63 - 1, and so do the kernel's limits. */
static json_t *number(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

json_t *limits_json(const struct limits *limits, enum limits_group group)
{
	struct limits copy = *limits;
	json_t *json = json_object();

	for (size_t i = 0; json && i < N_ELEMENTS(fields); i++)
		if (fields[i].group == group && *field(&copy, i))
			json_object_set_new(json, fields[i].name, number(*field(&copy, i)));
	return json;
}

#include "server/limits_json.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "server/json.h"
#include "server/request.h"
#include "server/router.h"

enum group { BANDWIDTH, CPU, DISK, MEMORY, PIDS, N_GROUPS };

static const char *const group_names[N_GROUPS] = { [BANDWIDTH] = "bandwidth_limits",
	[CPU] = "cpu_limits",
	[DISK] = "disk_limits",
	[MEMORY] = "memory_limits",
	[PIDS] = "pid_limits" };

static const struct {
	enum group group;
	const char *name;
	size_t offset;
	uint64_t max;
} fields[] = {
	{ BANDWIDTH, "rate", offsetof(struct limits, rate_bytes), UINT64_MAX },
	{ BANDWIDTH, "burst", offsetof(struct limits, burst_bytes), UINT64_MAX },
	{ CPU, "weight", offsetof(struct limits, cpu_weight), UINT64_MAX },
	{ CPU, "limit_in_shares", offsetof(struct limits, cpu_shares), UINT64_MAX },
	{ DISK, "inode_soft", offsetof(struct limits, disk_inodes_soft), UINT64_MAX },
	{ DISK, "inode_hard", offsetof(struct limits, disk_inodes_hard), UINT64_MAX },
	{ DISK, "byte_soft", offsetof(struct limits, disk_bytes_soft), UINT64_MAX },
	{ DISK, "byte_hard", offsetof(struct limits, disk_bytes_hard), UINT64_MAX },
	{ DISK, "scope", offsetof(struct limits, disk_scope), 1 },
	{ MEMORY, "limit_in_bytes", offsetof(struct limits, memory_bytes), UINT64_MAX },
	{ PIDS, "max", offsetof(struct limits, n_pids), UINT64_MAX },
};

static uint64_t *field(struct limits *limits, size_t i)
{
	return (uint64_t *)(void *)((char *)limits + fields[i].offset);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int parse_group(const json_t *object, const char *where, enum group group,
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
	int r = parse_group(object, where, CPU, ret_limits, err);

	return r < 0 ? r : parse_group(object, where, MEMORY, ret_limits, err);
}

int limits_parse(const json_t *spec, struct limits *ret_limits, struct err *err)
{
	json_t *object;
	int r = json_object_field(spec, "", "limits", &object, err);

	for (enum group group = 0; r == 0 && object && group < N_GROUPS; group++)
		r = parse_group(object, "limits", group, ret_limits, err);
	return r;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* A number as large as the API has: jansson's own end at 2^63 - 1, and so do the kernel's limits. */
static json_t *number(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* Zero fields are left out. */
static void reply_group(struct request *request, enum group group)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	json_t *json = container ? json_object() : NULL;
	struct limits limits;

	if (!container)
		return;
	container_limits(container, &limits);
	if (group == CPU) { /* one number, that which weighs */
		limits.cpu_shares = container_cpu_weight(container);
		limits.cpu_weight = 0;
	}
	for (size_t i = 0; json && i < N_ELEMENTS(fields); i++)
		if (fields[i].group == group && *field(&limits, i))
			json_object_set_new(json, fields[i].name, number(*field(&limits, i)));
	reply_json(request, 200, json);
}

void handle_limits_bandwidth(struct request *request)
{
	reply_group(request, BANDWIDTH);
}

void handle_limits_cpu(struct request *request)
{
	reply_group(request, CPU);
}

void handle_limits_disk(struct request *request)
{
	reply_group(request, DISK);
}

void handle_limits_memory(struct request *request)
{
	reply_group(request, MEMORY);
}

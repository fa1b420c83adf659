/* limits_json.h - limits in requests and answers. */
#pragma once
#include <jansson.h>

struct err;
struct limits;

/* The member "limits" of a container spec; ret_limits stays as it is without one. */
int limits_parse(const json_t *spec, struct limits *ret_limits, struct err *err);
/* cpu_limits and memory_limits of an object, which is called where in messages. */
int limits_parse_cpu_and_memory(
	const json_t *object, const char *where, struct limits *ret_limits, struct err *err);

enum limits_group {
	LIMITS_BANDWIDTH,
	LIMITS_CPU,
	LIMITS_DISK,
	LIMITS_MEMORY,
	LIMITS_PIDS,
	N_LIMITS_GROUPS
};
/* Without the fields that are zero. */
json_t *limits_json(const struct limits *limits, enum limits_group group);

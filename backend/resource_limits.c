#include "resource_limits.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "linux/cgroup_limits.h"

#define CPU_SHARES_MIN 2
#define CPU_SHARES_MAX 262144
#define CPU_QUOTA_MIN_US 1000
/* The kernel counts in signed numbers. */
#define MEMORY_MAX INT64_MAX

/* Names in the record: they stay as they are. */
static const struct {
	const char *name;
	size_t offset;
} columns[] = {
#define COLUMN(member)                                                                             \
	{                                                                                          \
#member, offsetof(struct limits, member)                                           \
	}
	COLUMN(memory_bytes),
	COLUMN(cpu_weight),
	COLUMN(cpu_shares),
	COLUMN(n_pids),
	COLUMN(disk_inodes_soft),
	COLUMN(disk_inodes_hard),
	COLUMN(disk_bytes_soft),
	COLUMN(disk_bytes_hard),
	COLUMN(disk_scope),
	COLUMN(rate_bytes),
	COLUMN(burst_bytes),
#undef COLUMN
};

static uint64_t *field(struct limits *limits, size_t i)
{
	return (uint64_t *)(void *)((char *)limits + columns[i].offset);
}

uint64_t limits_cpu_shares(const struct limits *limits)
{
	return limits->cpu_weight ? limits->cpu_weight : limits->cpu_shares;
}

/* ---- is it possible? ------------------------------------------------------------------------- */

static const char *cpu_field(const struct limits *limits)
{
	return limits->cpu_weight ? "limits.cpu_limits.weight"
				  : "limits.cpu_limits.limit_in_shares";
}

/* The texts are those of the reference's runtime; v2 takes everything, on a scale of its own. */
static int check_cpu(const struct limits *limits, const struct cgroups *groups, struct err *err)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "cpu");
	uint64_t shares = limits_cpu_shares(limits);

	if (!shares || !hierarchy || hierarchy->is_v2)
		return 0;
	if (shares < CPU_SHARES_MIN)
		return err_set(err, ERR_INVALID, EINVAL, "%s: minimum allowed cpu-shares is %d",
			cpu_field(limits), CPU_SHARES_MIN);
	if (shares > CPU_SHARES_MAX)
		return err_set(err, ERR_INVALID, EINVAL, "%s: maximum allowed cpu-shares is %d",
			cpu_field(limits), CPU_SHARES_MAX);
	return 0;
}

static int check_controllers(
	const struct limits *limits, const struct cgroups *groups, struct err *err)
{
	const struct {
		uint64_t wanted;
		const char *field, *controller;
	} rows[] = { { limits->memory_bytes, "limits.memory_limits.limit_in_bytes", "memory" },
		{ limits_cpu_shares(limits), cpu_field(limits), "cpu" },
		{ limits->n_pids, "limits.pid_limits.max", "pids" } };

	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (rows[i].wanted && !cgroup_find(groups, rows[i].controller))
			return err_set(err, ERR_UNSUPPORTED, EOPNOTSUPP,
				"%s: this host has no %s controller for us", rows[i].field,
				rows[i].controller);
	return 0;
}

int limits_check(const struct limits *limits, const struct cgroups *groups, struct err *err)
{
	int r = check_controllers(limits, groups, err);

	return r < 0 ? r : check_cpu(limits, groups, err);
}

/* ---- into the groups ------------------------------------------------------------------------- */

static uint64_t quota_of(const struct limits *limits, const struct limits_policy *policy)
{
	uint64_t shares = limits_cpu_shares(limits);
	uint64_t quota_us = policy->cpu_quota_us_per_share *
		(shares > CPU_SHARES_MAX ? CPU_SHARES_MAX : shares);

	return quota_us && quota_us < CPU_QUOTA_MIN_US ? CPU_QUOTA_MIN_US : quota_us;
}

static int explain(int r, const struct limits *limits, const char *file, struct err *err)
{
	if (r == -EBUSY && !strncmp(file, "memory", 6))
		return err_set(err, ERR_INVALID, EBUSY,
			"limits.memory_limits.limit_in_bytes: %llu bytes are too few for an empty "
			"container",
			(unsigned long long)limits->memory_bytes);
	return err_system(err, r, "limits: write %s", file);
}

int limits_apply(const struct limits *limits, const struct limits_policy *policy,
	const struct cgroups *groups, const char *id, struct err *err)
{
	const char *file;
	struct cgroup_limits wanted = {
		.memory_bytes =
			limits->memory_bytes > MEMORY_MAX ? MEMORY_MAX : limits->memory_bytes,
		.leaves_swap = policy->leaves_swap,
		.cpu_shares = limits_cpu_shares(limits),
		.cpu_quota_us = quota_of(limits, policy),
		.n_pids = limits->n_pids,
	};
	int r = cgroup_limit(groups, id, &wanted, &file);

	return r < 0 ? explain(r, limits, file, err) : 0;
}

/* ---- record ---------------------------------------------------------------------------------- */

int limits_store(
	struct db *db, const char *container_id, const struct limits *limits, struct err *err)
{
	struct limits copy = *limits;
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(columns) && r == 0; i++)
		if (*field(&copy, i))
			r = db_change(db, err, "INSERT INTO limits VALUES (?, ?, ?)", "ssi",
				container_id, columns[i].name, (int64_t)*field(&copy, i));
	return r;
}

void limits_take(struct limits *limits, const char *name, int64_t value)
{
	for (size_t i = 0; i < N_ELEMENTS(columns); i++)
		if (!strcmp(name, columns[i].name))
			*field(limits, i) = (uint64_t)value;
}

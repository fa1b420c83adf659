/* resource_limits.h - what a container may use: from the request into the record and the container's groups,
 * and back into answers. A zero is "no limit" everywhere, as in Garden's API. Threads: any; errors:
 * err.h, ERR_INVALID naming the field. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backend;
struct cgroups;
struct container;
struct db;
struct err;

struct limits {
	uint64_t memory_bytes; /* swap included */
	uint64_t cpu_weight, cpu_shares; /* the same thing twice: the weight wins */
	uint64_t n_pids; /* init counts */
	uint64_t disk_inodes_soft, disk_inodes_hard, disk_bytes_soft, disk_bytes_hard;
	uint64_t disk_scope; /* 0: the image counts, 1: only what the container has written */
	uint64_t rate_bytes, burst_bytes; /* a second, of network traffic; see network.h */
};

/* What the operator adds to each request. */
struct limits_policy {
	uint64_t cpu_quota_us_per_share; /* of each 100,000 us; up to 1,000,000; 0: no quota */
	bool leaves_swap; /* the memory limit is of memory alone */
};

/* Before anything is made: limits that this host cannot keep, and values out of range. Of disks: see
 * disk_quota.h. */
int limits_check(const struct limits *limits, const struct cgroups *groups, struct err *err);
/* Writes them into the group id, which exists and may have members already. Nothing of a user may
 * run in it before. */
int limits_apply(const struct limits *limits, const struct limits_policy *policy,
	const struct cgroups *groups, const char *id, struct err *err);

/* In the record: one row per limit that is set. Within the transaction that records the container. */
int limits_store(
	struct db *db, const char *container_id, const struct limits *limits, struct err *err);
/* One row of it; names that are not known are passed over. */
void limits_take(struct limits *limits, const char *name, int64_t value);

/* What weighs: the weight or the shares, 0 if neither was given. */
uint64_t limits_cpu_shares(const struct limits *limits);

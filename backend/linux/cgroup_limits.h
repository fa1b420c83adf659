/* cgroup_limits.h - what a group may use. Each limit is written where its controller is: in the
 * v1 hierarchy that has it, else in v2 (kernel: Documentation/admin-guide/cgroup-v1, cgroup-v2.rst).
 * Threads: any. The group exists; who is in it already is bound at once. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "linux/cgroup.h"

#define CPU_PERIOD_US 100000

struct cgroup_limits {
	uint64_t memory_bytes; /* 0: none */
	bool leaves_swap; /* else the limit holds for memory and swap together */
	uint64_t cpu_shares; /* 2 to 262144, v1's scale; 0: the kernel's default */
	uint64_t cpu_quota_us; /* of each CPU_PERIOD_US; 0: none */
	uint64_t n_pids; /* 0: none */
};

/* The hierarchy that has the controller, NULL: none. "memory", "cpu", "pids", "cpuacct", "blkio";
 * the last two are "cpu" and "io" on v2. */
const struct hierarchy *cgroup_find(const struct cgroups *groups, const char *controller);

/* The one by which processes are told apart without limiting them: v2, else v1's cpuacct, else any. */
const struct hierarchy *cgroup_follower(const struct cgroups *groups);

/* 0, or a negative errno and *ret_file, the file that could not be written (static). -EBUSY: what
 * is in the group uses more memory than it may. */
int cgroup_limit(const struct cgroups *groups, const char *id, const struct cgroup_limits *limits,
	const char **ret_file);

/* cpu.weight (1 to 10,000) for v1's shares; 0 for 0. The curve is the one of OCI runtimes since
 * 2025: 2 becomes 1, 1,024 becomes 100, 262,144 becomes 10,000. */
uint64_t cgroup_cpu_weight(uint64_t shares);

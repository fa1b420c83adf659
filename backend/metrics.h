/* metrics.h - what a container, or a group of its processes, uses. Read from the kernel when it is asked
 * for; nothing runs between two questions. Threads: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct backend;
struct cgroups;
struct container;
struct err;
struct hierarchy;
struct usage;

enum memory_stat {
#define MEMORY_STAT(name) MEMORY_##name,
#include "memory_stat.def"
#undef MEMORY_STAT
	N_MEMORY_STATS
};

struct metrics {
	uint64_t memory[N_MEMORY_STATS];
	uint64_t cpu_ns, user_ns, system_ns;
	uint64_t total_bytes, total_inodes; /* of disk: with the image */
	uint64_t own_bytes, own_inodes; /* what was written into the container */
	uint64_t n_pids, max_pids; /* 0: no limit */
	bool has_network;
	uint64_t rx_bytes, tx_bytes; /* of its link */
	uint64_t age_ns;
	uint64_t entitlement_ns; /* processor time that its shares have stood for until now */
};

/* All of it. -ESRCH if the container's groups are gone. */
int container_metrics(struct container *container, struct metrics *ret, struct err *err);

/* Memory, processor and pids of one group (cgroup.h). What this host does not count stays zero. -ENOENT: no
 * such group. */
int metrics_of_group(const struct cgroups *groups, const char *id, struct metrics *ret);

/* The processor time alone, as one hierarchy has it. */
int metrics_cpu(const struct hierarchy *hierarchy, const char *id, struct metrics *ret);
int metrics_count_members(const struct hierarchy *hierarchy, const char *id, uint64_t *ret_n);
/* What the container's processes have in common: its network, and what its shares stand for. After
 * age_ns. */
void metrics_of_sharers(struct container *container, struct metrics *ret);
void metrics_set_disk(struct metrics *metrics, const struct usage *own, const struct usage *image);

/* What counts towards the memory limit, from the other numbers. */
uint64_t metrics_usage_toward_limit(const struct metrics *metrics, bool is_v2);
/* Of one share: as many hundredths of a processor as there are for each MiB of the machine's memory. */
double metrics_entitlement_per_share(uint64_t n_processors, uint64_t memory_bytes);

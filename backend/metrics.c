#include "metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/parse.h"
#include "container.h"
#include "disk_usage.h"
#include "linux/cgroup_limits.h"
#include "linux/sys.h"
#include "network.h"

#define STAT_BYTES 16384
#define MEMBERS_BYTES 65536
#define NS_PER_US 1000
#define DEFAULT_SHARES 1024 /* the kernel's weight of a group that was given none */

/* ---- files of a group ------------------------------------------------------------------------ */

static int read_file(const struct hierarchy *hierarchy, const char *id, const char *file,
	char *space, size_t n_bytes)
{
	AUTO_FREE char *path = cgroup_path(hierarchy, id, file);
	ssize_t n = path ? sys_read_small(AT_FDCWD, path, 0, space, n_bytes) : -ENOMEM;

	return n < 0 ? (int)n : 0;
}

/* A file of one number; "max" is 0. */
static int read_number(
	const struct hierarchy *hierarchy, const char *id, const char *file, uint64_t *ret)
{
	char text[64];
	int r = read_file(hierarchy, id, file, text, sizeof(text));

	if (r < 0)
		return r;
	text[strcspn(text, "\n")] = '\0';
	*ret = 0;
	return strcmp(text, "max") ? parse_u64(text, UINT64_MAX, ret) : 0;
}

/* Lines of "name number"; text is cut up. visit hears each. */
static void each_line(
	char *text, void (*visit)(const char *name, uint64_t number, void *arg), void *arg)
{
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n"))) {
		char *name = strsep(&line, " ");
		uint64_t number;

		if (line && parse_u64(line, UINT64_MAX, &number) == 0)
			visit(name, number, arg);
	}
}

/* ---- memory ---------------------------------------------------------------------------------- */

static const char *const memory_names[N_MEMORY_STATS] = {
#define MEMORY_STAT(name) [MEMORY_##name] = #name,
#include "memory_stat.def"
#undef MEMORY_STAT
};

static void take_memory(const char *name, uint64_t number, void *arg)
{
	struct metrics *metrics = arg;

	for (int i = 0; i < N_MEMORY_STATS; i++)
		if (!strcmp(name, memory_names[i]))
			metrics->memory[i] = number;
}

uint64_t metrics_usage_toward_limit(const struct metrics *metrics, bool is_v2)
{
	const uint64_t *m = metrics->memory;
	uint64_t used, idle;

	if (is_v2) {
		used = m[MEMORY_anon] + m[MEMORY_file] + m[MEMORY_swapcached];
		idle = m[MEMORY_inactive_file];
	} else {
		used = m[MEMORY_total_rss] + m[MEMORY_total_cache] + m[MEMORY_total_swap];
		idle = m[MEMORY_total_inactive_file];
	}
	return used > idle ? used - idle : 0;
}

static int read_memory(const struct cgroups *groups, const char *id, struct metrics *ret)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "memory");
	AUTO_FREE char *text = malloc(STAT_BYTES);
	int r;

	if (!hierarchy)
		return 0;
	r = text ? read_file(hierarchy, id, "memory.stat", text, STAT_BYTES) : -ENOMEM;
	if (r < 0)
		return r;
	each_line(text, take_memory, ret);
	if (hierarchy->is_v2) { /* in files of their own there */
		read_number(hierarchy, id, "memory.max",
			&ret->memory[MEMORY_hierarchical_memory_limit]);
		read_number(hierarchy, id, "memory.swap.current", &ret->memory[MEMORY_swap]);
	}
	ret->memory[MEMORY_TotalUsageTowardLimit] =
		metrics_usage_toward_limit(ret, hierarchy->is_v2);
	return 0;
}

/* ---- processor and pids ---------------------------------------------------------------------- */

static void take_cpu_v2(const char *name, uint64_t number, void *arg)
{
	struct metrics *metrics = arg;

	if (!strcmp(name, "usage_usec"))
		metrics->cpu_ns = number * NS_PER_US;
	else if (!strcmp(name, "user_usec"))
		metrics->user_ns = number * NS_PER_US;
	else if (!strcmp(name, "system_usec"))
		metrics->system_ns = number * NS_PER_US;
}

static void take_cpu_v1(const char *name, uint64_t ticks, void *arg)
{
	struct metrics *metrics = arg;
	uint64_t ns_per_tick = UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);

	if (!strcmp(name, "user"))
		metrics->user_ns = ticks * ns_per_tick;
	else if (!strcmp(name, "system"))
		metrics->system_ns = ticks * ns_per_tick;
}

int metrics_cpu(const struct hierarchy *hierarchy, const char *id, struct metrics *ret)
{
	char text[1024];
	int r;

	if (hierarchy->is_v2) {
		r = read_file(hierarchy, id, "cpu.stat", text, sizeof(text));
		if (r == 0)
			each_line(text, take_cpu_v2, ret);
		return r;
	}
	r = read_number(hierarchy, id, "cpuacct.usage", &ret->cpu_ns);
	if (r == 0)
		r = read_file(hierarchy, id, "cpuacct.stat", text, sizeof(text));
	if (r == 0)
		each_line(text, take_cpu_v1, ret);
	return r;
}

/* Every v2 group counts time, also where the processor is controlled by v1. */
static int read_cpu(const struct cgroups *groups, const char *id, struct metrics *ret)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "cpuacct");

	if (!hierarchy && groups->v2 >= 0)
		hierarchy = &groups->all[groups->v2];
	return hierarchy ? metrics_cpu(hierarchy, id, ret) : 0;
}

int metrics_count_members(const struct hierarchy *hierarchy, const char *id, uint64_t *ret_n)
{
	AUTO_FREE char *text = malloc(MEMBERS_BYTES);
	int r = text ? read_file(hierarchy, id, "cgroup.procs", text, MEMBERS_BYTES) : -ENOMEM;

	*ret_n = 0;
	for (const char *at = text; r == 0 && (at = strchr(at, '\n')); at++)
		++*ret_n;
	return r;
}

static int read_pids(const struct cgroups *groups, const char *id, struct metrics *ret)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "pids");
	int r = hierarchy ? read_number(hierarchy, id, "pids.current", &ret->n_pids) : 0;

	return r < 0 || !hierarchy ? r : read_number(hierarchy, id, "pids.max", &ret->max_pids);
}

int metrics_of_group(const struct cgroups *groups, const char *id, struct metrics *ret)
{
	int r;

	*ret = (struct metrics){ 0 };
	r = read_memory(groups, id, ret);
	if (r == 0)
		r = read_cpu(groups, id, ret);
	return r < 0 ? r : read_pids(groups, id, ret);
}

/* ---- containers ------------------------------------------------------------------------------ */

double metrics_entitlement_per_share(uint64_t n_processors, uint64_t memory_bytes)
{
	double memory_mib = (double)memory_bytes / (1 << 20);

	return memory_mib > 0 ? (double)n_processors * 100 / memory_mib : 0;
}

static uint64_t entitlement(const struct container *container, uint64_t age_ns)
{
	uint64_t shares = limits_cpu_shares(&container->limits);
	double per_share = container->backend->config.cpu_entitlement_per_share;
	struct sysinfo info;

	if (per_share <= 0 && sysinfo(&info) == 0)
		per_share = metrics_entitlement_per_share((uint64_t)sysconf(_SC_NPROCESSORS_ONLN),
			(uint64_t)info.totalram * info.mem_unit);
	return (uint64_t)((double)(shares ? shares : DEFAULT_SHARES) * per_share / 100 *
		(double)age_ns);
}

int container_metrics(struct container *container, struct metrics *ret, struct err *err)
{
	int r = metrics_of_group(&container->backend->cgroups, container->id, ret);

	if (r < 0)
		return err_system(
			err, r == -ENOENT ? -ESRCH : r, "metrics of %.200s", container->handle);
	ret->age_ns = container->created_ms
		? (uint64_t)(clock_ms() - container->created_ms) * 1000000
		: 0;
	metrics_of_sharers(container, ret);
	return disk_usage(container, ret, err);
}

void metrics_of_sharers(struct container *container, struct metrics *ret)
{
	ret->entitlement_ns = entitlement(container, ret->age_ns);
	pthread_mutex_lock(&container->lock); /* for the lease */
	ret->has_network = container->lease &&
		network_traffic(container->lease, &ret->rx_bytes, &ret->tx_bytes) == 0;
	pthread_mutex_unlock(&container->lock);
}

void metrics_set_disk(struct metrics *metrics, const struct usage *own, const struct usage *image)
{
	metrics->own_bytes = own->n_bytes;
	metrics->own_inodes = own->n_names;
	metrics->total_bytes = own->n_bytes + image->n_bytes;
	metrics->total_inodes = own->n_names + image->n_names;
}

#include "linux/cgroup_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/parse.h"
#include "linux/sys.h"

#define PIDS_MAX 4194304u /* the kernel has no larger pid */

uint64_t cgroup_cpu_weight(uint64_t shares)
{
	double l;

	if (shares == 0)
		return 0;
	if (shares <= 2)
		return 1;
	if (shares >= 262144)
		return 10000;
	l = log2((double)shares);
	/* a hair less: what is whole must not be rounded up */
	return (uint64_t)ceil(pow(10, (l * l + 125 * l) / 612 - 7.0 / 34) - 1e-9);
}

static int write_to(
	const struct hierarchy *hierarchy, const char *id, const char *file, const char *text)
{
	AUTO_FREE char *path = cgroup_path(hierarchy, id, file);

	return path ? sys_write_file(AT_FDCWD, path, text) : -ENOMEM;
}

static int write_number(
	const struct hierarchy *hierarchy, const char *id, const char *file, uint64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	return write_to(hierarchy, id, file, text);
}

static int read_number(
	const struct hierarchy *hierarchy, const char *id, const char *file, uint64_t *ret)
{
	AUTO_FREE char *path = cgroup_path(hierarchy, id, file);
	char text[64];
	ssize_t n = path ? sys_read_small(AT_FDCWD, path, 0, text, sizeof(text)) : -ENOMEM;

	if (n < 0)
		return (int)n;
	text[strcspn(text, "\n")] = '\0';
	return parse_u64(text, UINT64_MAX, ret);
}

/* The limit of both may not be below that of memory alone: first the one, then the other. Without
 * swap accounting (a boot option of old kernels) there is no file for it, and nothing to bound. */
static int limit_memory_v1(const struct hierarchy *hierarchy, const char *id,
	const struct cgroup_limits *limits, const char **ret_file)
{
	int r;

	*ret_file = "memory.limit_in_bytes";
	r = write_number(hierarchy, id, *ret_file, limits->memory_bytes);
	if (r < 0 || limits->leaves_swap)
		return r;
	*ret_file = "memory.memsw.limit_in_bytes";
	r = write_number(hierarchy, id, *ret_file, limits->memory_bytes);
	return r == -ENOENT ? 0 : r;
}

/* v2 would kill in order to come below the limit, and does not say so. */
static int limit_memory_v2(const struct hierarchy *hierarchy, const char *id,
	const struct cgroup_limits *limits, const char **ret_file)
{
	uint64_t used = 0;
	int r;

	if (!limits->leaves_swap) {
		*ret_file = "memory.swap.max";
		r = write_to(hierarchy, id, *ret_file, "0");
		if (r < 0 && r != -ENOENT)
			return r;
	}
	*ret_file = "memory.current";
	r = read_number(hierarchy, id, *ret_file, &used);
	*ret_file = "memory.max";
	if (r == 0 && used >= limits->memory_bytes)
		r = -EBUSY;
	return r < 0 ? r : write_number(hierarchy, id, *ret_file, limits->memory_bytes);
}

static int limit_memory(const struct cgroups *groups, const char *id,
	const struct cgroup_limits *limits, const char **ret_file)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "memory");

	*ret_file = "memory";
	if (!limits->memory_bytes)
		return 0;
	if (!hierarchy)
		return -EOPNOTSUPP;
	return hierarchy->is_v2 ? limit_memory_v2(hierarchy, id, limits, ret_file)
				: limit_memory_v1(hierarchy, id, limits, ret_file);
}

static int set_quota(
	const struct hierarchy *hierarchy, const char *id, uint64_t quota_us, const char **ret_file)
{
	char text[64];
	int r;

	snprintf(text, sizeof(text), "%llu %d", (unsigned long long)quota_us, CPU_PERIOD_US);
	*ret_file = "cpu.max";
	if (hierarchy->is_v2)
		return write_to(hierarchy, id, *ret_file, text);
	*ret_file = "cpu.cfs_period_us";
	r = write_number(hierarchy, id, *ret_file, CPU_PERIOD_US);
	if (r < 0)
		return r;
	*ret_file = "cpu.cfs_quota_us";
	return write_number(hierarchy, id, *ret_file, quota_us);
}

static int limit_cpu(const struct cgroups *groups, const char *id,
	const struct cgroup_limits *limits, const char **ret_file)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "cpu");
	int r = 0;

	*ret_file = "cpu";
	if (!limits->cpu_shares && !limits->cpu_quota_us)
		return 0;
	if (!hierarchy)
		return -EOPNOTSUPP;
	if (limits->cpu_shares) {
		*ret_file = hierarchy->is_v2 ? "cpu.weight" : "cpu.shares";
		r = write_number(hierarchy, id, *ret_file,
			hierarchy->is_v2 ? cgroup_cpu_weight(limits->cpu_shares)
					 : limits->cpu_shares);
	}
	if (r == 0 && limits->cpu_quota_us)
		r = set_quota(hierarchy, id, limits->cpu_quota_us, ret_file);
	return r;
}

static int limit_pids(const struct cgroups *groups, const char *id,
	const struct cgroup_limits *limits, const char **ret_file)
{
	const struct hierarchy *hierarchy = cgroup_find(groups, "pids");

	*ret_file = "pids";
	if (!limits->n_pids || limits->n_pids > PIDS_MAX)
		return 0;
	if (!hierarchy)
		return -EOPNOTSUPP;
	*ret_file = "pids.max";
	return write_number(hierarchy, id, *ret_file, limits->n_pids);
}

int cgroup_limit(const struct cgroups *groups, const char *id, const struct cgroup_limits *limits,
	const char **ret_file)
{
	int r = limit_memory(groups, id, limits, ret_file);

	if (r == 0)
		r = limit_cpu(groups, id, limits, ret_file);
	return r < 0 ? r : limit_pids(groups, id, limits, ret_file);
}

static bool is_in(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = list; (p = strstr(p, name)); p += len)
		if ((p == list || strchr(", ", p[-1])) && strchr(", ", p[len]))
			return true;
	return false;
}

static const char *name_on_v2(const char *controller)
{
	if (!strcmp(controller, "cpuacct"))
		return "cpu";
	return strcmp(controller, "blkio") ? controller : "io";
}

const struct hierarchy *cgroup_find(const struct cgroups *groups, const char *controller)
{
	for (int i = 0; i < groups->n_all; i++)
		if (!groups->all[i].is_v2 && is_in(groups->all[i].name, controller))
			return &groups->all[i];
	if (groups->v2 >= 0 && is_in(groups->handed_down, name_on_v2(controller)))
		return &groups->all[groups->v2];
	return NULL;
}

const struct hierarchy *cgroup_follower(const struct cgroups *groups)
{
	const struct hierarchy *found =
		groups->v2 >= 0 ? &groups->all[groups->v2] : cgroup_find(groups, "cpuacct");

	return found ? found : &groups->all[0];
}

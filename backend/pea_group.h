/* pea_group.h - the cgroups of a process with a root of its own. Without limits it has a group below the
 * container's, in the one hierarchy that follows processes (cgroup_limits.h), and counts in the
 * container's groups elsewhere; with limits it has groups beside the container's everywhere. Who has
 * ended a group knows that nothing runs in it, and that nothing will be born there. Threads: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct backend;
struct cgroups;
struct err;
struct limits;

#define PEA_GROUP_SIZE 48

struct pea_group {
	char id[PEA_GROUP_SIZE]; /* as cgroup.h takes it */
	bool is_apart;
};

void pea_group_name(
	struct pea_group *group, const char *container_id, uint32_t token, bool is_apart);
/* Makes it; what is there already is used. limits: if it is apart. */
int pea_group_make(const struct backend *backend, const struct pea_group *group,
	const struct limits *limits, bool with_fuse, struct err *err);
/* Whether it has a group of its own in all[i]. */
bool pea_group_is_in(const struct pea_group *group, const struct cgroups *groups, int i);
/* A descriptor of its v2 group, -ENODEV on hosts that have none, or another negative errno. */
int pea_group_open(const struct backend *backend, const struct pea_group *group);
/* Kills what is in either kind of group and removes it. 0, also if there was none, or -EBUSY. */
int pea_group_end(const struct backend *backend, const char *container_id, uint32_t token);

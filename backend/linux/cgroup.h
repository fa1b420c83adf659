/* cgroup.h - a group per container in each hierarchy: v1, v2 and hybrid hosts (cgroups(7), kernel:
 * Documentation/admin-guide/cgroup-v1, cgroup-v2.rst). Groups lie below the server's own group (v2:
 * see cgroup_base.h), in one parent group per work directory:
 * <hierarchy>/<base>/cloche-<instance>/<id>. Threads: any; the struct does not change after
 * cgroups_make. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct err;
struct strv;

#define MAX_HIERARCHIES 16

struct hierarchy {
	char name[64]; /* "memory", "cpu,cpuacct" as mounted; "" for v2 */
	char *parent; /* path of our parent group */
	bool is_v2;
	bool joins; /* v1: the builder goes in by writing; v2: init is born inside */
};

struct cgroups {
	struct hierarchy all[MAX_HIERARCHIES];
	int n_all;
	int v2; /* index in all, -1: none */
	const struct strv
		*more_devices; /* for every container, as devices.allow takes them; NULL: none */
	char handed_down
		[64]; /* v2 controllers that containers' groups have: "memory io cpu pids" */
	bool is_chosen; /* v2: by option */
	char reason[256]; /* v2: why not below the server's own group; "" */
};

/* Reads /proc/self/mountinfo and /proc/self/cgroup and decides where the parent groups lie; on v2 the
 * server may move into a leaf group. v2_parent: below which v2 group, from the hierarchy's root;
 * NULL: see cgroup_base.h. recorded: paths of parent groups of earlier servers of this instance: one
 * that still holds groups stays the parent, whatever was asked for; an empty one is removed. */
int cgroups_find(struct cgroups *groups, const char *instance, const char *v2_parent,
	const struct strv *recorded, struct err *err);
/* Makes the parent groups. Their paths have been recorded. */
int cgroups_make(struct cgroups *groups, struct err *err);
/* Removes the parent groups if they are empty, frees. */
void cgroups_close(struct cgroups *groups);

/* Devices are narrowed by the v1 controller; else by a program on the v2 group. */
bool cgroups_list_devices(const struct cgroups *groups);

/* Makes the container's group everywhere and narrows its devices; what exists is used as it is. */
int cgroup_create(const struct cgroups *groups, const char *id, bool with_fuse, struct err *err);
/* A bare group in one hierarchy; id may name one below a container's. */
int cgroup_create_in(const struct hierarchy *hierarchy, const char *id, struct err *err);
/* Kills what is inside and removes the group. 0, also if there was none; -EBUSY while dying. */
int cgroup_destroy(const struct cgroups *groups, const char *id);
/* Kills all processes by cgroup.kill (v2), or one by one. */
void cgroup_kill(const struct cgroups *groups, const char *id);
/* Calls visit with the name of each group below the parents (some more than once). */
int cgroup_each(const struct cgroups *groups, int (*visit)(const char *id, void *arg), void *arg);

/* <parent>/<id>[/<file>] in one hierarchy; the caller frees; NULL: no memory. */
char *cgroup_path(const struct hierarchy *hierarchy, const char *id, const char *file);

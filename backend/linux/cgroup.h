/* cgroup.h - a group per container in each hierarchy: v1, v2 and hybrid hosts (cgroups(7), kernel:
 * Documentation/admin-guide/cgroup-v1, cgroup-v2.rst). Groups lie below the server's own group, in
 * one parent group per work directory: <hierarchy>/<own>/cloche-<instance>/<id>. Threads: any; the
 * struct does not change after cgroups_open. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct err;
struct strv;

#define MAX_HIERARCHIES 16

struct hierarchy {
	char name[64]; /* "memory", "cpu,cpuacct" as mounted; "" for v2 */
	char *parent; /* path of our parent group */
	char controllers[128]; /* v2: those that groups in our parent have, "cpu memory" */
	bool is_v2;
	bool joins; /* v1: the builder goes in by writing; v2: init is born inside */
};

struct cgroups {
	struct hierarchy all[MAX_HIERARCHIES];
	int n_all;
	int v2; /* index in all, -1: none */
	const struct strv
		*more_devices; /* for every container, as devices.allow takes them; NULL: none */
};

/* Reads /proc/self/mountinfo and /proc/self/cgroup, makes the parent groups. */
int cgroups_open(struct cgroups *groups, const char *instance, struct err *err);
/* Removes the parent groups if they are empty, frees. */
void cgroups_close(struct cgroups *groups);

/* Makes the container's group everywhere and narrows its devices; what exists is used as it is. */
int cgroup_create(const struct cgroups *groups, const char *id, bool with_fuse, struct err *err);
/* "b 7:* rwm": a type (a, b or c), numbers or stars, and what may be done. */
bool device_is_valid(const char *text);
/* Kills what is inside and removes the group. 0, also if there was none; -EBUSY while dying. */
int cgroup_destroy(const struct cgroups *groups, const char *id);
/* Kills all processes by cgroup.kill (v2), or one by one. */
void cgroup_kill(const struct cgroups *groups, const char *id);
/* Calls visit with the name of each group below the parents (some more than once). */
int cgroup_each(const struct cgroups *groups, int (*visit)(const char *id, void *arg), void *arg);

/* <parent>/<id>[/<file>] in one hierarchy; the caller frees; NULL: no memory. */
char *cgroup_path(const struct hierarchy *hierarchy, const char *id, const char *file);

/* cgroup_base.h - where on a v2 host the groups of containers may lie. A group whose processes are
 * its own cannot hand controllers to groups below it, but for the root of the machine (kernel:
 * Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"); and a server is born
 * into such a group. Called once, at start, before there are threads. */
#pragma once
#include <stdbool.h>

struct err;

#define CGROUP_CONTROLLERS_SIZE 64

struct cgroup_base {
	char *path; /* the group below which ours may be made; the caller frees */
	bool is_chosen; /* by option */
	char reason[256]; /* "", or why the server's own group could not serve */
};

/* mount: of the hierarchy; own: the server's group in it, "/" or "/a/b" (proc(5), cgroup).
 * wanted: a group that the operator has named, below mount, made if it is missing; NULL: none.
 *
 * Else the first that can hand down: the server's own group; the same, after the server has moved
 * into a leaf "server" below it, if no stranger is in it (a service with Delegate=yes); the root of
 * the mount. If none of them can, the own group, without controllers. A hierarchy that has none of
 * them (hybrid hosts) changes nothing. Errors: no memory, or what was wanted cannot be had. */
int cgroup_base_find(struct cgroup_base *base, const char *mount, const char *own,
	const char *wanted, struct err *err);

/* Hands down each controller that limits need and that the group has, to the groups below it.
 * enabled: their names with spaces between. -EBUSY, and nothing is changed: it has processes of its
 * own; else the first error, if one was refused; -ENOENT, -EACCES, -EROFS: no such group for us. */
int cgroup_hand_down(const char *group, char enabled[CGROUP_CONTROLLERS_SIZE]);

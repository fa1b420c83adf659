/* view.h - a process that from now on has the files of a container, as one of its users has them:
 * what the kernel allows that user is what it can do. It has no other process's number in common
 * with the container, so nobody in there can signal or trace it. Threads: before there are others. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define VIEW_GROUPS_MAX 256

/* Ids as the user namespace has them. */
struct view_spec {
	uid_t uid;
	gid_t gid;
	gid_t groups[VIEW_GROUPS_MAX];
	size_t n_groups;
	uint64_t caps; /* what is left of the capabilities in the end */
};

/* "UID:GID[:GROUP...]" and a mask in decimal digits. -EINVAL. */
int view_parse(const char *user, const char *caps, struct view_spec *ret, struct err *err);

/* root_fd: a directory, "/" from now on with all that is mounted below it in whatever mount namespace
 * it belongs to; closed. userns_fd: the user namespace to enter, closed; -1: none. Afterwards: the
 * user's ids, own pid (of children), network, ipc and uts namespaces, no_new_privs, Landlock where
 * the kernel has it, and still the right to make a way through any directory: until view_settle. */
int view_enter(int root_fd, int userns_fd, const struct view_spec *spec, struct err *err);
int view_settle(const struct view_spec *spec, struct err *err);

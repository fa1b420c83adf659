/* confine.h - a process that from now on has one tree of files, and nothing else of the machine.
 * Threads: before there are others. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct err;

/* Where the tree is. All but an absolute source are names below the store that follow no link. */
struct confine_spec {
	const char *tree; /* a directory; or an overlay: */
	const char *lower, *upper, *work; /* lower with ':' between, top first; upper may be NULL */
	const char *source; /* a second tree, for reading: NULL for none */
	bool source_links; /* what links in the source name outside of it is readable too */
	bool writable;
	uint64_t caps; /* what is left of the capabilities */
};

/* store_fd is closed. Afterwards: own mount, pid (of children), network, ipc and uts namespaces;
 * "/" and the working directory are the tree; no_new_privs; Landlock where the kernel has it.
 *
 * *ret_source_fd: the source's directory, else -1. With source_links, ret_source_root_fd is the
 * root that its links mean. Both are the caller's. */
struct confined {
	int source_fd, source_root_fd;
};
int confine(int store_fd, const struct confine_spec *spec, struct confined *ret, struct err *err);

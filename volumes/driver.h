/* driver.h - how trees of volumes are made and copied, by what the file system can do.
 *
 * Whatever the driver, a volume is a plain tree or a stack of layers (volumes_internal.h), and all
 * of them can use both: a work directory may change its driver. Only stacks need overlay mounts. */
#pragma once
#include <stdbool.h>

struct err;
struct helper;
struct volumes;

struct volume_driver {
	const char *name;
	/* Does the thing itself, in init/, and takes it away again; the failure says why not. */
	int (*try)(struct volumes *volumes, struct err *err);
	/* An empty tree, mode 0755. Paths are relative to the store. */
	int (*make_tree)(struct volumes *volumes, const char *path, struct err *err);
	/* A plain tree, as a tree that is not there yet. 0: done; 1: a helper is at it, in both trees
	 * already. NULL: copies share layers instead. */
	int (*copy)(struct volumes *volumes, const char *from, const char *to,
		struct helper *ret_helper, struct err *err);
};

/* name: of a driver, its alias, or "detect": the first that works. Logs which and why; sets
 * volumes->driver and no_overlay. A driver that was named and does not work is an error. */
int driver_choose(struct volumes *volumes, const char *name, struct err *err);

/* A helper begins to copy the entries of one tree of the store into another, which is empty; they
 * share their content where the file system can. Not one moment's state if somebody writes meanwhile.
 * 1, or a negative errno. */
int driver_copy_tree(struct volumes *volumes, const char *from, const char *to,
	struct helper *ret_helper, struct err *err);

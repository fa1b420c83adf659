/* dirtimes.h - what directories get when everything in them is made: their times, which each new
 * entry would change, the ACL that each new entry would inherit, and a mode that would keep their
 * owner from making any. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/buf.h"

struct place;

struct dirtime {
	ino_t ino; /* of the directory: another one by its name is left alone */
	struct timespec mtime; /* tv_nsec UTIME_OMIT: none */
	const void *acl; /* borrowed */
	size_t acl_bytes;
	bool has_mode;
	mode_t mode; /* if it was not given that at once */
};

/* Each path is kept as what it does not share with the one before it. */
struct dirtimes {
	struct buf records, last_path;
};

void dirtimes_init(struct dirtimes *list);
void dirtimes_done(struct dirtimes *list);

/* -E2BIG: apply what is in it first. */
int dirtimes_add(
	struct dirtimes *list, const char *path, size_t n_bytes, const struct dirtime *time);

/* Empties the list. 0, or the -errno of the first one that did not take it. */
int dirtimes_apply(struct dirtimes *list, struct place *place);

/* links.h - which files with more than one name have been met, and by which name first. One thread. */
#pragma once
#include <stddef.h>
#include <sys/stat.h>

#include "base/buf.h"

struct links_slot;
struct links {
	struct links_slot *slots;
	size_t n_used, n_slots;
	struct buf paths;
};

void links_init(struct links *links);
void links_done(struct links *links);

/* *ret_path: the path by which the same file came before, valid until the next call; NULL: it is
 * the first time, and path is kept. 0 or -errno. */
int links_meet(struct links *links, const struct stat *st, const char *path, const char **ret_path);

/* The name it was met by has vanished: the next one is the first. */
void links_forget(struct links *links, const struct stat *st);

/* place.h - the directory that a name in an archive lies in, found as a process inside of the tree
 * would: "/" is the tree, and links stay in it. The way down to the last one is kept open, since
 * the next name mostly lies near; names may be longer than PATH_MAX. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct place_level;
struct place {
	int root_fd; /* what links mean by "/"; borrowed */
	const char *base; /* below it, where names begin; borrowed */
	int base_fd;
	char *path; /* of the deepest open level: "a/b/c"; not terminated */
	size_t path_bytes, path_size;
	struct place_level *levels;
	size_t n_levels, n_space;
};

/* base: "" or a path that leads to a directory from root_fd; links in it stay below root_fd. Needs
 * place_done even if it fails. */
int place_init(struct place *place, int root_fd, const char *base);
void place_done(struct place *place);

/* path: components with one '/' between, none of them "." or "..", "" for the base itself. A
 * directory that is missing is made (0755) if make_missing. The descriptor (O_PATH or O_RDONLY) is
 * the place's, valid until the next call. -ENOENT, -ENOTDIR, ... */
int place_enter(struct place *place, const char *path, size_t n_bytes, bool make_missing);

/* Forgets what is open: for whoever removed or renamed a directory elsewhere than in the place
 * entered last. */
void place_reset(struct place *place);

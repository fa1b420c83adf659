/* usage.h - what a tree takes on disk, counted by the server itself: names are only looked at (stat),
 * never opened for their content; links are not followed, other file systems not entered. For trees
 * that others change meanwhile. Memory and time are bounded. One thread per call. */
#pragma once
#include <stdint.h>

struct usage {
	uint64_t n_bytes; /* allocated; a file of several names counts with each by its share */
	uint64_t n_names; /* the tree's own too */
};

/* 0; -E2BIG: more than max_names, or deeper than 64 directories; or another negative errno. max_names
 * UINT64_MAX: as much as there is, but nothing deeper. */
int usage_count(int dir_fd, uint64_t max_names, struct usage *ret);

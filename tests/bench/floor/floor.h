/* floor.h - what the parts of the floor program share: options, failures, and the two halves of a container, its groups
 * and its tree. Nothing returns after a failure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { ID_BASE = 1879048192, ID_COUNT = 65536 };

#define N(array) (sizeof(array) / sizeof(*(array)))

struct options {
	char *root, *layer, *stage;
	const char *state, *run;
	int n;
	const char
		*join; /* the file of a v1 group that the builder joins by, NULL without groups */
	bool paced, has_veth;
};

_Noreturn void die(const char *fmt, ...);
int must(int r, const char *what);
void write_file(int dir_fd, const char *path, const char *text);

/* One group of our own for this run in every hierarchy. */
void groups_add(void);
/* A child group in each for the current container. Returns the v2 group that init is cloned into, or -1. */
int groups_make(void);
void groups_join(const char *file);
void groups_unmake(void);
void groups_remove(void); /* all of them, also after a failure */

/* The tree: all names are relative to the stage, a tmpfs that is the builder's working directory. */
void tree_make_stage(const char *target);
void tree_mount_skeleton(void); /* by a member of init's pid, net and ipc namespaces */
void tree_mount_root(const struct options *o, pid_t init);
void tree_pivot(void);

/* The veth pair of the n-th container, its far end in the namespace: first the link, then, inside of the namespace, address and route. */
void link_make(int n, int netns_fd);
void link_set_up_inside(int n);

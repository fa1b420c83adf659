/* walk.h - every entry of a tree, by descriptors, links not followed: any depth, any names, also
 * while others change it. Beside it, as wanted, the same way through a second tree. In a directory
 * what is no directory comes first. One thread. */
#pragma once
#include <stddef.h>
#include <sys/stat.h>

/* All is borrowed for the call. */
struct walk_item {
	const char *name; /* in dir_fd; "." for the top */
	const char *path; /* from the top: "a/b", "" for the top */
	size_t path_bytes;
	struct stat st;
	int dir_fd; /* what it lies in; the top: itself */
	int fd; /* open for reading: a directory, or a file behind a link; else -1 */
	int twin_dir_fd; /* the same in the second tree */
	int twin_fd; /* a directory that is being left */
};

/* Calls return 0, or -errno to end the walk. A directory is entered, then come its entries, then it
 * is left. With a second tree, enter has to make the directory in it. */
struct walk {
	int (*enter)(void *context, const struct walk_item *item);
	int (*leave)(void *context, const struct walk_item *item); /* may be NULL */
	int (*file)(void *context, const struct walk_item *item);
	void *context;
	/* If given, a link is taken for what it leads to, as seen from a root: follow_fd and the
	 * top's path below it. One that leads nowhere, or into what it lies in, is told to `lost`. */
	const char *follow_top;
	int follow_fd;
	void (*lost)(const char *path);
};

/* twin_fd: the top of the second tree, or -1. What vanishes meanwhile is passed over. 0, -errno;
 * -ESTALE: a directory was moved away while we were in it. */
int walk_tree(const struct walk *walk, int top_fd, int twin_fd);

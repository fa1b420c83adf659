/* copy.h - trees become trees. One thread. */
#pragma once
#include <stdbool.h>

struct err;

/* Fills the empty directory to_fd with what from_fd has: content (shared with the source where the
 * file system can), holes, owners, modes, times, hard links; links as they are. The directory itself
 * gets the source's owner, mode and times too. */
struct copy_spec {
	int from_fd, to_fd;
	bool as_layer; /* devices and every attribute too: whiteouts and what overlays note down */
	/* If given, links are what they lead to, from this root and with from_fd at this path. Those
	 * that lead nowhere are left out, with a line on standard error. */
	const char *follow_top;
	int follow_fd;
};
int copy(const struct copy_spec *spec, struct err *err);

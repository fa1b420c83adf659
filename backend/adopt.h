/* adopt.h - containers of a server before us whose shims live: processes, descriptors, what limits were hit. Shims are
 * asked by a thread of its own while the first are heard, so that they work side by side; without that thread all are asked
 * first. For the start, when nobody else has the containers yet. */
#pragma once
#include <stddef.h>

#include "base/err.h"

struct backend;
struct container;

struct adoption {
	struct container *container; /* given, as loaded from its record */
	int result; /* 0, or what stood in the way, in err */
	struct err err;
	int fd; /* until the link has it; -1: none */
	unsigned seq;
};

/* Takes as long as the slowest, LINK_TIMEOUT_MS at most for all of those that hang. */
void adopt_all(struct backend *backend, struct adoption *all, size_t n);

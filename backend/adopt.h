/* adopt.h - containers of a server before us whose shims live: processes, descriptors, what limits were hit. Shims are
 * asked by a thread of its own, while the rest of the record is read and while the first are heard, so that they work side
 * by side; without that thread all are asked first. For the start, when nobody else has the containers yet. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct backend;
struct container;

struct adoption {
	const char *id, *nonce; /* given, until the end */
	struct container *
		container; /* as loaded from its record, given before adopt_finish; NULL: nobody takes it */
	int result; /* 0, or what stood in the way, in err */
	struct err err;
	int fd; /* until the link has it; -1: none */
	unsigned seq;
};

struct adoptions {
	struct backend *backend; /* these three are given */
	struct adoption *all;
	size_t n_all;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	size_t n_greeted; /* of all, from the first on; lock held */
};

/* Begins to ask. adopt_finish is owed. */
void adopt_begin(struct adoptions *adoptions);
/* Takes as long as the slowest, LINK_TIMEOUT_MS at most for all of those that hang. */
void adopt_finish(struct adoptions *adoptions);

/* counts.h - what has happened since the server started, for those who watch it. Threads: any. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

enum count {
	COUNT_CREATED,
	COUNT_CREATE_FAILED,
	COUNT_DESTROYED,
	COUNT_STARTED, /* processes */
	COUNT_START_FAILED,
	COUNT_EXITED, /* processes by the reason of their end */
	COUNT_SIGNALED,
	COUNT_OOM_KILLED,
	COUNT_ENDED_WITH_CONTAINER,
	N_COUNTS
};

struct counts {
	atomic_uint_fast64_t of[N_COUNTS];
};

static inline void count_one(struct counts *counts, enum count what)
{
	atomic_fetch_add_explicit(&counts->of[what], 1, memory_order_relaxed);
}

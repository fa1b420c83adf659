/* idpool.h - ranges of host ids, one per container. Reused first in, first out, so that a stale id
 * shows. Not locked: the owner's lock guards it. What a range means and who records it is
 * container.c's matter. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define IDS_PER_RANGE 65536u

struct idpool {
	uint32_t start, n_ranges; /* host id of the first range */
	uint32_t *queue, first, n_free; /* the free ones: a ring of n_ranges places */
	unsigned char *used;
	bool has_queue;
};

/* start + n_ranges * 65536 may not pass 2^32 - 65536, and start is not below 65536 (host ids of
 * people and services). 0, -EINVAL, -ENOMEM. */
int idpool_init(struct idpool *pool, uint32_t start, uint32_t n_ranges);
void idpool_done(struct idpool *pool);

/* The number of a free range, or -1. */
int64_t idpool_take(struct idpool *pool);
/* Marks one that a record names; -EINVAL if it is outside, -EEXIST if taken. */
int idpool_mark(struct idpool *pool, int64_t range);
void idpool_give(struct idpool *pool, int64_t range);
/* Marks each range that shares an id with the 65,536 from base on: a record of another pool. */
void idpool_mark_overlap(struct idpool *pool, int64_t base);
/* The number of the range that begins at base, or -1: none of this pool. */
int64_t idpool_find(const struct idpool *pool, int64_t base);
/* The host id of id 0 in the range. */
uint32_t idpool_base(const struct idpool *pool, int64_t range);

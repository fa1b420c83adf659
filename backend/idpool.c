#include "idpool.h"

#include <errno.h>
#include <stdlib.h>

int idpool_init(struct idpool *pool, uint32_t start, uint32_t n_ranges)
{
	uint64_t end = start + (uint64_t)n_ranges * IDS_PER_RANGE;

	if (start < IDS_PER_RANGE || n_ranges == 0 || end > UINT32_MAX - IDS_PER_RANGE)
		return -EINVAL;
	*pool = (struct idpool){ .start = start, .n_ranges = n_ranges };
	pool->used = calloc(n_ranges, 1);
	return pool->used ? 0 : -ENOMEM;
}

void idpool_done(struct idpool *pool)
{
	free(pool->used);
	*pool = (struct idpool){ 0 };
}

int64_t idpool_take(struct idpool *pool)
{
	for (uint32_t i = 0; i < pool->n_ranges; i++) {
		uint32_t range = (pool->next + i) % pool->n_ranges;

		if (pool->used[range])
			continue;
		pool->used[range] = 1;
		pool->n_used++;
		pool->next = (range + 1) % pool->n_ranges;
		return range;
	}
	return -1;
}

int idpool_mark(struct idpool *pool, int64_t range)
{
	if (range < 0 || range >= pool->n_ranges)
		return -EINVAL;
	if (pool->used[range])
		return -EEXIST;
	pool->used[range] = 1;
	pool->n_used++;
	return 0;
}

void idpool_give(struct idpool *pool, int64_t range)
{
	if (range < 0 || range >= pool->n_ranges || !pool->used[range])
		return;
	pool->used[range] = 0;
	pool->n_used--;
}

uint32_t idpool_base(const struct idpool *pool, int64_t range)
{
	return pool->start + (uint32_t)range * IDS_PER_RANGE;
}

#include "idpool.h"

#include <errno.h>
#include <stdlib.h>

int idpool_init(struct idpool *pool, uint32_t start, uint32_t n_ranges)
{
	uint64_t end = start + (uint64_t)n_ranges * IDS_PER_RANGE;

	if (start < IDS_PER_RANGE || n_ranges == 0 || end > (UINT64_C(1) << 32) - IDS_PER_RANGE)
		return -EINVAL;
	*pool = (struct idpool){ .start = start, .n_ranges = n_ranges, .n_free = n_ranges };
	pool->used = calloc(n_ranges, 1);
	pool->queue = calloc(n_ranges, sizeof(pool->queue[0]));
	if (!pool->used || !pool->queue) {
		idpool_done(pool);
		return -ENOMEM;
	}
	return 0;
}

void idpool_done(struct idpool *pool)
{
	free(pool->used);
	free(pool->queue);
	*pool = (struct idpool){ 0 };
}

static uint32_t *place(struct idpool *pool, uint32_t i)
{
	return &pool->queue[(pool->first + (uint64_t)i) % pool->n_ranges];
}

/* Not before the first one is taken or given: until then a start marks those that are used, one after the other. */
static void fill_queue(struct idpool *pool)
{
	uint32_t n = 0;

	if (pool->has_queue)
		return;
	pool->has_queue = true;
	for (uint32_t i = 0; i < pool->n_ranges; i++)
		if (!pool->used[i])
			pool->queue[n++] = i;
}

int64_t idpool_take(struct idpool *pool)
{
	uint32_t range;

	if (pool->n_free == 0)
		return -1;
	fill_queue(pool);
	range = *place(pool, 0);
	pool->first = (pool->first + 1) % pool->n_ranges;
	pool->n_free--;
	pool->used[range] = 1;
	return range;
}

static void leave_queue(struct idpool *pool, uint32_t range)
{
	uint32_t i = 0;

	while (*place(pool, i) != range)
		i++;
	for (; i + 1 < pool->n_free; i++)
		*place(pool, i) = *place(pool, i + 1);
}

int idpool_mark(struct idpool *pool, int64_t range)
{
	if (range < 0 || range >= pool->n_ranges)
		return -EINVAL;
	if (pool->used[range])
		return -EEXIST;
	if (pool->has_queue)
		leave_queue(pool, (uint32_t)range);
	pool->n_free--;
	pool->used[range] = 1;
	return 0;
}

void idpool_give(struct idpool *pool, int64_t range)
{
	if (range < 0 || range >= pool->n_ranges || !pool->used[range])
		return;
	fill_queue(pool);
	pool->used[range] = 0;
	*place(pool, pool->n_free++) = (uint32_t)range;
}

void idpool_mark_overlap(struct idpool *pool, int64_t base)
{
	int64_t offset = base - (int64_t)pool->start;

	if (offset <= -(int64_t)IDS_PER_RANGE)
		return;
	if (offset >= 0)
		idpool_mark(pool, offset / IDS_PER_RANGE);
	if (offset < 0 || offset % IDS_PER_RANGE)
		idpool_mark(pool, offset < 0 ? 0 : offset / IDS_PER_RANGE + 1);
}

int64_t idpool_find(const struct idpool *pool, int64_t base)
{
	int64_t offset = base - (int64_t)pool->start;

	if (offset < 0 || offset % IDS_PER_RANGE || offset / IDS_PER_RANGE >= pool->n_ranges)
		return -1;
	return offset / IDS_PER_RANGE;
}

uint32_t idpool_base(const struct idpool *pool, int64_t range)
{
	return pool->start + (uint32_t)range * IDS_PER_RANGE;
}

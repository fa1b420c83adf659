#include "unit.h"

#include <errno.h>

#include "alloc.h"
#include "idpool.h"

#define START 1879048192u

static void ranges_are_apart_and_in_order(void **state UNUSED)
{
	struct idpool pool;

	assert_int_equal(idpool_init(&pool, START, 3), 0);
	for (int i = 0; i < 3; i++) {
		int64_t range = idpool_take(&pool);

		assert_int_equal(range, i);
		assert_int_equal(idpool_base(&pool, range), START + (uint32_t)i * 65536u);
	}
	assert_int_equal(pool.n_ranges - pool.n_free, 3);
	idpool_done(&pool);
}

static void an_exhausted_pool_says_so_and_recovers(void **state UNUSED)
{
	struct idpool pool;

	assert_int_equal(idpool_init(&pool, START, 2), 0);
	idpool_take(&pool);
	idpool_take(&pool);
	assert_int_equal(idpool_take(&pool), -1);
	assert_int_equal(idpool_take(&pool), -1);
	idpool_give(&pool, 1);
	assert_int_equal(idpool_take(&pool), 1);
	assert_int_equal(idpool_take(&pool), -1);
	idpool_done(&pool);
}

static void ranges_given_back_are_reused_first_in_first_out(void **state UNUSED)
{
	static const int64_t given[] = { 2, 0, 3, 1 };
	struct idpool pool;

	assert_int_equal(idpool_init(&pool, START, 4), 0);
	for (int i = 0; i < 4; i++)
		idpool_take(&pool);
	for (int i = 0; i < 4; i++)
		idpool_give(&pool, given[i]);
	for (int i = 0; i < 4; i++)
		assert_int_equal(idpool_take(&pool), given[i]);
	idpool_done(&pool);
}

static void a_range_just_given_back_is_not_the_next_one(void **state UNUSED)
{
	struct idpool pool;
	int64_t range;

	assert_int_equal(idpool_init(&pool, START, 100), 0);
	range = idpool_take(&pool);
	for (int i = 0; i < 99; i++) {
		int64_t next;

		idpool_give(&pool, range);
		next = idpool_take(&pool);
		assert_int_not_equal(next, range);
		range = next;
	}
	idpool_done(&pool);
}

static void recorded_ranges_are_never_handed_out(void **state UNUSED)
{
	struct idpool pool;

	assert_int_equal(idpool_init(&pool, START, 4), 0);
	assert_int_equal(idpool_mark(&pool, 0), 0);
	assert_int_equal(idpool_mark(&pool, 2), 0);
	assert_int_equal(idpool_mark(&pool, 2), -EEXIST);
	assert_int_equal(idpool_mark(&pool, -1), -EINVAL);
	assert_int_equal(idpool_mark(&pool, 4), -EINVAL);
	assert_int_equal(idpool_mark(&pool, INT64_MAX), -EINVAL);
	assert_int_equal(pool.n_ranges - pool.n_free, 2);
	assert_int_equal(idpool_take(&pool), 1);
	assert_int_equal(idpool_take(&pool), 3);
	assert_int_equal(idpool_take(&pool), -1);
	idpool_done(&pool);
}

/* The queue is made when it is first needed, and what is marked then leaves it. */
static void a_range_may_be_marked_at_any_time(void **state UNUSED)
{
	struct idpool pool;

	assert_int_equal(idpool_init(&pool, START, 5), 0);
	assert_int_equal(idpool_mark(&pool, 1), 0);
	idpool_give(&pool, 1);
	assert_int_equal(idpool_mark(&pool, 3), 0);
	assert_int_equal(idpool_take(&pool), 0);
	assert_int_equal(idpool_mark(&pool, 4), 0);
	assert_int_equal(idpool_mark(&pool, 4), -EEXIST);
	assert_int_equal(idpool_take(&pool), 2);
	assert_int_equal(idpool_take(&pool), 1);
	assert_int_equal(idpool_take(&pool), -1);
	idpool_done(&pool);
}

static void giving_back_what_is_not_taken_changes_nothing(void **state UNUSED)
{
	struct idpool pool;

	assert_int_equal(idpool_init(&pool, START, 2), 0);
	idpool_take(&pool);
	idpool_give(&pool, 1);
	idpool_give(&pool, -1);
	idpool_give(&pool, 2);
	idpool_give(&pool, INT64_MAX);
	assert_int_equal(pool.n_ranges - pool.n_free, 1);
	idpool_give(&pool, 0);
	idpool_give(&pool, 0);
	assert_int_equal(pool.n_ranges - pool.n_free, 0);
	idpool_done(&pool);
}

static void a_pool_keeps_clear_of_people_and_of_the_end_of_all_ids(void **state UNUSED)
{
	static const struct {
		uint32_t start, n_ranges;
		int r;
	} rows[] = {
		{ START, 1, 0 },
		{ START, 4094, 0 },
		{ 65536, 1, 0 },
		{ 65536, 65533, 0 },
		{ 65536, 65534, 0 },
		{ 65536, 65535, -EINVAL },
		{ 4294836224u, 1, 0 },
		{ 4294836225u, 1, -EINVAL },
		{ 4294901760u, 1, -EINVAL },
		{ UINT32_MAX, 1, -EINVAL },
		{ START, UINT32_MAX, -EINVAL },
		{ START, 0, -EINVAL },
		{ 0, 1, -EINVAL },
		{ 1000, 1, -EINVAL },
		{ 65535, 1, -EINVAL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct idpool pool = { 0 };
		int r = idpool_init(&pool, rows[i].start, rows[i].n_ranges);

		if (r != rows[i].r)
			fail_msg("%u, %u: %d", rows[i].start, rows[i].n_ranges, r);
		if (r == 0)
			idpool_done(&pool);
	}
}

static void out_of_memory_is_an_error(void **state UNUSED)
{
	struct idpool pool;

	if (!alloc_can_fail)
		skip();
	alloc_fail_at(1);
	assert_int_equal(idpool_init(&pool, START, 4), -ENOMEM);
	assert_true(alloc_has_failed());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_are_apart_and_in_order),
		cmocka_unit_test(an_exhausted_pool_says_so_and_recovers),
		cmocka_unit_test(ranges_given_back_are_reused_first_in_first_out),
		cmocka_unit_test(a_range_just_given_back_is_not_the_next_one),
		cmocka_unit_test(recorded_ranges_are_never_handed_out),
		cmocka_unit_test(a_range_may_be_marked_at_any_time),
		cmocka_unit_test(giving_back_what_is_not_taken_changes_nothing),
		cmocka_unit_test(a_pool_keeps_clear_of_people_and_of_the_end_of_all_ids),
		cmocka_unit_test(out_of_memory_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

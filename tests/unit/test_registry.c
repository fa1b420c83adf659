#include "unit.h"

#include <errno.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/registry.h"

#define N_MANY 5000

static void auto_registry(struct registry **reg)
{
	registry_free(*reg);
}
#define AUTO_REGISTRY AUTO(auto_registry)

static int numbers[N_MANY];

static const char *key_of(int i)
{
	static char key[32];

	snprintf(key, sizeof(key), "key-%d", i);
	return key;
}

static void a_new_table_is_empty(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();

	assert_non_null(reg);
	assert_int_equal(registry_count(reg), 0);
	assert_null(registry_find(reg, "a"));
	assert_null(registry_find(reg, ""));
	assert_null(registry_remove(reg, "a"));
}

static void freeing_no_table_is_allowed(void **state UNUSED)
{
	registry_free(NULL);
}

static void what_was_added_is_found_by_its_whole_key(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();

	assert_int_equal(registry_add(reg, "one", &numbers[1]), 0);
	assert_int_equal(registry_add(reg, "", &numbers[2]), 0);
	assert_ptr_equal(registry_find(reg, "one"), &numbers[1]);
	assert_ptr_equal(registry_find(reg, ""), &numbers[2]);
	assert_null(registry_find(reg, "on"));
	assert_null(registry_find(reg, "ones"));
	assert_null(registry_find(reg, "ONE"));
	assert_int_equal(registry_count(reg), 2);
}

static void a_taken_key_is_refused_and_the_first_stays(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();

	assert_int_equal(registry_add(reg, "a", &numbers[1]), 0);
	assert_int_equal(registry_add(reg, "a", &numbers[2]), -EEXIST);
	assert_ptr_equal(registry_find(reg, "a"), &numbers[1]);
	assert_int_equal(registry_count(reg), 1);
}

static void what_a_key_has_is_replaced_and_put_back(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();
	int first, second;
	void *old = &first;

	assert_int_equal(registry_set(reg, "key", &first, &old), 0);
	assert_null(old);
	alloc_fail_at(1);
	assert_int_equal(registry_set(reg, "key", &second, &old), 0);
	assert_int_equal(alloc_has_failed(), 0);
	assert_ptr_equal(old, &first);
	assert_ptr_equal(registry_reset(reg, "key", old), &second);
	assert_ptr_equal(registry_find(reg, "key"), &first);
	assert_ptr_equal(registry_reset(reg, "key", NULL), &first);
	assert_null(registry_find(reg, "key"));
}

static void the_table_owns_its_keys(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();
	char key[] = "key";

	assert_int_equal(registry_add(reg, key, &numbers[1]), 0);
	key[0] = 'X';
	assert_ptr_equal(registry_find(reg, "key"), &numbers[1]);
	assert_null(registry_find(reg, key));
}

static void a_removed_entry_is_handed_back_and_its_key_is_free(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();

	registry_add(reg, "a", &numbers[1]);
	assert_ptr_equal(registry_remove(reg, "a"), &numbers[1]);
	assert_null(registry_find(reg, "a"));
	assert_null(registry_remove(reg, "a"));
	assert_int_equal(registry_count(reg), 0);
	assert_int_equal(registry_add(reg, "a", &numbers[2]), 0);
	assert_ptr_equal(registry_find(reg, "a"), &numbers[2]);
}

static int expect_next(const char *key, void *value, void *arg)
{
	int *next = arg, i = (int)((int *)value - numbers);

	assert_string_equal(key, key_of(i));
	assert_true(i >= *next);
	*next = i + 1;
	return 0;
}

static void many_entries_are_visited_in_the_order_of_insertion(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();
	int next = 0;

	for (int i = 0; i < N_MANY; i++)
		assert_int_equal(registry_add(reg, key_of(i), &numbers[i]), 0);
	assert_int_equal(registry_count(reg), N_MANY);
	for (int i = 0; i < N_MANY; i += 3)
		assert_ptr_equal(registry_remove(reg, key_of(i)), &numbers[i]);
	for (int i = 0; i < N_MANY; i++)
		assert_ptr_equal(registry_find(reg, key_of(i)), i % 3 ? &numbers[i] : NULL);
	assert_int_equal(registry_each(reg, expect_next, &next), 0);
	assert_int_equal(next, N_MANY);
}

static int stop_at_third(const char *key UNUSED, void *value UNUSED, void *arg)
{
	int *n_visits = arg;

	return ++*n_visits == 3 ? -ECANCELED : 0;
}

static void a_visit_ends_with_the_first_answer_that_is_not_zero(void **state UNUSED)
{
	AUTO_REGISTRY struct registry *reg = registry_new();
	int n_visits = 0;

	assert_int_equal(registry_each(reg, stop_at_third, &n_visits), 0);
	assert_int_equal(n_visits, 0);
	for (int i = 0; i < 5; i++)
		registry_add(reg, key_of(i), &numbers[i]);
	assert_int_equal(registry_each(reg, stop_at_third, &n_visits), -ECANCELED);
	assert_int_equal(n_visits, 3);
}

static int fill(struct registry *reg)
{
	int r = 0;

	for (int i = 0; i < 1000 && r == 0; i++)
		r = registry_add(reg, key_of(i), &numbers[i]);
	return r;
}

static void whichever_allocation_fails_the_table_stays_whole(void **state UNUSED)
{
	long n = 0;
	int failed;

	if (!alloc_can_fail)
		skip();
	do {
		AUTO_REGISTRY struct registry *reg = NULL;
		int r, count, next = 0;

		alloc_fail_at(++n);
		reg = registry_new();
		r = reg ? fill(reg) : -ENOMEM;
		failed = alloc_has_failed();
		assert_int_equal(r, failed ? -ENOMEM : 0);
		if (!reg)
			continue;
		count = (int)registry_count(reg);
		assert_int_equal(registry_each(reg, expect_next, &next), 0);
		assert_int_equal(next, count);
		assert_int_equal(registry_add(reg, "and on", &numbers[0]), 0);
		assert_ptr_equal(registry_find(reg, "and on"), &numbers[0]);
	} while (failed);
	assert_true(n > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_table_is_empty),
		cmocka_unit_test(freeing_no_table_is_allowed),
		cmocka_unit_test(what_was_added_is_found_by_its_whole_key),
		cmocka_unit_test(a_taken_key_is_refused_and_the_first_stays),
		cmocka_unit_test(what_a_key_has_is_replaced_and_put_back),
		cmocka_unit_test(the_table_owns_its_keys),
		cmocka_unit_test(a_removed_entry_is_handed_back_and_its_key_is_free),
		cmocka_unit_test(many_entries_are_visited_in_the_order_of_insertion),
		cmocka_unit_test(a_visit_ends_with_the_first_answer_that_is_not_zero),
		cmocka_unit_test(whichever_allocation_fails_the_table_stays_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

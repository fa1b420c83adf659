#include "unit.h"

#include <errno.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/strv.h"

static void a_list_grows_and_stays_terminated(void **state UNUSED)
{
	AUTO_STRV struct strv list = { 0 };

	assert_null(list.items);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(strv_addf(&list, "item %d", i), 0);
		assert_int_equal(list.n_items, i + 1);
		assert_null(list.items[i + 1]);
	}
	assert_string_equal(list.items[0], "item 0");
	assert_string_equal(list.items[999], "item 999");
}

static void added_text_is_a_copy(void **state UNUSED)
{
	AUTO_STRV struct strv list = { 0 };
	char text[] = "before";

	assert_int_equal(strv_add(&list, text), 0);
	text[0] = 'X';
	assert_string_equal(list.items[0], "before");
}

static void taken_text_is_owned_by_the_list(void **state UNUSED)
{
	AUTO_STRV struct strv list = { 0 };
	char *text = strdup("mine");

	assert_int_equal(strv_take(&list, text), 0);
	assert_ptr_equal(list.items[0], text);
}

static void taking_nothing_counts_as_out_of_memory(void **state UNUSED)
{
	AUTO_STRV struct strv list = { 0 };

	assert_int_equal(strv_take(&list, NULL), -ENOMEM);
	assert_int_equal(list.n_items, 0);
	assert_int_equal(strv_add(&list, "a"), 0);
	assert_int_equal(strv_take(&list, NULL), -ENOMEM);
	assert_int_equal(list.n_items, 1);
	assert_null(list.items[1]);
}

static void a_copy_is_appended(void **state UNUSED)
{
	AUTO_STRV struct strv list = { 0 };
	AUTO_STRV struct strv from = { 0 };
	AUTO_STRV struct strv empty = { 0 };

	strv_add(&list, "a");
	strv_add(&from, "b");
	strv_add(&from, "c");
	assert_int_equal(strv_copy(&list, &from), 0);
	assert_int_equal(strv_copy(&list, &empty), 0);
	assert_int_equal(list.n_items, 3);
	assert_string_equal(list.items[2], "c");
	assert_ptr_not_equal(list.items[2], from.items[1]);
	assert_int_equal(from.n_items, 2);
}

static void an_ended_list_is_empty_and_can_be_used_again(void **state UNUSED)
{
	struct strv list = { 0 };

	strv_done(&list);
	strv_add(&list, "a");
	strv_done(&list);
	assert_null(list.items);
	assert_int_equal(list.n_items, 0);
	strv_done(&list);
	assert_int_equal(strv_add(&list, "b"), 0);
	assert_string_equal(list.items[0], "b");
	strv_done(&list);
}

static int fill(struct strv *list)
{
	int r = 0;

	for (int i = 0; i < 20 && r == 0; i++)
		r = i % 2 ? strv_add(list, "text") : strv_addf(list, "%d", i);
	return r;
}

static void whichever_allocation_fails_the_list_stays_whole(void **state UNUSED)
{
	long n = 0;
	int failed;

	if (!alloc_can_fail)
		skip();
	do {
		AUTO_STRV struct strv list = { 0 };
		int r;

		alloc_fail_at(++n);
		r = fill(&list);
		failed = alloc_has_failed();
		/* vasprintf survives the failure of its last, shrinking realloc */
		assert_true(r == 0 || (r == -ENOMEM && failed));
		assert_true(r < 0 || list.n_items == 20);
		if (list.items)
			assert_null(list.items[list.n_items]);
		for (size_t i = 0; i < list.n_items; i++)
			assert_non_null(list.items[i]);
		assert_int_equal(strv_add(&list, "and on"), 0);
	} while (failed);
	assert_true(n > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_grows_and_stays_terminated),
		cmocka_unit_test(added_text_is_a_copy),
		cmocka_unit_test(taken_text_is_owned_by_the_list),
		cmocka_unit_test(taking_nothing_counts_as_out_of_memory),
		cmocka_unit_test(a_copy_is_appended),
		cmocka_unit_test(an_ended_list_is_empty_and_can_be_used_again),
		cmocka_unit_test(whichever_allocation_fails_the_list_stays_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

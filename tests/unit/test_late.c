#include "unit.h"

#include <math.h>

#include "base/late.h"

static double (*cosine)(double);
static void *other;

static void load(const char *file, const char *second)
{
	const struct late_function functions[] = { { "cos", (void **)&cosine },
		{ second, &other } };

	cosine = NULL;
	other = NULL;
	late_load(file, functions, 2);
}

static void functions_of_a_library_are_found(void **state UNUSED)
{
	load("libm.so.6", "sin");
	assert_non_null(cosine);
	assert_non_null(other);
	assert_true(fabs(cosine(0) - 1) < 1e-9);
}

static void of_a_library_that_lacks_one_there_is_none(void **state UNUSED)
{
	load("libm.so.6", "no_function_of_this_name");
	assert_null(cosine);
	assert_null(other);
}

static void of_a_library_that_is_missing_there_is_none(void **state UNUSED)
{
	load("libno-library-of-this-name.so.1", "sin");
	assert_null(cosine);
	assert_null(other);
}

#define FUNCTIONS(F) F(int, late_absent, (int number), (number), -number)
int late_absent(int number);
LATE_LIBRARY("libno-library-of-this-name.so.1", FUNCTIONS, LATE_NONE);

static void what_it_would_have_done_is_answered_instead(void **state UNUSED)
{
	assert_int_equal(late_absent(7), -7);
	assert_int_equal(late_absent(8), -8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(functions_of_a_library_are_found),
		cmocka_unit_test(of_a_library_that_lacks_one_there_is_none),
		cmocka_unit_test(of_a_library_that_is_missing_there_is_none),
		cmocka_unit_test(what_it_would_have_done_is_answered_instead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

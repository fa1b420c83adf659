/* The report as such, whatever this host lacks; each probe's failure is in tests/api/test_doctor.py. */
#include "unit.h"

#include <sys/stat.h>

#include "base/auto.h"
#include "linux/features.h"

struct seen {
	const char *names[64];
	int n;
};

static void note(const struct feature *feature, void *arg)
{
	struct seen *seen = arg;

	assert_true(seen->n < (int)N_ELEMENTS(seen->names));
	for (int i = 0; i < seen->n; i++)
		assert_string_not_equal(seen->names[i], feature->name);
	seen->names[seen->n++] = feature->name;
	assert_true(feature->code <= 0);
	assert_true((feature->code < 0) == (*feature->reason != '\0'));
	assert_true(strlen(feature->loss) > 0);
	/* the line is taken apart at these */
	assert_null(strpbrk(feature->name, ":\n"));
	assert_null(strchr(feature->reason, '\n'));
	assert_int_not_equal(feature->loss[strlen(feature->loss) - 1], '.');
}

static struct seen probe(const char *work_dir)
{
	struct features_input input = { .work_dir = work_dir, .id_base = 1879048192 };
	struct seen seen = { .n = 0 };

	features_probe(&input, note, &seen);
	assert_true(seen.n > 10);
	return seen;
}

static void each_feature_is_reported_once(void **state)
{
	int before = unit_count_fds();

	probe(*state);
	assert_int_equal(unit_count_fds(), before);
	assert_int_equal(rmdir(*state), 0); /* nothing was left in it */
	assert_int_equal(mkdir(*state, 0700), 0);
}

static void the_order_does_not_depend_on_the_host(void **state)
{
	struct seen here = probe(*state), elsewhere = probe("/proc/self/no/such/directory");

	assert_int_equal(here.n, elsewhere.n);
	for (int i = 0; i < here.n; i++)
		assert_string_equal(here.names[i], elsewhere.names[i]);
}

static void a_path_that_is_no_directory_is_named(void **state)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", unit_path(state, "file"));
	unit_write_file(path, "x", 1);
	probe(path);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_make_dir, unit_remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(each_feature_is_reported_once),
		TEST(the_order_does_not_depend_on_the_host),
		TEST(a_path_that_is_no_directory_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/usage.h"

static int count(void **state, uint64_t max_names, struct usage *ret)
{
	AUTO_FD int fd = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return usage_count(fd, max_names, ret);
}

static void bytes_and_names_are_counted(void **state)
{
	static const char block[3 * 4096] = { 1 };
	struct usage before, usage;

	assert_int_equal(count(state, 100, &before), 0);
	assert_int_equal(before.n_names, 1);
	unit_write_file(unit_path(state, "a"), block, sizeof(block));
	assert_int_equal(mkdir(unit_path(state, "d"), 0755), 0);
	unit_write_file(unit_path(state, "d/b"), block, 4096);
	assert_int_equal(symlink("/", unit_path(state, "out")), 0);
	assert_int_equal(count(state, 100, &usage), 0);
	assert_int_equal(usage.n_names, 5);
	assert_true(usage.n_bytes >= before.n_bytes + 4 * 4096 &&
		usage.n_bytes <= before.n_bytes + 8 * 4096);
}

static void a_file_of_many_names_counts_once(void **state)
{
	static const char block[64 * 4096] = { 1 };
	struct usage one, many;
	char *first = strdup(unit_path(state, "a"));

	unit_write_file(first, block, sizeof(block));
	assert_int_equal(count(state, 100, &one), 0);
	assert_int_equal(link(first, unit_path(state, "b")), 0);
	assert_int_equal(link(first, unit_path(state, "c")), 0);
	assert_int_equal(link(first, unit_path(state, "d")), 0);
	free(first);
	assert_int_equal(count(state, 100, &many), 0);
	assert_int_equal(many.n_bytes, one.n_bytes);
	assert_int_equal(many.n_names, one.n_names + 3);
}

static void what_is_too_much_is_refused(void **state)
{
	AUTO_FD int fd = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int at = fcntl(fd, F_DUPFD_CLOEXEC, 3), below;
	struct usage usage;

	for (int i = 0; i < 70; i++) {
		assert_int_equal(mkdirat(at, "d", 0755), 0);
		below = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close(at);
		at = below;
	}
	close(at);
	assert_int_equal(usage_count(fd, 1000, &usage), -E2BIG);
	assert_int_equal(count(state, 10, &usage), -E2BIG);
	assert_int_equal(count(state, UINT64_MAX, &usage), 0);
	assert_int_equal(usage.n_names, 65); /* and not what is deeper */
}

static void there_must_be_a_directory(void **state)
{
	struct usage usage;
	AUTO_FD int fd = -1;

	unit_write_file(unit_path(state, "a"), "", 0);
	fd = open(unit_path(state, "a"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(usage_count(fd, 10, &usage), -ENOTDIR);
	assert_int_equal(usage_count(-1, 10, &usage), -EBADF);
}

int main(void)
{
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, unit_make_dir, unit_remove_dir)
	const struct CMUnitTest tests[] = {
		WITH_DIR(bytes_and_names_are_counted),
		WITH_DIR(a_file_of_many_names_counts_once),
		WITH_DIR(what_is_too_much_is_refused),
		WITH_DIR(there_must_be_a_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

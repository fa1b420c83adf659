/* Each test confines a child of its own. */
#include "unit.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/landlock.h"

static int set_up(void **state)
{
	if (unit_make_dir(state) || mkdir(unit_path(state, "in"), 0755) ||
		mkdir(unit_path(state, "in/d"), 0755) || mkdir(unit_path(state, "read"), 0755))
		return -1;
	unit_write_file(unit_path(state, "in/f"), "x", 1);
	unit_write_file(unit_path(state, "read/f"), "x", 1);
	unit_write_file(unit_path(state, "outside"), "x", 1);
	return 0;
}

/* 0, or the errno of opening what is there. */
static int try_open(void **state, const char *name, int flags)
{
	AUTO_FD int fd = open(unit_path(state, name), flags | O_CLOEXEC, 0644);

	return fd < 0 ? errno : 0;
}

static int try_all(void **state)
{
	AUTO_FD int in_fd = open(unit_path(state, "in"), O_PATH | O_CLOEXEC);
	AUTO_FD int read_fd = open(unit_path(state, "read"), O_PATH | O_CLOEXEC);
	const struct landlock_tree trees[] = { { in_fd, true }, { read_fd, false } };

	/* a kernel without Landlock would show in the last two */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_confine(trees, 2) < 0)
		return 1;
	if (try_open(state, "in/new", O_RDWR | O_CREAT | O_TRUNC) ||
		linkat(in_fd, "f", in_fd, "d/f", 0) < 0 || mkdirat(in_fd, "e", 0755) < 0 ||
		unlinkat(in_fd, "e", AT_REMOVEDIR) < 0)
		return 2;
	if (try_open(state, "read/f", O_RDONLY) || try_open(state, "read/f", O_RDWR) != EACCES ||
		try_open(state, "read/new", O_RDWR | O_CREAT) != EACCES)
		return 3;
	if (try_open(state, "outside", O_RDONLY) != EACCES ||
		try_open(state, "in/../outside", O_RDONLY) != EACCES ||
		try_open(state, ".", O_RDONLY | O_DIRECTORY) != EACCES)
		return 4;
	return 0;
}

static void what_is_not_beneath_is_out_of_reach(void **state)
{
	assert_int_equal(unit_in_child(try_all, state), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_is_not_beneath_is_out_of_reach, set_up, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

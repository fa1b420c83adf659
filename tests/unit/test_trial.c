#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"
#include "volumes/trial.h"

static int open_top(void **state)
{
	return open(unit_path(state, "."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void make_file(void **state)
{
	mkdir(unit_path(state, TRIAL_DIR), 0755);
	unit_write_file(unit_path(state, TRIAL_DIR "/" TRIAL_FILE), "x", 1);
}

static void what_an_overlay_must_do_a_directory_does(void **state)
{
	AUTO_FD int fd = open_top(state);
	struct err err = { 0 };
	struct stat st;

	make_file(state);
	assert_int_equal(trial(fd, &err), 0);
	assert_int_equal(stat(unit_path(state, TRIAL_DIR "/new"), &st), 0);
	assert_int_equal(st.st_uid, 1);
	assert_int_equal(stat(unit_path(state, TRIAL_DIR "/" TRIAL_FILE), &st), -1);
}

static void a_failure_says_which_step_it_was(void **state)
{
	AUTO_FD int fd = open_top(state);
	struct err err = { 0 };

	assert_int_equal(trial(fd, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "replace a directory"));
	make_file(state);
	unit_write_file(unit_path(state, TRIAL_DIR "/second"), "x", 1);
	assert_int_equal(trial(fd, &err), -ENOTEMPTY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_an_overlay_must_do_a_directory_does, unit_make_dir, unit_remove_dir),
		cmocka_unit_test_setup_teardown(
			a_failure_says_which_step_it_was, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests_name("trial", tests, NULL, NULL);
}

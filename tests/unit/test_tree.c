#include "unit.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/sys.h"
#include "linux/tree.h"

static int top_fd;

static int make_top(void **state)
{
	if (unit_make_dir(state) || mkdir(unit_path(state, "top"), 0755))
		return -1;
	top_fd = open(unit_path(state, "top"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return top_fd < 0 ? -1 : 0;
}

static int remove_top(void **state)
{
	auto_fd(&top_fd);
	return unit_remove_dir(state);
}

static int n_entries(void **state)
{
	DIR *dir = opendir(unit_path(state, "top"));
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void an_empty_directory_stays_as_it_is(void **state)
{
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
}

static void everything_of_any_kind_goes(void **state)
{
	static const char *const dirs[] = { "top/a", "top/a/b", "top/a/b/c", "top/locked", "top/-x",
		"top/part-0" };
	static const char *const files[] = { "top/f", "top/a/f", "top/a/b/f", "top/a/b/c/f",
		"top/locked/f", "top/-rf", "top/a/new\nline", "top/a/\xff\xfe", "top/part-0/f" };

	for (size_t i = 0; i < N_ELEMENTS(dirs); i++)
		assert_int_equal(mkdir(unit_path(state, dirs[i]), 0755), 0);
	for (size_t i = 0; i < N_ELEMENTS(files); i++)
		unit_write_file(unit_path(state, files[i]), "x", 1);
	assert_int_equal(mkfifo(unit_path(state, "top/a/fifo"), 0644), 0);
	assert_int_equal(chmod(unit_path(state, "top/f"), 0), 0);
	if (geteuid() == 0)
		assert_int_equal(chmod(unit_path(state, "top/locked"), 0), 0);
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
}

static void links_are_deleted_and_not_followed(void **state)
{
	assert_int_equal(mkdir(unit_path(state, "outside"), 0755), 0);
	unit_write_file(unit_path(state, "outside/f"), "x", 1);
	assert_int_equal(mkdir(unit_path(state, "top/d"), 0755), 0);
	assert_int_equal(symlinkat("../outside", top_fd, "link"), 0);
	assert_int_equal(symlinkat("../../outside", top_fd, "d/link"), 0);
	assert_int_equal(symlinkat("/", top_fd, "d/root"), 0);
	assert_int_equal(symlinkat("loop", top_fd, "loop"), 0);
	assert_int_equal(linkat(top_fd, "../outside/f", top_fd, "hard", 0), 0);
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
	assert_int_equal(access(unit_path(state, "outside/f"), F_OK), 0);
}

static void a_deep_tree_needs_no_depth(void **state)
{
	AUTO_FD int fd = fcntl(top_fd, F_DUPFD_CLOEXEC, 3);

	for (int i = 0; i < 3000; i++) {
		int next;

		assert_int_equal(mkdirat(fd, "d", 0755), 0);
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		auto_fd(&fd);
		fd = next;
	}
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
}

static void a_wide_tree_goes_too(void **state)
{
	char name[32];

	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), i % 3 ? "d%d" : "f%d", i);
		assert_int_equal(
			i % 3 ? mkdirat(top_fd, name, 0755) : mknodat(top_fd, name, S_IFREG, 0), 0);
		snprintf(name, sizeof(name), "d%d/x", i);
		if (i % 3 == 1)
			assert_int_equal(mknodat(top_fd, name, S_IFREG, 0), 0);
	}
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
}

static bool set_flags(const char *path, unsigned flags)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	unsigned all;

	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &all) < 0)
		return false;
	all |= flags;
	return ioctl(fd, FS_IOC_SETFLAGS, &all) == 0;
}

static void immutable_and_append_only_files_go(void **state)
{
	assert_int_equal(mkdir(unit_path(state, "top/d"), 0755), 0);
	assert_int_equal(mkdir(unit_path(state, "top/d/e"), 0755), 0);
	unit_write_file(unit_path(state, "top/d/e/f"), "x", 1);
	unit_write_file(unit_path(state, "top/d/g"), "x", 1);
	if (!set_flags(unit_path(state, "top/d/e/f"), FS_IMMUTABLE_FL))
		skip();
	assert_true(set_flags(unit_path(state, "top/d/g"), FS_APPEND_FL));
	assert_true(set_flags(unit_path(state, "top/d/e"), FS_IMMUTABLE_FL));
	assert_true(set_flags(unit_path(state, "top/d"), FS_APPEND_FL));
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
}

/* In a mount namespace of the test's own: nothing of the machine is touched. */
static void a_mount_in_the_way_is_an_error_and_its_content_stays(void **state)
{
	assert_int_equal(mkdir(unit_path(state, "top/d"), 0755), 0);
	assert_int_equal(mkdir(unit_path(state, "top/d/m"), 0755), 0);
	unit_write_file(unit_path(state, "top/d/f"), "x", 1);
	if (sys_unshare(0x20000 /* CLONE_NEWNS */) < 0 || sys_make_private("/") < 0)
		skip();
	assert_int_equal(mount("none", unit_path(state, "top/d/m"), "tmpfs", 0, NULL), 0);
	unit_write_file(unit_path(state, "top/d/m/inner"), "x", 1);
	assert_int_equal(tree_empty(top_fd, -1), -EBUSY);
	assert_int_equal(access(unit_path(state, "top/d/m/inner"), F_OK), 0);
	assert_int_equal(access(unit_path(state, "top/d/f"), F_OK), -1);
	assert_int_equal(umount2(unit_path(state, "top/d/m"), MNT_DETACH), 0);
	assert_int_equal(tree_empty(top_fd, -1), 0);
	assert_int_equal(n_entries(state), 0);
}

#define TOP_TEST(name) cmocka_unit_test_setup_teardown(name, make_top, remove_top)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TOP_TEST(an_empty_directory_stays_as_it_is),
		TOP_TEST(everything_of_any_kind_goes),
		TOP_TEST(links_are_deleted_and_not_followed),
		TOP_TEST(a_deep_tree_needs_no_depth),
		TOP_TEST(a_wide_tree_goes_too),
		TOP_TEST(immutable_and_append_only_files_go),
		TOP_TEST(a_mount_in_the_way_is_an_error_and_its_content_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

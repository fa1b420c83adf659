#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/buf.h"
#include "volumes/walk.h"

static struct buf told;
static const char *fails_at;

static int tell(const struct walk_item *item, const char *what)
{
	struct stat st;

	assert_int_equal(strlen(item->path), item->path_bytes);
	assert_int_equal(fstatat(item->dir_fd, item->name, &st, AT_SYMLINK_NOFOLLOW), 0);
	if (item->fd < 0)
		assert_int_equal(st.st_ino, item->st.st_ino);
	buf_addf(&told, "%s%.20s ", what, item->path);
	return fails_at && !strcmp(fails_at, item->path) ? -EIO : 0;
}

static int enter(void *context, const struct walk_item *item)
{
	if (context && item->path_bytes)
		assert_int_equal(mkdirat(item->twin_dir_fd, item->name, 0755), 0);
	return tell(item, ">");
}

static int leave(void *context, const struct walk_item *item)
{
	if (context)
		assert_true(item->twin_fd >= 0);
	return tell(item, "<");
}

static int file(void *context, const struct walk_item *item)
{
	if (context)
		assert_int_equal(mknodat(item->twin_dir_fd, item->name, S_IFREG | 0644, 0), 0);
	return tell(item, "");
}

static void lost(const char *path)
{
	buf_addf(&told, "?%s ", path);
}

static const struct walk plain = { .enter = enter, .leave = leave, .file = file };

static int set_up(void **state)
{
	buf_init(&told, 1 << 20);
	fails_at = NULL;
	if (unit_make_dir(state) || mkdir(unit_path(state, "top"), 0755) ||
		mkdir(unit_path(state, "top/d"), 0755) ||
		mkdir(unit_path(state, "top/d/e"), 0755) || mkdir(unit_path(state, "twin"), 0755))
		return -1;
	unit_write_file(unit_path(state, "top/f"), "", 0);
	unit_write_file(unit_path(state, "top/d/e/g"), "", 0);
	return 0;
}

static int tear_down(void **state)
{
	buf_done(&told);
	return unit_remove_dir(state);
}

static int open_dir(void **state, const char *name)
{
	return open(unit_path(state, name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void files_come_before_directories(void **state)
{
	AUTO_FD int fd = open_dir(state, "top");
	int before = unit_count_fds();

	assert_int_equal(walk_tree(&plain, fd, -1), 0);
	assert_string_equal(told.data, "> f >d >d/e d/e/g <d/e <d < ");
	assert_int_equal(unit_count_fds(), before);
}

static void a_call_that_fails_ends_it(void **state)
{
	AUTO_FD int fd = open_dir(state, "top");
	int before = unit_count_fds();

	fails_at = "d/e";
	assert_int_equal(walk_tree(&plain, fd, -1), -EIO);
	assert_string_equal(told.data, "> f >d >d/e ");
	assert_int_equal(unit_count_fds(), before);
}

static void a_second_tree_goes_along(void **state)
{
	struct walk walk = plain;
	AUTO_FD int fd = open_dir(state, "top");
	AUTO_FD int twin_fd = open_dir(state, "twin");
	struct stat st;

	walk.context = &walk;
	assert_int_equal(walk_tree(&walk, fd, twin_fd), 0);
	assert_int_equal(fstatat(twin_fd, "d/e/g", &st, 0), 0);
	assert_int_equal(fstatat(twin_fd, "f", &st, 0), 0);
}

static void links_are_followed_on_request_only(void **state)
{
	struct walk walk = plain;
	AUTO_FD int fd = open_dir(state, "top/d");
	AUTO_FD int root_fd = open_dir(state, ".");

	assert_int_equal(symlink("/top/f", unit_path(state, "top/d/link")), 0);
	assert_int_equal(walk_tree(&plain, fd, -1), 0);
	assert_string_equal(told.data, "> link >e e/g <e < ");
	buf_clear(&told);
	walk.follow_top = "top/d";
	walk.follow_fd = root_fd;
	walk.lost = lost;
	assert_int_equal(symlink("..", unit_path(state, "top/d/e/up")), 0);
	assert_int_equal(walk_tree(&walk, fd, -1), 0);
	assert_non_null(strstr(told.data, "link "));
	assert_non_null(strstr(told.data, "?e/up "));
}

/* Deeper than descriptors are kept open, with something to do on the way up. */
static void depth_has_no_limit(void **state)
{
	struct walk walk = plain;
	AUTO_FD int top_fd = open_dir(state, "top/d/e");
	AUTO_FD int twin_fd = open_dir(state, "twin");
	AUTO_FD int fd = open_dir(state, "top/d/e");
	int before = unit_count_fds();

	for (int i = 0; i < 1000; i++) {
		AUTO_FD int parent_fd = TAKE_FD(fd);

		assert_int_equal(mkdirat(parent_fd, "x", 0755), 0);
		if (i % 100 == 0)
			assert_int_equal(mkdirat(parent_fd, "y", 0755), 0);
		fd = openat(parent_fd, "x", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	walk.context = &walk;
	assert_int_equal(walk_tree(&walk, top_fd, twin_fd), 0);
	assert_int_equal(unit_count_fds(), before);
}

#define WALK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WALK_TEST(files_come_before_directories),
		WALK_TEST(a_call_that_fails_ends_it),
		WALK_TEST(a_second_tree_goes_along),
		WALK_TEST(links_are_followed_on_request_only),
		WALK_TEST(depth_has_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

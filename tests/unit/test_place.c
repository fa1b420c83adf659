#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/buf.h"
#include "volumes/place.h"

struct stage {
	void *dir;
	int root_fd;
	struct place place;
};

static int set_up(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));

	*state = stage;
	if (!stage || unit_make_dir(&stage->dir) || mkdir(unit_path(&stage->dir, "root"), 0755) ||
		mkdir(unit_path(&stage->dir, "root/a"), 0755) ||
		mkdir(unit_path(&stage->dir, "outside"), 0755))
		return -1;
	stage->root_fd = open(unit_path(&stage->dir, "root"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return place_init(&stage->place, stage->root_fd, "");
}

static int tear_down(void **state)
{
	struct stage *stage = *state;
	int r;

	place_done(&stage->place);
	auto_fd(&stage->root_fd);
	r = unit_remove_dir(&stage->dir);
	free(stage);
	return r;
}

static int enter(struct stage *stage, const char *path, bool make_missing)
{
	return place_enter(&stage->place, path, strlen(path), make_missing);
}

static void assert_leads_to(struct stage *stage, const char *path, const char *real)
{
	int fd = enter(stage, path, false);
	struct stat here, there;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &here), 0);
	assert_int_equal(stat(unit_path(&stage->dir, real), &there), 0);
	assert_int_equal(here.st_ino, there.st_ino);
}

static void directories_are_found_and_made(void **state)
{
	struct stage *stage = *state;

	assert_leads_to(stage, "", "root");
	assert_leads_to(stage, "a", "root/a");
	assert_int_equal(enter(stage, "a/b/c", false), -ENOENT);
	assert_true(enter(stage, "a/b/c", true) >= 0);
	assert_leads_to(stage, "a/b", "root/a/b");
	assert_leads_to(stage, "a/b/c", "root/a/b/c");
	assert_true(enter(stage, "ab", true) >= 0);
	assert_leads_to(stage, "ab", "root/ab");
	assert_leads_to(stage, "a", "root/a");
	unit_write_file(unit_path(&stage->dir, "root/file"), "", 0);
	assert_int_equal(enter(stage, "file", false), -ENOTDIR);
	assert_int_equal(enter(stage, "file/x", true), -ENOTDIR);
	assert_leads_to(stage, "a", "root/a");
}

static void links_stay_inside(void **state)
{
	struct stage *stage = *state;

	assert_int_equal(mkdir(unit_path(&stage->dir, "root/a/b"), 0755), 0);
	assert_int_equal(symlink("a", unit_path(&stage->dir, "root/link")), 0);
	assert_int_equal(symlink("/a", unit_path(&stage->dir, "root/a/absolute")), 0);
	assert_int_equal(symlink("../../../outside", unit_path(&stage->dir, "root/a/up")), 0);
	assert_int_equal(symlink("/", unit_path(&stage->dir, "root/a/b/top")), 0);
	assert_leads_to(stage, "link", "root/a");
	assert_leads_to(stage, "link/b", "root/a/b");
	assert_leads_to(stage, "a/absolute/b", "root/a/b");
	assert_leads_to(stage, "a/b/top", "root");
	assert_leads_to(stage, "a/b/top/link/b/top/a", "root/a");
	assert_int_equal(enter(stage, "a/up", false), -ENOENT);
	assert_true(enter(stage, "a/up", true) < 0);
}

static void a_base_is_where_names_begin_and_not_what_links_mean(void **state)
{
	struct stage *stage = *state;

	assert_int_equal(symlink("/", unit_path(&stage->dir, "root/a/top")), 0);
	place_done(&stage->place);
	assert_int_equal(place_init(&stage->place, stage->root_fd, "a"), 0);
	assert_leads_to(stage, "", "root/a");
	assert_leads_to(stage, "top", "root");
	assert_leads_to(stage, "top/a", "root/a");
	place_done(&stage->place);
	assert_int_equal(place_init(&stage->place, stage->root_fd, "missing"), -ENOENT);
}

static void ways_may_be_longer_than_paths(void **state)
{
	struct stage *stage = *state;
	AUTO_BUF struct buf path;
	int before, i;
	struct stat st;

	buf_init(&path, 1 << 20);
	for (i = 0; i < 600; i++)
		buf_addf(&path, "%s%0100d", i ? "/" : "", i);
	assert_true(place_enter(&stage->place, path.data, path.len, true) >= 0);
	before = unit_count_fds();
	for (size_t n = path.len; n > 101; n -= 101)
		assert_int_equal(fstat(place_enter(&stage->place, path.data, n, false), &st), 0);
	assert_true(place_enter(&stage->place, path.data, path.len, false) >= 0);
	assert_true(unit_count_fds() <= before);
	place_reset(&stage->place);
	assert_true(unit_count_fds() <= before - 200);
	for (size_t n = path.len; n > 101; n -= 101) {
		int fd = place_enter(&stage->place, path.data, n - 101, false);

		path.data[n] = '\0';
		assert_int_equal(unlinkat(fd, path.data + n - 100, AT_REMOVEDIR), 0);
	}
}

static void what_is_gone_is_not_remembered(void **state)
{
	struct stage *stage = *state;

	assert_leads_to(stage, "a", "root/a");
	assert_int_equal(rmdir(unit_path(&stage->dir, "root/a")), 0);
	assert_int_equal(symlink("/", unit_path(&stage->dir, "root/a")), 0);
	place_reset(&stage->place);
	assert_leads_to(stage, "a", "root");
}

#define STAGE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAGE_TEST(directories_are_found_and_made),
		STAGE_TEST(links_stay_inside),
		STAGE_TEST(a_base_is_where_names_begin_and_not_what_links_mean),
		STAGE_TEST(ways_may_be_longer_than_paths),
		STAGE_TEST(what_is_gone_is_not_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

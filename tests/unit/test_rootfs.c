/* /bin/true and /bin/false play the program that unpacks. */
#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "rootfs.h"

struct stage {
	void *dir;
	struct rootfs_config config;
	struct strv allow_raw;
	char *images, *dead;
};

static char *below(struct stage *stage, const char *name)
{
	return strdup(unit_path(&stage->dir, name));
}

static int set_up(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));

	*state = stage;
	if (!stage || unit_make_dir(&stage->dir))
		return -1;
	stage->images = below(stage, "images");
	stage->dead = below(stage, "dead");
	stage->config = (struct rootfs_config){ .images_dir = stage->images,
		.dead_dir = stage->dead,
		.allow_raw = &stage->allow_raw,
		.self_exe_fd = -1 };
	pthread_mutex_init(&stage->config.unpack_lock, NULL);
	return mkdir(stage->images, 0755) || mkdir(stage->dead, 0755) ||
		mkdir(unit_path(&stage->dir, "root"), 0755) ||
		mkdir(unit_path(&stage->dir, "root/sub"), 0755) ||
		mkdir(unit_path(&stage->dir, "rooty"), 0755) ||
		symlink("rooty", unit_path(&stage->dir, "link")) ||
		symlink("../rooty", unit_path(&stage->dir, "root/out"));
}

static int tear_down(void **state)
{
	struct stage *stage = *state;
	int r = unit_remove_dir(&stage->dir);

	auto_fd(&stage->config.self_exe_fd);
	pthread_mutex_destroy(&stage->config.unpack_lock);
	strv_done(&stage->allow_raw);
	free(stage->images);
	free(stage->dead);
	free(stage);
	return r;
}

static int resolve(struct stage *stage, const char *prefix, const char *name, struct rootfs *ret,
	struct err *err)
{
	AUTO_FREE char *uri = NULL;

	*err = (struct err){ 0 };
	assert_true(asprintf(&uri, "%s%s", prefix, unit_path(&stage->dir, name)) > 0);
	return rootfs_resolve(&stage->config, uri, ret, err);
}

static int open_program(const char *path)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fcntl(fd, F_DUPFD_CLOEXEC, 10); /* what low numbers do is test_spawn.c's matter */
}

static int n_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void a_directory_is_copied_on_write_under_its_true_name(void **state)
{
	struct stage *stage = *state;
	AUTO_FREE char *want = below(stage, "rooty");
	struct rootfs rootfs;
	struct err err;

	assert_int_equal(resolve(stage, "", "link", &rootfs, &err), 0);
	assert_string_equal(rootfs.lower, want);
	assert_null(rootfs.raw);
	rootfs_done(&rootfs);
	assert_int_equal(resolve(stage, "", "root/../rooty/.", &rootfs, &err), 0);
	assert_string_equal(rootfs.lower, want);
	rootfs_done(&rootfs);
	rootfs_done(&rootfs);
}

static void what_is_missing_or_no_root_is_refused_by_its_name(void **state)
{
	struct stage *stage = *state;
	struct rootfs rootfs;
	struct err err;

	assert_int_equal(resolve(stage, "", "missing", &rootfs, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "missing"));
	assert_int_equal(mkfifo(unit_path(&stage->dir, "fifo"), 0644), 0);
	assert_true(resolve(stage, "", "fifo", &rootfs, &err) < 0);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_true(rootfs_resolve(&stage->config, "relative/path", &rootfs, &err) < 0);
	assert_true(rootfs_resolve(&stage->config, "/dev/null", &rootfs, &err) < 0);
	assert_null(rootfs.lower);
	assert_null(rootfs.raw);
}

static void images_by_uri_are_not_built_yet(void **state)
{
	static const char *const uris[] = { "docker:///busybox", "oci:///x", "http://x/y",
		"RAW:///x" };
	struct stage *stage = *state;
	struct rootfs rootfs;

	for (size_t i = 0; i < N_ELEMENTS(uris); i++) {
		struct err err = { 0 };

		assert_true(rootfs_resolve(&stage->config, uris[i], &rootfs, &err) < 0);
		assert_int_equal(err.kind, ERR_UNSUPPORTED);
		assert_non_null(strstr(err.msg, uris[i]));
	}
}

static void raw_roots_need_a_permitted_parent(void **state)
{
	struct stage *stage = *state;
	AUTO_FREE char *allowed = below(stage, "root/");
	struct rootfs rootfs;
	struct err err;

	assert_true(resolve(stage, "raw://", "root/sub", &rootfs, &err) < 0);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_non_null(strstr(err.msg, "--allow-raw"));
	strv_add(&stage->allow_raw, "/nowhere");
	strv_add(&stage->allow_raw, allowed);
	assert_int_equal(resolve(stage, "raw://", "root/sub", &rootfs, &err), 0);
	assert_null(rootfs.lower);
	assert_non_null(strstr(rootfs.raw, "/root/sub"));
	rootfs_done(&rootfs);
	assert_int_equal(resolve(stage, "raw://", "root", &rootfs, &err), 0);
	rootfs_done(&rootfs);
	/* neither by a longer name, nor by dots, nor by a link */
	assert_true(resolve(stage, "raw://", "rooty", &rootfs, &err) < 0);
	assert_true(resolve(stage, "raw://", "root/../rooty", &rootfs, &err) < 0);
	assert_true(resolve(stage, "raw://", "root/out", &rootfs, &err) < 0);
	assert_true(resolve(stage, "raw://", "root/missing", &rootfs, &err) < 0);
	assert_true(rootfs_resolve(&stage->config, "raw://", &rootfs, &err) < 0);
	assert_null(rootfs.raw);
}

static void with_the_root_permitted_every_directory_is(void **state)
{
	struct stage *stage = *state;
	struct rootfs rootfs;
	struct err err;

	strv_add(&stage->allow_raw, "/");
	assert_int_equal(resolve(stage, "raw://", "rooty", &rootfs, &err), 0);
	rootfs_done(&rootfs);
}

static void an_archive_is_unpacked_once(void **state)
{
	struct stage *stage = *state;
	struct rootfs first, again;
	struct err err;

	stage->config.self_exe_fd = open_program("/bin/true");
	unit_write_file(unit_path(&stage->dir, "a.tar"), "x", 1);
	if (resolve(stage, "", "a.tar", &first, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(n_entries(stage->images), 1);
	assert_int_equal(resolve(stage, "", "a.tar", &again, &err), 0);
	assert_string_equal(again.lower, first.lower);
	assert_int_equal(n_entries(stage->images), 1);
	rootfs_done(&again);
	unit_write_file(unit_path(&stage->dir, "a.tar"), "longer", 6);
	assert_int_equal(resolve(stage, "", "a.tar", &again, &err), 0);
	assert_string_not_equal(again.lower, first.lower);
	rootfs_done(&again);
	rootfs_done(&first);
}

static void an_archive_that_cannot_be_unpacked_leaves_nothing_behind(void **state)
{
	struct stage *stage = *state;
	struct rootfs rootfs;
	struct err err;

	stage->config.self_exe_fd = open_program("/bin/false");
	unit_write_file(unit_path(&stage->dir, "a.tar"), "x", 1);
	assert_true(resolve(stage, "", "a.tar", &rootfs, &err) < 0);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_non_null(strstr(err.msg, "a.tar"));
	assert_int_equal(n_entries(stage->images), 0);
	assert_int_equal(n_entries(stage->dead), 1);
	assert_null(rootfs.lower);
}

#define STAGE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAGE_TEST(a_directory_is_copied_on_write_under_its_true_name),
		STAGE_TEST(what_is_missing_or_no_root_is_refused_by_its_name),
		STAGE_TEST(images_by_uri_are_not_built_yet),
		STAGE_TEST(raw_roots_need_a_permitted_parent),
		STAGE_TEST(with_the_root_permitted_every_directory_is),
		STAGE_TEST(an_archive_is_unpacked_once),
		STAGE_TEST(an_archive_that_cannot_be_unpacked_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

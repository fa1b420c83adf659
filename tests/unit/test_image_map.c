#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "image_map.h"

static int set_up(void **state)
{
	return unit_make_dir(state);
}

static int tear_down(void **state)
{
	return unit_remove_dir(state);
}

static const char *write_file(void **state, const char *text)
{
	const char *path = unit_path(state, "map");
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
	return path;
}

static void lines_become_entries(void **state)
{
	AUTO(image_map_done) struct image_map map = { 0 };
	const struct image_entry *entry;
	struct err err;
	const char *tag;

	assert_int_equal(image_map_read(write_file(state,
						"# a remark\n\n"
						"docker:///a\t/path a\n"
						"docker:///a#tag\t/tagged\t/env\n"
						"b\t/b\t\n"
						"c\t/no newline"),
				 &map, &err),
		0);
	assert_int_equal(map.n_entries, 4);
	entry = image_map_find(&map, "docker:///a", &tag);
	assert_string_equal(entry->path, "/path a");
	assert_null(entry->env_file);
	assert_null(tag);
	entry = image_map_find(&map, "docker:///a#tag", &tag);
	assert_string_equal(entry->path, "/tagged");
	assert_string_equal(entry->env_file, "/env");
	assert_null(tag);
	entry = image_map_find(&map, "docker:///a#other", &tag);
	assert_string_equal(entry->path, "/path a");
	assert_string_equal(tag, "other");
	assert_null(image_map_find(&map, "b", &tag)->env_file);
	assert_string_equal(image_map_find(&map, "c", &tag)->path, "/no newline");
	assert_null(image_map_find(&map, "docker:///", &tag));
	assert_null(image_map_find(&map, "#", &tag));
	assert_null(image_map_find(&map, "", &tag));
}

static void what_means_nothing_names_its_line(void **state)
{
	static const char *const texts[] = { "# x\na", "# x\na\t", "# x\n\t/a", "# x\na\tb",
		"# x\na\t/b\tc", "# x\na\t/b\t/c\t/d", "a\t/b\na\t/c" };
	struct image_map map = { 0 };
	struct err err;

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		assert_int_equal(image_map_read(write_file(state, texts[i]), &map, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "line 2: "));
		assert_null(map.entries);
	}
	assert_int_equal(image_map_read(unit_path(state, "missing"), &map, &err), -ENOENT);
}

static void an_environment_is_assignments(void **state)
{
	AUTO_STRV struct strv env = { 0 };
	AUTO_STRV struct strv none = { 0 };
	struct err err;

	assert_int_equal(image_env_read(write_file(state, "A=1\n\nB=x=y\nC="), &env, &err), 0);
	assert_int_equal(env.n_items, 3);
	assert_string_equal(env.items[1], "B=x=y");
	assert_string_equal(env.items[2], "C=");
	assert_int_equal(image_env_read(write_file(state, "A=1\nwords\n"), &none, &err), -EINVAL);
	assert_int_equal(image_env_read(unit_path(state, "missing"), &none, &err), -ENOENT);
}

#define MAP_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MAP_TEST(lines_become_entries),
		MAP_TEST(what_means_nothing_names_its_line),
		MAP_TEST(an_environment_is_assignments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

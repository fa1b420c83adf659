#include "unit.h"

#include "volumes/links.h"

static const char *meet(struct links *links, dev_t dev, ino_t ino, const char *path)
{
	struct stat st = { .st_dev = dev, .st_ino = ino };
	const char *first = "unset";

	assert_int_equal(links_meet(links, &st, path, &first), 0);
	return first;
}

static void the_first_name_is_remembered(void **state UNUSED)
{
	struct links links;

	links_init(&links);
	assert_null(meet(&links, 1, 1, "a"));
	assert_null(meet(&links, 2, 1, "b"));
	assert_null(meet(&links, 1, 2, ""));
	assert_string_equal(meet(&links, 1, 1, "c"), "a");
	assert_string_equal(meet(&links, 1, 1, "d"), "a");
	assert_string_equal(meet(&links, 2, 1, "e"), "b");
	assert_string_equal(meet(&links, 1, 2, "f"), "");
	links_done(&links);
	links_done(&links);
}

static void a_forgotten_name_makes_room_for_the_next(void **state UNUSED)
{
	struct stat st = { .st_dev = 1, .st_ino = 1 };
	struct links links;

	links_init(&links);
	links_forget(&links, &st);
	assert_null(meet(&links, 1, 1, "a"));
	links_forget(&links, &st);
	assert_null(meet(&links, 1, 1, "b"));
	assert_string_equal(meet(&links, 1, 1, "c"), "b");
	links_done(&links);
}

static void many_are_kept_apart(void **state UNUSED)
{
	struct links links;
	char path[32];

	links_init(&links);
	for (int i = 0; i < 10000; i++) {
		snprintf(path, sizeof(path), "file%d", i);
		assert_null(meet(&links, i % 3, i * 1024, path));
	}
	for (int i = 0; i < 10000; i++) {
		snprintf(path, sizeof(path), "file%d", i);
		assert_string_equal(meet(&links, i % 3, i * 1024, "x"), path);
	}
	links_done(&links);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_name_is_remembered),
		cmocka_unit_test(a_forgotten_name_makes_room_for_the_next),
		cmocka_unit_test(many_are_kept_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

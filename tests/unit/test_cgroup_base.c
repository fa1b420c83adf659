/* Which group is chosen, on trees of plain files that look like cgroup v2. What only the kernel can
 * do (refuse, move processes) is in tests/api/test_delegation.py. */
#include "unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/cgroup_base.h"

#define ALL "cpuset cpu io memory hugetlb pids rdma misc\n"

static void add_group(
	void **state, const char *name, const char *controllers, const char *processes)
{
	char path[256];

	mkdir(unit_path(state, name), 0755);
	snprintf(path, sizeof(path), "%s/cgroup.controllers", name);
	unit_write_file(unit_path(state, path), controllers, strlen(controllers));
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", name);
	unit_write_file(unit_path(state, path), "", 0);
	snprintf(path, sizeof(path), "%s/cgroup.procs", name);
	unit_write_file(unit_path(state, path), processes, strlen(processes));
	snprintf(path, sizeof(path), "%s/cgroup.type", name);
	unit_write_file(unit_path(state, path), "domain\n", 7);
}

/* The mount itself: the root of the machine, with processes and without a type. */
static void add_root(void **state, const char *controllers)
{
	add_group(state, "m", controllers, "1\n2\n3\n");
	unlink(unit_path(state, "m/cgroup.type"));
}

static void assert_file(void **state, const char *name, const char *expected)
{
	AUTO_FD int fd = open(unit_path(state, name), O_RDONLY | O_CLOEXEC);
	char text[256];
	ssize_t n = read(fd, text, sizeof(text) - 1);

	assert_true(n >= 0);
	text[n] = '\0';
	assert_string_equal(text, expected);
}

static struct cgroup_base find(void **state, const char *own, const char *wanted, int expected)
{
	struct cgroup_base base;
	char mount[PATH_MAX];
	struct err err = { 0 };
	int r;

	snprintf(mount, sizeof(mount), "%s", unit_path(state, "m"));
	r = cgroup_base_find(&base, mount, own, wanted, &err);
	assert_int_equal(r, expected);
	if (r < 0)
		assert_non_null(strstr(err.msg, "--cgroup-parent"));
	return base;
}

static void assert_base(void **state, const char *own, const char *wanted, const char *expected)
{
	struct cgroup_base base = find(state, own, wanted, 0);

	assert_string_equal(base.path, unit_path(state, expected));
	assert_int_equal(base.is_chosen, wanted != NULL);
	free(base.path);
}

static void the_root_of_the_machine_serves(void **state)
{
	add_root(state, ALL);
	assert_base(state, "/", NULL, "m");
	assert_file(state, "m/cgroup.subtree_control",
		"+pidsry"); /* +memory, +io, +cpu, +pids over one another */
}

static void an_empty_group_of_its_own_serves(void **state)
{
	add_root(state, ALL);
	add_group(state, "m/own", ALL, "");
	assert_base(state, "/own", NULL, "m/own");
	assert_file(state, "m/cgroup.subtree_control", "");
}

static void a_group_with_strangers_is_left_for_the_root(void **state)
{
	struct cgroup_base base;

	add_root(state, ALL);
	add_group(state, "m/own", ALL, "9999999\n9999998\n");
	base = find(state, "/own", NULL, 0);
	assert_string_equal(base.path, unit_path(state, "m"));
	assert_non_null(strstr(base.reason, "/m/own: other processes are in it"));
	assert_file(state, "m/own/cgroup.subtree_control", "");
	free(base.path);
}

/* More than fit into a small buffer: strangers they are. */
static void a_group_with_many_strangers_is_left(void **state)
{
	char many[4096] = { 0 };

	for (int i = 0; i < 500; i++)
		memcpy(many + 8 * i, "9999999\n", 8);
	add_root(state, ALL);
	add_group(state, "m/own", ALL, many);
	assert_base(state, "/own", NULL, "m");
	assert_file(state, "m/own/cgroup.subtree_control", "");
}

static void a_hybrid_host_is_not_touched(void **state)
{
	add_root(state, "hugetlb\n");
	add_group(state, "m/own", "hugetlb\n", "9999999\n");
	assert_base(state, "/own", NULL, "m/own");
	assert_file(state, "m/cgroup.subtree_control", "");
	assert_file(state, "m/own/cgroup.subtree_control", "");
}

static void nowhere_to_hand_down_is_no_failure(void **state)
{
	struct cgroup_base base;

	add_group(state, "m", ALL, "1\n"); /* the root of a namespace: it has a type */
	add_group(state, "m/own", ALL, "9999999\n");
	base = find(state, "/own", NULL, 0);
	assert_string_equal(base.path, unit_path(state, "m/own"));
	assert_non_null(strstr(base.reason, "other processes"));
	free(base.path);
}

static void a_leaf_of_before_leads_to_the_group_above(void **state)
{
	add_root(state, ALL);
	add_group(state, "m/own", ALL, "");
	add_group(state, "m/own/server", "", "9999999\n");
	unit_write_file(unit_path(state, "m/own/cgroup.subtree_control"), "cpu memory\n", 11);
	assert_base(state, "/own/server", NULL, "m/own");
}

static void a_leaf_that_systemd_has_made_leads_to_the_unit(void **state)
{
	add_root(state, ALL);
	add_group(state, "m/unit", ALL, "");
	add_group(state, "m/unit/server", "", "9999999\n");
	if (setxattr(unit_path(state, "m/unit"), "user.delegate", "1", 1, 0) < 0 &&
		setxattr(unit_path(state, "m/unit"), "trusted.delegate", "1", 1, 0) < 0)
		skip(); /* a tmpfs of old, and not root */
	assert_base(state, "/unit/server", NULL, "m/unit");
}

static void a_group_that_is_only_named_like_the_leaf_is_one(void **state)
{
	add_root(state, ALL);
	add_group(state, "m/own", ALL, "");
	add_group(state, "m/own/server", ALL, "");
	assert_base(state, "/own/server", NULL, "m/own/server");
	add_group(state, "m/server", ALL, "");
	assert_base(state, "/server", NULL, "m/server");
}

static void a_parent_that_is_named_is_taken(void **state)
{
	add_root(state, ALL);
	add_group(state, "m/own", ALL, "9999999\n");
	add_group(state, "m/named", ALL, "");
	assert_base(state, "/own", "/named", "m/named");
	assert_base(state, "/own", "named", "m/named");
	assert_base(state, "/own", "/", "m");
	assert_file(state, "m/own/cgroup.subtree_control", "");
}

static void a_parent_that_cannot_serve_is_an_error(void **state)
{
	add_root(state, ALL);
	add_group(state, "m/named", ALL, "9999999\n");
	find(state, "/", "/named", -EBUSY);
	find(state, "/", "/named/below", -EBUSY);
	find(state, "/", "/a/../../b", -EINVAL);
	find(state, "/", "/cgroup.procs", -ENOTDIR);
}

static void controllers_are_named_whole(void **state)
{
	char enabled[CGROUP_CONTROLLERS_SIZE];

	add_group(state, "m", "cpuset iox xmemory pids\n", "");
	assert_int_equal(cgroup_hand_down(unit_path(state, "m"), enabled), 0);
	assert_string_equal(enabled, "pids");
	assert_file(state, "m/cgroup.subtree_control", "+pids");
}

static void what_is_handed_down_already_is_not_written(void **state)
{
	char enabled[CGROUP_CONTROLLERS_SIZE];

	add_group(state, "m", ALL, "");
	unit_write_file(unit_path(state, "m/cgroup.subtree_control"), "cpu io memory pids\n", 19);
	assert_int_equal(cgroup_hand_down(unit_path(state, "m"), enabled), 0);
	assert_string_equal(enabled, "memory io cpu pids");
	assert_file(state, "m/cgroup.subtree_control", "cpu io memory pids\n");
}

static void what_is_no_group_hands_nothing_down(void **state)
{
	char enabled[CGROUP_CONTROLLERS_SIZE] = "x";

	assert_int_equal(cgroup_hand_down(unit_path(state, "none"), enabled), -ENOENT);
	assert_string_equal(enabled, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_make_dir, unit_remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(the_root_of_the_machine_serves),
		TEST(an_empty_group_of_its_own_serves),
		TEST(a_group_with_strangers_is_left_for_the_root),
		TEST(a_group_with_many_strangers_is_left),
		TEST(a_hybrid_host_is_not_touched),
		TEST(nowhere_to_hand_down_is_no_failure),
		TEST(a_leaf_of_before_leads_to_the_group_above),
		TEST(a_leaf_that_systemd_has_made_leads_to_the_unit),
		TEST(a_group_that_is_only_named_like_the_leaf_is_one),
		TEST(a_parent_that_is_named_is_taken),
		TEST(a_parent_that_cannot_serve_is_an_error),
		TEST(controllers_are_named_whole),
		TEST(what_is_handed_down_already_is_not_written),
		TEST(what_is_no_group_hands_nothing_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

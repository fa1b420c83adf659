#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/cgroup_limits.h"

static void shares_become_weights(void **state UNUSED)
{
	static const uint64_t rows[][2] = { { 0, 0 }, { 1, 1 }, { 2, 1 }, { 50, 10 }, { 100, 17 },
		{ 123, 20 }, { 128, 21 }, { 280, 37 }, { 1024, 100 }, { 1028, 101 },
		{ 262143, 10000 }, { 262144, 10000 }, { UINT64_MAX, 10000 } };
	uint64_t last = 0;

	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		assert_int_equal(cgroup_cpu_weight(rows[i][0]), rows[i][1]);
	for (uint64_t shares = 1; shares < 300000; shares++) {
		uint64_t weight = cgroup_cpu_weight(shares);

		assert_true(weight >= last && weight >= 1 && weight <= 10000);
		last = weight;
	}
}

/* A directory with files in place of a hierarchy: what is written can be read back. */
static struct cgroups groups_of(void **state, const char *name, bool is_v2)
{
	struct cgroups groups = { .n_all = 1, .v2 = is_v2 ? 0 : -1 };

	snprintf(groups.all[0].name, sizeof(groups.all[0].name), "%s", is_v2 ? "" : name);
	snprintf(groups.handed_down, sizeof(groups.handed_down), "%s", is_v2 ? name : "");
	groups.all[0].parent = *state;
	groups.all[0].is_v2 = is_v2;
	mkdir(unit_path(state, "c1"), 0755);
	return groups;
}

static void have_file(void **state, const char *name, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "c1/%s", name);
	unit_write_file(unit_path(state, path), text, strlen(text));
}

static void expect_file(void **state, const char *name, const char *text)
{
	AUTO_FREE char *found = NULL;
	char path[64];

	snprintf(path, sizeof(path), "c1/%s", name);
	found = unit_read_file(unit_path(state, path));
	assert_non_null(found);
	assert_string_equal(found, text);
}

static int limit(const struct cgroups *groups, struct cgroup_limits limits, const char **ret_file)
{
	return cgroup_limit(groups, "c1", &limits, ret_file);
}

static void v1_limits_memory_and_swap_alike(void **state)
{
	struct cgroups groups = groups_of(state, "memory", false);
	const char *file;

	have_file(state, "memory.limit_in_bytes", "");
	assert_int_equal(limit(&groups, (struct cgroup_limits){ .memory_bytes = 4096 }, &file), 0);
	expect_file(state, "memory.limit_in_bytes", "4096"); /* no accounting of swap: no file */
	have_file(state, "memory.memsw.limit_in_bytes", "");
	assert_int_equal(
		limit(&groups, (struct cgroup_limits){ .memory_bytes = 8192, .leaves_swap = true },
			&file),
		0);
	expect_file(state, "memory.memsw.limit_in_bytes", "");
	assert_int_equal(limit(&groups, (struct cgroup_limits){ .memory_bytes = 8192 }, &file), 0);
	expect_file(state, "memory.memsw.limit_in_bytes", "8192");
}

static void v2_limits_memory_and_leaves_no_swap(void **state)
{
	struct cgroups groups = groups_of(state, "cpu memory pids", true);
	const char *file;

	have_file(state, "memory.max", "");
	have_file(state, "memory.swap.max", "");
	have_file(state, "memory.current", "8192\n");
	assert_int_equal(limit(&groups, (struct cgroup_limits){ .memory_bytes = 8193 }, &file), 0);
	expect_file(state, "memory.max", "8193");
	expect_file(state, "memory.swap.max", "0");
	assert_int_equal(
		limit(&groups, (struct cgroup_limits){ .memory_bytes = 8192 }, &file), -EBUSY);
	assert_string_equal(file, "memory.max");
	have_file(state, "memory.swap.max", "");
	assert_int_equal(
		limit(&groups, (struct cgroup_limits){ .memory_bytes = 9000, .leaves_swap = true },
			&file),
		0);
	expect_file(state, "memory.swap.max", "");
}

static void the_processor_is_weighed_and_bounded(void **state)
{
	struct cgroups groups = groups_of(state, "cpu,cpuacct", false);
	const char *file;

	have_file(state, "cpu.shares", "");
	have_file(state, "cpu.cfs_period_us", "");
	have_file(state, "cpu.cfs_quota_us", "");
	assert_int_equal(limit(&groups, (struct cgroup_limits){ .cpu_shares = 128 }, &file), 0);
	expect_file(state, "cpu.shares", "128");
	expect_file(state, "cpu.cfs_quota_us", "");
	assert_int_equal(
		limit(&groups, (struct cgroup_limits){ .cpu_shares = 128, .cpu_quota_us = 1280 },
			&file),
		0);
	expect_file(state, "cpu.cfs_period_us", "100000");
	expect_file(state, "cpu.cfs_quota_us", "1280");
	groups = groups_of(state, "cpu", true);
	have_file(state, "cpu.weight", "");
	have_file(state, "cpu.max", "");
	assert_int_equal(
		limit(&groups, (struct cgroup_limits){ .cpu_shares = 123, .cpu_quota_us = 1230 },
			&file),
		0);
	expect_file(state, "cpu.weight", "20");
	expect_file(state, "cpu.max", "1230 100000");
}

static void processes_are_counted(void **state)
{
	struct cgroups groups = groups_of(state, "pids", false);
	const char *file;

	have_file(state, "pids.max", "");
	assert_int_equal(limit(&groups, (struct cgroup_limits){ .n_pids = UINT64_MAX }, &file), 0);
	expect_file(state, "pids.max", "");
	assert_int_equal(limit(&groups, (struct cgroup_limits){ .n_pids = 50 }, &file), 0);
	expect_file(state, "pids.max", "50");
}

static void no_limit_needs_nothing(void **state)
{
	struct cgroups groups = groups_of(state, "devices", false);
	const char *file;

	assert_int_equal(limit(&groups, (struct cgroup_limits){ 0 }, &file), 0);
}

static void what_cannot_be_limited_is_named(void **state)
{
	struct cgroups groups = groups_of(state, "devices", false);
	static const struct {
		struct cgroup_limits limits;
		const char *controller, *file;
	} rows[] = { { { .memory_bytes = 1 }, "memory", "memory.limit_in_bytes" },
		{ { .cpu_shares = 2 }, "cpu", "cpu.shares" },
		{ { .cpu_quota_us = 1000 }, "cpu", "cpu.cfs_period_us" },
		{ { .n_pids = 1 }, "pids", "pids.max" } };

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		const char *file = NULL;

		groups = groups_of(state, "devices", false);
		assert_int_equal(limit(&groups, rows[i].limits, &file), -EOPNOTSUPP);
		assert_string_equal(file, rows[i].controller);
		groups = groups_of(state, rows[i].controller, false);
		assert_int_equal(limit(&groups, rows[i].limits, &file), -ENOENT);
		assert_string_equal(file, rows[i].file);
	}
}

static void controllers_are_found_by_whole_names(void **state)
{
	struct cgroups groups = groups_of(state, "cpuacct,cpuset", false);

	assert_null(cgroup_find(&groups, "cpu"));
	assert_ptr_equal(cgroup_find(&groups, "cpuset"), &groups.all[0]);
	assert_ptr_equal(cgroup_find(&groups, "cpuacct"), &groups.all[0]);
	groups = groups_of(state, "cpu io memory", true);
	assert_ptr_equal(cgroup_find(&groups, "cpuacct"), &groups.all[0]);
	assert_ptr_equal(cgroup_find(&groups, "blkio"), &groups.all[0]);
	assert_null(cgroup_find(&groups, "pids"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_become_weights),
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, unit_make_dir, unit_remove_dir)
		WITH_DIR(v1_limits_memory_and_swap_alike),
		WITH_DIR(v2_limits_memory_and_leaves_no_swap),
		WITH_DIR(the_processor_is_weighed_and_bounded),
		WITH_DIR(processes_are_counted),
		WITH_DIR(no_limit_needs_nothing),
		WITH_DIR(what_cannot_be_limited_is_named),
		WITH_DIR(controllers_are_found_by_whole_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

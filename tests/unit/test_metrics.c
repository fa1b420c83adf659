#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/cgroup.h"
#include "metrics.h"

static void file(void **state, const char *name, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "c1/%s", name);
	unit_write_file(unit_path(state, path), text, strlen(text));
}

static struct cgroups groups_of(void **state, const char *v1, const char *v2)
{
	struct cgroups groups = { .n_all = 1, .v2 = v1 ? -1 : 0 };

	groups.all[0].parent = *state;
	groups.all[0].is_v2 = !v1;
	snprintf(groups.all[0].name, sizeof(groups.all[0].name), "%s", v1 ? v1 : "");
	snprintf(groups.handed_down, sizeof(groups.handed_down), "%s", v2 ? v2 : "");
	mkdir(unit_path(state, "c1"), 0755);
	return groups;
}

static void v1_files_are_read(void **state)
{
	struct cgroups groups = groups_of(state, "cpu,cpuacct,memory,pids", NULL);
	struct metrics m;

	file(state, "memory.stat",
		"cache 1\nrss 2\nrss_huge 77\ntotal_cache 1000\ntotal_rss 500\ntotal_swap 30\n"
		"total_inactive_file 200\nhierarchical_memory_limit 9223372036854771712\n"
		"nonsense\nactive_file x\n");
	file(state, "cpuacct.usage", "123456789\n");
	file(state, "cpuacct.stat", "user 7\nsystem 3\n");
	file(state, "pids.current", "4\n");
	file(state, "pids.max", "64\n");
	assert_int_equal(metrics_of_group(&groups, "c1", &m), 0);
	assert_int_equal(m.memory[MEMORY_cache], 1);
	assert_int_equal(m.memory[MEMORY_rss], 2);
	assert_int_equal(m.memory[MEMORY_active_file], 0);
	assert_int_equal(m.memory[MEMORY_hierarchical_memory_limit], 9223372036854771712);
	assert_int_equal(m.memory[MEMORY_TotalUsageTowardLimit], 1330);
	assert_int_equal(m.cpu_ns, 123456789);
	assert_int_equal(m.user_ns, 70000000);
	assert_int_equal(m.system_ns, 30000000);
	assert_int_equal(m.n_pids, 4);
	assert_int_equal(m.max_pids, 64);
}

static void v2_files_are_read(void **state)
{
	struct cgroups groups = groups_of(state, NULL, "cpu memory pids");
	struct metrics m;

	file(state, "memory.stat", "anon 100\nfile 50\nswapcached 5\ninactive_file 40\n");
	file(state, "memory.max", "134217728\n");
	file(state, "memory.swap.current", "9\n");
	file(state, "cpu.stat", "usage_usec 12\nuser_usec 8\nsystem_usec 4\nnr_periods 0\n");
	file(state, "pids.current", "4\n");
	file(state, "pids.max", "max\n");
	assert_int_equal(metrics_of_group(&groups, "c1", &m), 0);
	assert_int_equal(m.memory[MEMORY_anon], 100);
	assert_int_equal(m.memory[MEMORY_hierarchical_memory_limit], 134217728);
	assert_int_equal(m.memory[MEMORY_swap], 9);
	assert_int_equal(m.memory[MEMORY_TotalUsageTowardLimit], 115);
	assert_int_equal(m.cpu_ns, 12000);
	assert_int_equal(m.user_ns, 8000);
	assert_int_equal(m.system_ns, 4000);
	assert_int_equal(m.max_pids, 0);
}

static void what_is_not_counted_is_zero_and_what_is_gone_an_error(void **state)
{
	struct cgroups groups = groups_of(state, "devices", NULL);
	struct metrics m;

	assert_int_equal(metrics_of_group(&groups, "c1", &m), 0);
	assert_memory_equal(&m, &(struct metrics){ 0 }, sizeof(m));
	groups = groups_of(state, "memory", NULL);
	assert_int_equal(metrics_of_group(&groups, "c1", &m), -ENOENT);
	groups = groups_of(state, "cpuacct", NULL);
	file(state, "cpuacct.usage", "many\n");
	assert_int_equal(metrics_of_group(&groups, "c1", &m), -EINVAL);
	file(state, "cpuacct.usage", "1\n");
	assert_int_equal(metrics_of_group(&groups, "c1", &m), -ENOENT);
	groups = groups_of(state, "pids", NULL);
	assert_int_equal(metrics_of_group(&groups, "c1", &m), -ENOENT);
}

static void usage_toward_the_limit_is_never_below_zero(void **state UNUSED)
{
	struct metrics m = { 0 };

	m.memory[MEMORY_total_cache] = 10;
	m.memory[MEMORY_total_inactive_file] = 11;
	m.memory[MEMORY_file] = 3;
	m.memory[MEMORY_inactive_file] = 4;
	assert_int_equal(metrics_usage_toward_limit(&m, false), 0);
	assert_int_equal(metrics_usage_toward_limit(&m, true), 0);
}

static void a_share_stands_for_a_part_of_the_machine(void **state UNUSED)
{
	double per_share = metrics_entitlement_per_share(2, UINT64_C(24000) << 20);

	assert_true(per_share > 0.00833 && per_share < 0.00834);
	assert_true(metrics_entitlement_per_share(2, 0) == 0);
}

int main(void)
{
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, unit_make_dir, unit_remove_dir)
	const struct CMUnitTest tests[] = {
		WITH_DIR(v1_files_are_read),
		WITH_DIR(v2_files_are_read),
		WITH_DIR(what_is_not_counted_is_zero_and_what_is_gone_an_error),
		cmocka_unit_test(usage_toward_the_limit_is_never_below_zero),
		cmocka_unit_test(a_share_stands_for_a_part_of_the_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "linux/cgroup.h"
#include "resource_limits.h"
#include "spec.h"
#include "store.h"

static const struct cgroups v1 = {
	.all = { { .name = "cpu" }, { .name = "memory" }, { .name = "pids" } },
	.n_all = 3,
	.v2 = -1,
};
static const struct cgroups v2 = {
	.all = { { .is_v2 = true } },
	.n_all = 1,
	.handed_down = "cpu memory pids",
};
static const struct cgroups bare = { .all = { { .name = "devices" } }, .n_all = 1, .v2 = -1 };

static void expect_refusal(
	const struct cgroups *groups, struct limits limits, enum err_kind kind, const char *field)
{
	struct err err = { 0 };

	if (limits_check(&limits, groups, &err) >= 0 || err.kind != kind || !strstr(err.msg, field))
		fail_msg("%s: kind %d (%s)", field, (int)err.kind, err.msg);
}

static void shares_have_a_range_on_v1(void **state UNUSED)
{
	struct err err;

	expect_refusal(&v1, (struct limits){ .cpu_shares = 1 }, ERR_INVALID,
		"limits.cpu_limits.limit_in_shares: minimum allowed cpu-shares is 2");
	expect_refusal(&v1, (struct limits){ .cpu_shares = 500, .cpu_weight = 1 }, ERR_INVALID,
		"limits.cpu_limits.weight: minimum allowed cpu-shares is 2");
	expect_refusal(&v1, (struct limits){ .cpu_shares = 262145 }, ERR_INVALID,
		"maximum allowed cpu-shares is 262144");
	assert_int_equal(limits_check(&(struct limits){ .cpu_shares = 2 }, &v1, &err), 0);
	assert_int_equal(
		limits_check(&(struct limits){ .cpu_shares = 1, .cpu_weight = 9 }, &v1, &err), 0);
	assert_int_equal(limits_check(&(struct limits){ .cpu_shares = 1 }, &v2, &err), 0);
	assert_int_equal(limits_check(&(struct limits){ .cpu_shares = UINT64_MAX }, &v2, &err), 0);
}

static void a_host_without_the_controller_says_so(void **state UNUSED)
{
	struct err err;

	expect_refusal(&bare, (struct limits){ .memory_bytes = 1 }, ERR_UNSUPPORTED,
		"limits.memory_limits.limit_in_bytes: this host has no memory controller");
	expect_refusal(&bare, (struct limits){ .cpu_weight = 5 }, ERR_UNSUPPORTED,
		"limits.cpu_limits.weight: this host has no cpu controller");
	expect_refusal(&bare, (struct limits){ .n_pids = 5 }, ERR_UNSUPPORTED,
		"limits.pid_limits.max: this host has no pids controller");
	assert_int_equal(limits_check(&(struct limits){ .rate_bytes = 5 }, &bare, &err), 0);
}

static int take(const struct detail *detail, void *arg)
{
	assert_string_equal(detail->id, "i1");
	limits_take(arg, detail->key, detail->number);
	return 0;
}

static void the_record_keeps_what_is_set(void **state)
{
	const struct limits some = { .memory_bytes = UINT64_MAX,
		.cpu_weight = 1,
		.n_pids = 2,
		.disk_scope = 1,
		.burst_bytes = 3 };
	const struct strv env = { 0 };
	struct record record = {
		.id = "i1", .handle = "h1", .nonce = "n", .boot_id = "b", .limits = &some
	};
	struct limits found = { 0 };
	struct db *db;

	assert_int_equal(store_open(unit_path(state, "state.db"), &db, NULL), 0);
	assert_int_equal(store_add(db, &record, &env, NULL, 0, NULL), 0);
	record.id = record.handle = "i2";
	record.limits = NULL;
	assert_int_equal(store_add(db, &record, &env, NULL, 0, NULL), 0);
	db_close(db);
	assert_int_equal(store_open(unit_path(state, "state.db"), &db, NULL), 0);
	assert_int_equal(store_each_detail(db, STORE_LIMITS, take, &found, NULL), 0);
	assert_memory_equal(&found, &some, sizeof(some));
	limits_take(&found, "of a later version", 1);
	assert_memory_equal(&found, &some, sizeof(some));
	assert_int_equal(store_remove(db, "i1", NULL), 0);
	found = (struct limits){ 0 };
	assert_int_equal(store_each_detail(db, STORE_LIMITS, take, &found, NULL), 0);
	assert_memory_equal(&found, &(struct limits){ 0 }, sizeof(found));
	db_close(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_have_a_range_on_v1),
		cmocka_unit_test(a_host_without_the_controller_says_so),
		cmocka_unit_test_setup_teardown(
			the_record_keeps_what_is_set, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

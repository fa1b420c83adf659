#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/caps.h"
#include "linux/devices.h"
#include "privilege.h"

static void modes_have_names(void **state UNUSED)
{
	static const struct {
		const char *text;
		enum privileged_mode mode;
	} rows[] = { { "full", PRIVILEGED_FULL }, { "userns", PRIVILEGED_USERNS },
		{ "fuse-only", PRIVILEGED_FUSE_ONLY }, { "ignore", PRIVILEGED_IGNORE } };
	static const char *const bad[] = { "", "off", "Full", "full ", "fuse" };
	enum privileged_mode mode;

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		assert_int_equal(privileged_mode_parse(rows[i].text, &mode), 0);
		assert_int_equal(mode, rows[i].mode);
	}
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_int_equal(privileged_mode_parse(bad[i], &mode), -EINVAL);
}

static void a_request_gets_what_the_mode_grants_and_nobody_else_anything(void **state UNUSED)
{
	static const enum privilege granted[N_PRIVILEGED_MODES] = {
		[PRIVILEGED_FULL] = PRIVILEGE_FULL,
		[PRIVILEGED_USERNS] = PRIVILEGE_USERNS,
		[PRIVILEGED_FUSE_ONLY] = PRIVILEGE_FUSE,
		[PRIVILEGED_IGNORE] = PRIVILEGE_NONE,
	};
	enum privilege privilege;
	struct err err;

	for (enum privileged_mode mode = 0; mode < N_PRIVILEGED_MODES; mode++) {
		assert_int_equal(privilege_decide(mode, false, &privilege, &err), 0);
		assert_int_equal(privilege, PRIVILEGE_NONE);
		if (mode == PRIVILEGED_OFF)
			continue;
		assert_int_equal(privilege_decide(mode, true, &privilege, &err), 0);
		assert_int_equal(privilege, granted[mode]);
	}
	assert_int_equal(privilege_decide(PRIVILEGED_OFF, true, &privilege, &err), -EPERM);
	assert_string_equal(err.msg, "privileged container creation is disabled");
}

static void only_the_hosts_root_is_without_a_user_namespace_or_filter(void **state UNUSED)
{
	for (enum privilege privilege = 0; privilege < N_PRIVILEGES; privilege++) {
		const struct rights *rights = privilege_rights(privilege);
		bool is_full = privilege == PRIVILEGE_FULL;

		assert_int_equal(rights->has_userns, !is_full);
		assert_int_equal(rights->is_of_host, is_full);
		assert_int_equal(rights->filter == NO_FILTER, is_full);
		assert_int_equal(rights->has_fuse, privilege != PRIVILEGE_NONE);
		assert_true((rights->root_caps & rights->user_caps) == rights->user_caps);
	}
	assert_ptr_equal(
		privilege_rights((enum privilege)N_PRIVILEGES), privilege_rights(PRIVILEGE_NONE));
	assert_ptr_equal(privilege_rights((enum privilege) - 1), privilege_rights(PRIVILEGE_NONE));
	assert_true(privilege_rights(PRIVILEGE_NONE)->root_caps == CAPS_DEFAULT);
}

static void devices_are_read_strictly(void **state UNUSED)
{
	static const char *const good[] = { "b 7:* rwm", "c 10:229 r", "c *:1 wm" };
	static const char *const bad[] = { "", "b", "b 7:*", "b 7:* ", "d 7:* rwm", "b  7:* rwm",
		"b 7:* rwmr", "b 7:* x", "b 7 rwm", "b 7:1:2 rwm", "b -1:* rwm", "b 7:* rwm\n",
		"b 12345678:1 r", "b 7:** r", "a *:* m" };
	struct device_rule rule;

	for (size_t i = 0; i < N_ELEMENTS(good); i++)
		assert_int_equal(device_rule_parse(good[i], &rule), 0);
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		if (device_rule_parse(bad[i], &rule) != -EINVAL)
			fail_msg("%s is accepted", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes_have_names),
		cmocka_unit_test(a_request_gets_what_the_mode_grants_and_nobody_else_anything),
		cmocka_unit_test(only_the_hosts_root_is_without_a_user_namespace_or_filter),
		cmocka_unit_test(devices_are_read_strictly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

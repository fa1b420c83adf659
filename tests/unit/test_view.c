#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "volumes/view.h"

static void a_user_is_ids_with_colons(void **state)
{
	struct view_spec spec = { 0 };
	struct err err;

	(void)state;
	assert_int_equal(view_parse("1:2", "0", &spec, &err), 0);
	assert_int_equal(spec.uid, 1);
	assert_int_equal(spec.gid, 2);
	assert_int_equal(spec.n_groups, 0);
	assert_int_equal(view_parse("0:0:4294967294:7", "18446744073709551615", &spec, &err), 0);
	assert_int_equal(spec.n_groups, 2);
	assert_int_equal(spec.groups[0], 4294967294u);
	assert_int_equal(spec.groups[1], 7);
	assert_true(spec.caps == UINT64_MAX);
}

static void what_is_no_user_is_refused(void **state)
{
	static const char *const users[] = { "", "1", "1:", ":1", "1:2:", "a:b", "1:4294967295",
		"4294967295:1", "1:-1", "1:00000000000000000002", "1:2:x" };
	struct view_spec spec;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++) {
		assert_int_equal(view_parse(users[i], "0", &spec, &err), -EINVAL);
		assert_int_equal(err.kind, ERR_INVALID);
	}
	assert_int_equal(view_parse("1:2", NULL, &spec, &err), -EINVAL);
	assert_int_equal(view_parse("1:2", "x", &spec, &err), -EINVAL);
}

static void there_is_an_end_to_groups(void **state)
{
	struct view_spec spec;
	struct buf text;
	struct err err;

	(void)state;
	buf_init(&text, 4096);
	buf_adds(&text, "1:1");
	for (int i = 0; i < VIEW_GROUPS_MAX; i++)
		buf_adds(&text, ":5");
	assert_int_equal(view_parse(buf_str(&text), "0", &spec, &err), 0);
	assert_int_equal(spec.n_groups, VIEW_GROUPS_MAX);
	buf_adds(&text, ":5");
	assert_int_equal(view_parse(buf_str(&text), "0", &spec, &err), -EINVAL);
	buf_done(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_user_is_ids_with_colons),
		cmocka_unit_test(what_is_no_user_is_refused),
		cmocka_unit_test(there_is_an_end_to_groups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

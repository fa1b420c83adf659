#include "unit.h"

#include <errno.h>

#include "base/err.h"

static void setting_an_error_fills_kind_code_and_message(void **state UNUSED)
{
	struct err err = { 0 };

	assert_int_equal(err_set(&err, ERR_BUSY, EBUSY, "volume '%s'", "v1"), -EBUSY);
	assert_int_equal(err.kind, ERR_BUSY);
	assert_int_equal(err.code, EBUSY);
	assert_string_equal(err.msg, "volume 'v1'");
}

static void an_error_never_returns_zero(void **state UNUSED)
{
	struct err err = { 0 };

	assert_int_equal(err_set(&err, ERR_INVALID, 0, "no code"), -EIO);
	assert_int_equal(err.code, EIO);
	assert_int_equal(err_set(&err, ERR_INVALID, -ENOENT, "a negative code"), -EIO);
	assert_int_equal(err_set(NULL, ERR_INVALID, 0, "no code"), -EIO);
	assert_int_equal(err_system(&err, 0, "no code"), -EIO);
}

static void nobody_has_to_listen(void **state UNUSED)
{
	assert_int_equal(err_set(NULL, ERR_INVALID, EINVAL, "%d", 1), -EINVAL);
	assert_int_equal(err_system(NULL, -ENOENT, "open %s", "x"), -ENOENT);
	assert_int_equal(err_context(NULL, -ENOENT, "create %s", "x"), -ENOENT);
}

static void a_long_message_is_cut_and_ends(void **state UNUSED)
{
	struct err err = { 0 };
	char text[2 * sizeof(err.msg)];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	err_set(&err, ERR_INVALID, EINVAL, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void a_system_error_ends_with_the_text_of_its_errno(void **state UNUSED)
{
	struct err err = { 0 };

	assert_int_equal(err_system(&err, -ENOENT, "open %s", "/x"), -ENOENT);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_int_equal(err.code, ENOENT);
	assert_string_equal(err.msg, "open /x: No such file or directory");
}

static void the_text_of_the_errno_survives_a_long_message(void **state UNUSED)
{
	struct err err = { 0 };
	char text[sizeof(err.msg)];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	err_system(&err, -ENOENT, "open %s", text);
	assert_non_null(strstr(err.msg, ": No such file or directory"));
}

static void an_unknown_errno_is_said_to_be_unknown(void **state UNUSED)
{
	struct err err = { 0 };

	assert_int_equal(err_system(&err, -100000, "open"), -100000);
	assert_string_equal(err.msg, "open: unknown error");
}

static void context_goes_in_front_and_changes_nothing_else(void **state UNUSED)
{
	struct err err = { 0 };
	int r = err_set(&err, ERR_NOT_FOUND, ENOENT, "no such image");

	assert_int_equal(err_context(&err, r, "create %s", "c1"), -ENOENT);
	assert_string_equal(err.msg, "create c1: no such image");
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	assert_int_equal(err.code, ENOENT);
	err_context(&err, r, "outer");
	assert_string_equal(err.msg, "outer: create c1: no such image");
}

static void context_on_a_long_message_keeps_both_beginnings(void **state UNUSED)
{
	struct err err = { 0 };
	char text[sizeof(err.msg)];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	err_set(&err, ERR_INVALID, EINVAL, "cause %s", text);
	err_context(&err, -EINVAL, "where %s", text);
	assert_memory_equal(err.msg, "where xxx", 9);
	assert_non_null(strstr(err.msg, ": cause xxx"));
	assert_true(strlen(err.msg) < sizeof(err.msg));
}

static void every_kind_has_an_error_status_and_a_type_that_clients_know(void **state UNUSED)
{
	static const struct {
		int status;
		const char *type;
	} kinds[] = {
#define ERROR_KIND(kind, status, type) [ERR_##kind] = { status, type },
#include "api-spec/errors.def"
#undef ERROR_KIND
	};
	static const char *const known[] = { "", "ContainerNotFoundError", "ProcessNotFoundError",
		"ExecutableNotFoundError", "ServiceUnavailableError", "UnrecoverableError" };

	assert_int_equal(sizeof(kinds) / sizeof(kinds[0]), N_ERR_KINDS);
	for (int i = ERR_NONE + 1; i < N_ERR_KINDS; i++) {
		int n_matches = 0;

		assert_in_range(kinds[i].status, 400, 599);
		for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++)
			n_matches += !strcmp(kinds[i].type, known[k]);
		assert_int_equal(n_matches, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(setting_an_error_fills_kind_code_and_message),
		cmocka_unit_test(an_error_never_returns_zero),
		cmocka_unit_test(nobody_has_to_listen),
		cmocka_unit_test(a_long_message_is_cut_and_ends),
		cmocka_unit_test(a_system_error_ends_with_the_text_of_its_errno),
		cmocka_unit_test(the_text_of_the_errno_survives_a_long_message),
		cmocka_unit_test(an_unknown_errno_is_said_to_be_unknown),
		cmocka_unit_test(context_goes_in_front_and_changes_nothing_else),
		cmocka_unit_test(context_on_a_long_message_keeps_both_beginnings),
		cmocka_unit_test(every_kind_has_an_error_status_and_a_type_that_clients_know),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

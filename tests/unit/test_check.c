/* plan_check and program_check (shim/check.c): the child trusts every offset that passes them. */
#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "shim/protocol.h"

/* ---- plans ------------------------------------------------------------------------------------- */

struct two_ops {
	struct plan_wire head;
	struct op_wire ops[2];
	char strings[8];
};

static struct two_ops good_plan(void)
{
	const uint32_t strings = offsetof(struct two_ops, strings);
	struct two_ops plan = {
		.head = { .total_bytes = sizeof(plan), .n_ops = 2 },
		.ops = { { .code = OP_MKDIR, .a = strings, .b = strings + 3 },
			{ .code = OP_PIVOT, .a = strings + 4, .b = sizeof(plan) - 1 } },
		.strings = "dev\0abc",
	};

	return plan;
}

static void a_sound_plan_passes(void **state UNUSED)
{
	struct two_ops plan = good_plan();
	struct plan_wire empty = { .total_bytes = sizeof(empty) };

	assert_int_equal(plan_check(&plan, sizeof(plan)), 0);
	assert_int_equal(plan_check(&empty, sizeof(empty)), 0);
}

static void a_plan_of_another_length_is_refused(void **state UNUSED)
{
	struct two_ops plan = good_plan();

	for (size_t n = 0; n < sizeof(plan); n++) {
		AUTO_FREE char *exact =
			malloc(n + 1); /* so that a sanitizer sees each byte too far */

		memcpy(exact, &plan, n);
		assert_int_equal(plan_check(exact, n), -EPROTO);
		plan.head.total_bytes = (uint32_t)n;
		memcpy(exact, &plan, n);
		assert_int_equal(plan_check(exact, n), -EPROTO);
		plan.head.total_bytes = sizeof(plan);
	}
	plan.head.total_bytes = 0;
	assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
}

static void more_operations_than_there_are_bytes_are_refused(void **state UNUSED)
{
	static const uint32_t counts[] = { 3, 4, 1000, 1u << 27,
		UINT32_MAX / sizeof(struct op_wire) + 1, UINT32_MAX };
	struct two_ops plan = good_plan();

	for (size_t i = 0; i < N_ELEMENTS(counts); i++) {
		plan.head.n_ops = counts[i];
		assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
	}
}

static void an_unknown_operation_is_refused(void **state UNUSED)
{
	struct two_ops plan = good_plan();

	plan.ops[1].code = N_OPS;
	assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
	plan.ops[1].code = UINT16_MAX;
	assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
}

static void a_string_outside_or_without_an_end_is_refused(void **state UNUSED)
{
	static const uint32_t outside[] = { sizeof(struct two_ops), sizeof(struct two_ops) + 1,
		UINT32_MAX - 1, UINT32_MAX };
	struct two_ops plan;

	for (size_t i = 0; i < N_ELEMENTS(outside); i++) {
		plan = good_plan();
		plan.ops[0].a = outside[i];
		assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
		plan = good_plan();
		plan.ops[1].b = outside[i];
		assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
	}
	plan = good_plan();
	plan.strings[sizeof(plan.strings) - 1] = 'x';
	assert_int_equal(plan_check(&plan, sizeof(plan)), -EPROTO);
}

/* ---- programs ---------------------------------------------------------------------------------- */

struct small_program {
	struct program_wire head;
	uint64_t argv[3], envp[2];
	uint32_t groups[2];
	char strings[24];
};

static struct small_program good_program(void)
{
	const uint32_t strings = offsetof(struct small_program, strings);
	struct small_program program = {
		.head = { .total_bytes = sizeof(program),
			.n_groups = 2,
			.n_argv = 2,
			.n_envp = 1,
			.groups = offsetof(struct small_program, groups),
			.argv = offsetof(struct small_program, argv),
			.envp = offsetof(struct small_program, envp),
			.dir = strings,
			.path = strings + 2 },
		.argv = { strings + 7, strings + 10, 0 },
		.envp = { strings + 12, 0 },
		.strings = "/\0/bin\0sh\0-\0A=b\0 rest",
	};

	return program;
}

static int check(struct small_program program)
{
	return program_check(&program, sizeof(program));
}

static void a_sound_program_passes(void **state UNUSED)
{
	struct small_program program = good_program();

	assert_int_equal(check(program), 0);
	program.head.n_groups = 0;
	program.head.n_envp = 0;
	program.head.envp += sizeof(uint64_t);
	assert_int_equal(check(program), 0);
}

static void a_program_of_another_length_is_refused(void **state UNUSED)
{
	struct small_program program = good_program();

	for (size_t n = 0; n < sizeof(program); n++) {
		AUTO_FREE char *exact = malloc(n + 1);

		program.head.total_bytes = (uint32_t)n;
		memcpy(exact, &program, n);
		if (n < offsetof(struct small_program, strings) + 16)
			assert_int_equal(program_check(exact, n), -EPROTO);
		program.head.total_bytes = sizeof(program);
		memcpy(exact, &program, n);
		assert_int_equal(program_check(exact, n), -EPROTO);
	}
}

static void a_program_without_a_name_is_refused(void **state UNUSED)
{
	struct small_program program = good_program();

	program.head.n_argv = 0;
	program.argv[0] = 0;
	assert_int_equal(check(program), -EPROTO);
}

/* The child would read and write behind the end of an empty one, looking for a '/'. */
static void a_program_without_a_directory_is_refused(void **state UNUSED)
{
	struct small_program program = good_program();

	program.head.dir += 1;
	assert_int_equal(check(program), -EPROTO);
}

static void tables_that_do_not_fit_are_refused(void **state UNUSED)
{
	static const uint32_t counts[] = { 1000, 1u << 29, 1u << 30, 1u << 31, UINT32_MAX };
	struct small_program program;

	for (size_t i = 0; i < N_ELEMENTS(counts); i++) {
		program = good_program();
		program.head.n_argv = counts[i];
		assert_int_equal(check(program), -EPROTO);
		program = good_program();
		program.head.n_envp = counts[i];
		assert_int_equal(check(program), -EPROTO);
		program = good_program();
		program.head.n_groups = counts[i];
		assert_int_equal(check(program), -EPROTO);
	}
}

static void tables_that_begin_outside_or_askew_are_refused(void **state UNUSED)
{
	const uint32_t size = sizeof(struct small_program);
	const uint32_t places[] = { 1, 2, 4, size - 4, size, size + 8, UINT32_MAX - 7, UINT32_MAX };
	struct small_program program;

	for (size_t i = 0; i < N_ELEMENTS(places); i++) {
		program = good_program();
		program.head.argv = places[i];
		assert_int_equal(check(program), -EPROTO);
		program = good_program();
		program.head.envp = places[i];
		assert_int_equal(check(program), -EPROTO);
	}
	program = good_program();
	program.head.groups = 3;
	assert_int_equal(check(program), -EPROTO);
	program.head.groups = size + 4;
	assert_int_equal(check(program), -EPROTO);
}

static void a_table_without_its_zero_is_refused(void **state UNUSED)
{
	struct small_program program = good_program();

	program.argv[2] = program.argv[1];
	assert_int_equal(check(program), -EPROTO);
	program = good_program();
	program.envp[1] = program.argv[0];
	assert_int_equal(check(program), -EPROTO);
	program = good_program();
	program.head.n_argv = 1;
	assert_int_equal(check(program), -EPROTO);
}

static void strings_outside_are_refused(void **state UNUSED)
{
	const uint64_t places[] = { sizeof(struct small_program), UINT32_MAX, UINT64_C(1) << 32,
		(UINT64_C(1) << 32) + offsetof(struct small_program, strings), UINT64_MAX };
	struct small_program program;

	for (size_t i = 0; i < N_ELEMENTS(places); i++) {
		program = good_program();
		program.argv[1] = places[i];
		assert_int_equal(check(program), -EPROTO);
		program = good_program();
		program.envp[0] = places[i];
		assert_int_equal(check(program), -EPROTO);
	}
	program = good_program();
	program.head.dir = sizeof(program);
	assert_int_equal(check(program), -EPROTO);
	program = good_program();
	program.head.path = UINT32_MAX;
	assert_int_equal(check(program), -EPROTO);
	program = good_program();
	memset(program.strings + 16, 'x', sizeof(program.strings) - 16);
	program.head.path = offsetof(struct small_program, strings) + 17;
	assert_int_equal(check(program), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_plan_passes),
		cmocka_unit_test(a_plan_of_another_length_is_refused),
		cmocka_unit_test(more_operations_than_there_are_bytes_are_refused),
		cmocka_unit_test(an_unknown_operation_is_refused),
		cmocka_unit_test(a_string_outside_or_without_an_end_is_refused),
		cmocka_unit_test(a_sound_program_passes),
		cmocka_unit_test(a_program_of_another_length_is_refused),
		cmocka_unit_test(a_program_without_a_name_is_refused),
		cmocka_unit_test(a_program_without_a_directory_is_refused),
		cmocka_unit_test(tables_that_do_not_fit_are_refused),
		cmocka_unit_test(tables_that_begin_outside_or_askew_are_refused),
		cmocka_unit_test(a_table_without_its_zero_is_refused),
		cmocka_unit_test(strings_outside_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The device policy: its lines for the v1 controller, and the program for v2, which is run here by
 * an interpreter of the few instructions that it may have. */
#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/devices.h"

enum { MAJORS = 260, MINORS = 260 };

/* One instruction; the number of the next one, or -1 at the end. */
static int step(const struct bpf_insn *insn, int at, uint64_t regs[11],
	const struct bpf_cgroup_dev_ctx *context)
{
	uint32_t word;

	assert_true(insn->dst_reg < 10 && insn->src_reg < 10);
	switch (insn->code) {
	case BPF_LDX | BPF_MEM | BPF_W:
		assert_ptr_equal(regs[insn->src_reg], context);
		assert_true(insn->off >= 0 && insn->off % 4 == 0 &&
			(size_t)insn->off + 4 <= sizeof(*context));
		memcpy(&word, (const char *)context + insn->off, 4);
		regs[insn->dst_reg] = word;
		return at + 1;
	case BPF_ALU64 | BPF_MOV | BPF_X:
		regs[insn->dst_reg] = regs[insn->src_reg];
		return at + 1;
	case BPF_ALU64 | BPF_MOV | BPF_K:
		regs[insn->dst_reg] = (uint64_t)(int64_t)insn->imm;
		return at + 1;
	case BPF_ALU64 | BPF_AND | BPF_K:
		regs[insn->dst_reg] &= (uint64_t)(int64_t)insn->imm;
		return at + 1;
	case BPF_ALU64 | BPF_RSH | BPF_K:
		regs[insn->dst_reg] >>= insn->imm;
		return at + 1;
	case BPF_JMP | BPF_JNE | BPF_K:
		return at + 1 +
			(regs[insn->dst_reg] != (uint64_t)(int64_t)insn->imm ? insn->off : 0);
	case BPF_JMP | BPF_EXIT:
		return -1;
	default:
		fail_msg("instruction %d has code %#x", at, insn->code);
		return -1;
	}
}

static bool run(
	const struct bpf_insn *program, size_t n, char type, unsigned access, int major, int minor)
{
	struct bpf_cgroup_dev_ctx context = {
		.access_type =
			access << 16 | (type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR),
		.major = (uint32_t)major,
		.minor = (uint32_t)minor,
	};
	uint64_t regs[11] = { [0] = 1, [1] = (uint64_t)(uintptr_t)&context };
	int at = 0;

	for (size_t steps = 0; at >= 0; steps++) {
		assert_true(
			(size_t)at < n && steps <= n); /* forward only, and never past the end */
		at = step(&program[at], at, regs, &context);
	}
	assert_true(regs[0] <= 1);
	return regs[0];
}

/* devices.rst: an access is allowed if one line covers all of it. */
static bool is_covered(const struct device_rule *rules, size_t n_rules, char type, unsigned access,
	int major, int minor)
{
	for (size_t i = 0; i < n_rules; i++)
		if (rules[i].type == type && (rules[i].access & access) == access &&
			(rules[i].major < 0 || rules[i].major == major) &&
			(rules[i].minor < 0 || rules[i].minor == minor))
			return true;
	return false;
}

static void compare_everywhere(const struct device_rule *rules, size_t n_rules)
{
	struct bpf_insn program[DEVICE_PROGRAM_MAX];
	size_t n = device_program_build(rules, n_rules, program);

	assert_in_range(n, 1, DEVICE_PROGRAM_MAX);
	for (int type = 'b'; type <= 'c'; type++)
		for (unsigned access = 1; access <= DEVICE_ALL; access++)
			for (int major = 0; major < MAJORS; major++)
				for (int minor = 0; minor < MINORS; minor++)
					if (run(program, n, (char)type, access, major, minor) !=
						is_covered(rules, n_rules, (char)type, access,
							major, minor))
						fail_msg("%c %d:%d access %u", type, major, minor,
							access);
}

static void the_program_allows_what_the_lines_allow(void **state UNUSED)
{
	struct device_rule rules[MAX_DEVICE_RULES];

	compare_everywhere(rules, device_rules(false, rules));
	compare_everywhere(rules, device_rules(true, rules));
}

static void parts_of_a_rule_are_honoured_one_by_one(void **state UNUSED)
{
	static const struct device_rule rules[] = { { 'c', 7, -1, DEVICE_READ },
		{ 'b', -1, 3, DEVICE_WRITE }, { 'b', 7, 5, DEVICE_READ | DEVICE_WRITE },
		{ 'c', 0, 0, DEVICE_MKNOD } };

	compare_everywhere(rules, N_ELEMENTS(rules));
}

static void without_a_rule_nothing_is_allowed(void **state UNUSED)
{
	compare_everywhere(NULL, 0);
}

static void large_numbers_are_told_apart(void **state UNUSED)
{
	static const struct device_rule rule = { 'c', 4095, 1048575, DEVICE_ALL };
	struct bpf_insn program[DEVICE_PROGRAM_MAX];
	size_t n = device_program_build(&rule, 1, program);

	assert_true(run(program, n, 'c', DEVICE_READ, 4095, 1048575));
	assert_false(run(program, n, 'c', DEVICE_READ, 4095, 1048574));
	assert_false(run(program, n, 'c', DEVICE_READ, 255, 1048575));
}

static void the_longest_list_fits(void **state UNUSED)
{
	struct device_rule rules[MAX_DEVICE_RULES];
	struct bpf_insn program[DEVICE_PROGRAM_MAX];
	size_t n;

	for (int i = 0; i < MAX_DEVICE_RULES; i++)
		rules[i] = (struct device_rule){ 'c', i, i, DEVICE_ALL };
	n = device_program_build(rules, MAX_DEVICE_RULES, program);
	assert_int_equal(n, DEVICE_PROGRAM_MAX);
	assert_true(run(program, n, 'c', DEVICE_ALL, MAX_DEVICE_RULES - 1, MAX_DEVICE_RULES - 1));
	assert_false(run(program, n, 'b', DEVICE_ALL, 0, 0));
}

static void rules_are_printed_as_the_v1_controller_reads_them(void **state UNUSED)
{
	static const struct {
		struct device_rule rule;
		const char *text;
	} cases[] = { { { 'c', 1, 3, DEVICE_ALL }, "c 1:3 rwm" },
		{ { 'b', -1, -1, DEVICE_MKNOD }, "b *:* m" },
		{ { 'c', 136, -1, DEVICE_READ | DEVICE_WRITE }, "c 136:* rw" },
		{ { 'b', 2147483647, 2147483647, DEVICE_ALL }, "b 2147483647:2147483647 rwm" } };
	char text[DEVICE_RULE_TEXT];

	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		device_rule_print(&cases[i].rule, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void only_a_privileged_container_has_fuse(void **state UNUSED)
{
	struct device_rule rules[MAX_DEVICE_RULES];
	size_t n = device_rules(false, rules);

	assert_false(is_covered(rules, n, 'c', DEVICE_READ, 10, 229));
	n = device_rules(true, rules);
	assert_true(is_covered(rules, n, 'c', DEVICE_ALL, 10, 229));
	assert_false(is_covered(rules, n, 'c', DEVICE_READ, 5, 1));
}

static void too_many_rules_are_refused(void **state UNUSED)
{
	struct device_rule rules[MAX_DEVICE_RULES + 1] = { 0 };
	struct err err = { 0 };

	assert_int_equal(device_program_attach(-1, rules, MAX_DEVICE_RULES + 1, &err), -E2BIG);
	assert_non_null(strstr(err.msg, "65 device rules"));
}

/* Not a group: whoever may load a program learns so, others are refused earlier. */
static void what_is_no_group_takes_no_program(void **state)
{
	AUTO_FD int fd = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct device_rule rules[MAX_DEVICE_RULES];
	struct err err = { 0 };
	int before = unit_count_fds();

	assert_true(device_program_attach(fd, rules, device_rules(false, rules), &err) < 0);
	assert_non_null(strstr(err.msg, "device policy: bpf(2) refused to "));
	assert_int_equal(unit_count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_program_allows_what_the_lines_allow),
		cmocka_unit_test(parts_of_a_rule_are_honoured_one_by_one),
		cmocka_unit_test(without_a_rule_nothing_is_allowed),
		cmocka_unit_test(large_numbers_are_told_apart),
		cmocka_unit_test(the_longest_list_fits),
		cmocka_unit_test(rules_are_printed_as_the_v1_controller_reads_them),
		cmocka_unit_test(only_a_privileged_container_has_fuse),
		cmocka_unit_test(too_many_rules_are_refused),
		cmocka_unit_test_setup_teardown(
			what_is_no_group_takes_no_program, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

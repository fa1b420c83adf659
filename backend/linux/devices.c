#include "linux/devices.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"

/* c 5:1 (the host's console) is not among them. */
static const struct device_rule for_all[] = {
	{ 'c', -1, -1, DEVICE_MKNOD }, /* a node is nothing as long as it cannot be opened */
	{ 'b', -1, -1, DEVICE_MKNOD }, { 'c', 1, 3, DEVICE_ALL }, /* null */
	{ 'c', 1, 5, DEVICE_ALL }, /* zero */
	{ 'c', 1, 7, DEVICE_ALL }, /* full */
	{ 'c', 1, 8, DEVICE_ALL }, /* random */
	{ 'c', 1, 9, DEVICE_ALL }, /* urandom */
	{ 'c', 5, 0, DEVICE_ALL }, /* tty */
	{ 'c', 5, 2, DEVICE_ALL }, /* ptmx */
	{ 'c', 136, -1, DEVICE_ALL }, /* pts */
	{ 'c', 10, 200, DEVICE_ALL }, /* net/tun */
};
static const struct device_rule fuse = { 'c', 10, 229, DEVICE_ALL };

size_t device_rules(bool privileged, struct device_rule rules[MAX_DEVICE_RULES])
{
	size_t n = N_ELEMENTS(for_all);

	memcpy(rules, for_all, sizeof(for_all));
	if (privileged)
		rules[n++] = fuse;
	return n;
}

static void print_number(char text[12], int number)
{
	if (number < 0)
		snprintf(text, 12, "*");
	else
		snprintf(text, 12, "%d", number);
}

void device_rule_print(const struct device_rule *rule, char text[DEVICE_RULE_TEXT])
{
	char major[12], minor[12];

	print_number(major, rule->major);
	print_number(minor, rule->minor);
	snprintf(text, DEVICE_RULE_TEXT, "%c %s:%s %s%s%s", rule->type, major, minor,
		rule->access & DEVICE_READ ? "r" : "", rule->access & DEVICE_WRITE ? "w" : "",
		rule->access & DEVICE_MKNOD ? "m" : "");
}

/* ---- the program ----------------------------------------------------------------------------- */

/* At the start r1 points to the context. From then on: */
enum { R_ANSWER = BPF_REG_0, R_CONTEXT, R_TYPE, R_ACCESS, R_MAJOR, R_MINOR, R_REST };

static struct bpf_insn load(int to, size_t offset)
{
	return (struct bpf_insn){ .code = BPF_LDX | BPF_MEM | BPF_W,
		.dst_reg = to,
		.src_reg = R_CONTEXT,
		.off = (int16_t)offset };
}

static struct bpf_insn compute(int operation, int to, int32_t number)
{
	return (struct bpf_insn){
		.code = BPF_ALU64 | operation | BPF_K, .dst_reg = to, .imm = number
	};
}

static struct bpf_insn copy(int to, int from)
{
	return (struct bpf_insn){
		.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = to, .src_reg = from
	};
}

/* Past the next `skip` instructions, unless equal. */
static struct bpf_insn unless(int reg, int32_t number, size_t skip)
{
	return (struct bpf_insn){ .code = BPF_JMP | BPF_JNE | BPF_K,
		.dst_reg = reg,
		.off = (int16_t)skip,
		.imm = number };
}

static struct bpf_insn leave(void)
{
	return (struct bpf_insn){ .code = BPF_JMP | BPF_EXIT };
}

/* Whatever does not fit jumps to the instruction behind. */
static size_t add_rule(const struct device_rule *rule, struct bpf_insn *program)
{
	size_t end = 6 + (rule->major >= 0) + (rule->minor >= 0), n = 0;

	program[n] = unless(
		R_TYPE, rule->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, end - n - 1);
	n++;
	program[n++] = copy(R_REST, R_ACCESS);
	program[n++] = compute(BPF_AND, R_REST, 0xffff & ~(int32_t)rule->access);
	program[n] = unless(R_REST, 0, end - n - 1);
	n++;
	if (rule->major >= 0) {
		program[n] = unless(R_MAJOR, rule->major, end - n - 1);
		n++;
	}
	if (rule->minor >= 0) {
		program[n] = unless(R_MINOR, rule->minor, end - n - 1);
		n++;
	}
	program[n++] = compute(BPF_MOV, R_ANSWER, 1);
	program[n++] = leave();
	return n;
}

/* access_type is the access in its upper and the type in its lower half. */
size_t device_program_build(const struct device_rule *rules, size_t n_rules,
	struct bpf_insn program[DEVICE_PROGRAM_MAX])
{
	size_t n = 0;

	program[n++] = load(R_TYPE, offsetof(struct bpf_cgroup_dev_ctx, access_type));
	program[n++] = copy(R_ACCESS, R_TYPE);
	program[n++] = compute(BPF_AND, R_TYPE, 0xffff);
	program[n++] = compute(BPF_RSH, R_ACCESS, 16);
	program[n++] = load(R_MAJOR, offsetof(struct bpf_cgroup_dev_ctx, major));
	program[n++] = load(R_MINOR, offsetof(struct bpf_cgroup_dev_ctx, minor));
	for (size_t i = 0; i < n_rules; i++)
		n += add_rule(&rules[i], program + n);
	program[n++] = compute(BPF_MOV, R_ANSWER, 0);
	program[n++] = leave();
	return n;
}

/* Without the verifier's log: it is of use to who writes the program, and takes a large buffer. */
static int load_program(const struct bpf_insn *program, size_t n)
{
	union bpf_attr attr = { 0 };
	int fd;

	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (uint64_t)(uintptr_t)program;
	attr.insn_cnt = (uint32_t)n;
	attr.license = (uint64_t)(uintptr_t) "Apache-2.0";
	memcpy(attr.prog_name, "cloche_devices", sizeof("cloche_devices"));
	fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	return fd < 0 ? -errno : fd;
}

/* ALLOW_MULTI: one of systemd's or another's above goes on to be asked, and both must allow. */
static int attach_program(int group_fd, int program_fd)
{
	union bpf_attr attr = { 0 };

	attr.target_fd = (uint32_t)group_fd;
	attr.attach_bpf_fd = (uint32_t)program_fd;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	return syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

int device_program_try(void)
{
	struct bpf_insn program[DEVICE_PROGRAM_MAX];
	AUTO_FD int fd = load_program(program, device_program_build(NULL, 0, program));

	return fd < 0 ? fd : 0;
}

int device_program_attach(
	int group_fd, const struct device_rule *rules, size_t n_rules, struct err *err)
{
	struct bpf_insn program[DEVICE_PROGRAM_MAX];
	AUTO_FD int program_fd = -1;
	int r;

	if (n_rules > MAX_DEVICE_RULES)
		return err_system(err, -E2BIG, "%zu device rules", n_rules);
	program_fd = load_program(program, device_program_build(rules, n_rules, program));
	if (program_fd < 0)
		return err_system(
			err, program_fd, "device policy: bpf(2) refused to load the program");
	r = attach_program(group_fd, program_fd);
	return r < 0 ? err_system(err, r, "device policy: bpf(2) refused to attach the program")
		     : 0;
}

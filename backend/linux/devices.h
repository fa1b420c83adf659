/* devices.h - which device nodes the processes of a cgroup may make and open: as lines for the v1
 * controller (kernel: Documentation/admin-guide/cgroup-v1/devices.rst), or as a BPF program of type
 * CGROUP_DEVICE on a v2 group, which has no such file (cgroup-v2.rst, "Device controller";
 * include/uapi/linux/bpf.h, struct bpf_cgroup_dev_ctx). What no rule allows is refused.
 * Threads: any. Nothing is kept: the kernel holds the program as long as its group. */
#pragma once
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

struct err;

enum device_access { DEVICE_MKNOD = 1, DEVICE_READ = 2, DEVICE_WRITE = 4, DEVICE_ALL = 7 };

struct device_rule {
	char type; /* 'c' or 'b' */
	int major, minor; /* -1: every one */
	unsigned access; /* enum device_access, combined */
};

#define MAX_DEVICE_RULES 64
#define DEVICE_RULE_TEXT 48
#define DEVICE_PROGRAM_MAX (8 + 8 * MAX_DEVICE_RULES) /* instructions */

/* What a container may use. Returns how many. */
size_t device_rules(bool privileged, struct device_rule rules[MAX_DEVICE_RULES]);

/* "c 1:3 rwm", as in devices.allow. */
void device_rule_print(const struct device_rule *rule, char text[DEVICE_RULE_TEXT]);

/* Returns the number of instructions. n_rules: at most MAX_DEVICE_RULES. */
size_t device_program_build(const struct device_rule *rules, size_t n_rules,
	struct bpf_insn program[DEVICE_PROGRAM_MAX]);

/* Whether a program can be loaded here: 0 or a negative errno. */
int device_program_try(void);

/* Loads the program and attaches it to the v2 group that is open at group_fd; programs of groups
 * above stay in force. Needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, of the host. 0 or a
 * negative errno, err says whether it was refused at loading or at attaching. */
int device_program_attach(
	int group_fd, const struct device_rule *rules, size_t n_rules, struct err *err);

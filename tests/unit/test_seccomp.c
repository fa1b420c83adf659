/* The filter is run by an interpreter of classic BPF, so every call of every architecture can be asked. */
#include "unit.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/seccomp.h"

#define ALLOW SECCOMP_RET_ALLOW
#define DENY (SECCOMP_RET_ERRNO | EPERM)
#define MISSING (SECCOMP_RET_ERRNO | ENOSYS)

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#define COMPAT AUDIT_ARCH_I386
#define NATIVE_TOKEN SCMP_ARCH_X86_64
#define COMPAT_TOKEN SCMP_ARCH_X86
#define FOREIGN AUDIT_ARCH_AARCH64
#else
#define NATIVE AUDIT_ARCH_AARCH64
#define COMPAT AUDIT_ARCH_ARM
#define NATIVE_TOKEN SCMP_ARCH_AARCH64
#define COMPAT_TOKEN SCMP_ARCH_ARM
#define FOREIGN AUDIT_ARCH_X86_64
#endif

struct program {
	struct sock_filter *ops;
	size_t n_ops;
};

static int build(void **state)
{
	struct program *program = calloc(1, sizeof(*program));
	struct err err = { 0 };
	size_t n_bytes = 0;

	*state = program;
	if (!program ||
		seccomp_filter_build(
			SECCOMP_DEFAULT, false, (void **)&program->ops, &n_bytes, &err))
		return -1;
	program->n_ops = n_bytes / sizeof(*program->ops);
	return n_bytes % sizeof(*program->ops) ? -1 : 0;
}

static int done(void **state)
{
	struct program *program = *state;

	free(program->ops);
	free(program);
	return 0;
}

static uint32_t operand(const struct sock_filter *op, uint32_t x)
{
	return BPF_SRC(op->code) == BPF_X ? x : op->k;
}

static bool jump_is_taken(const struct sock_filter *op, uint32_t a, uint32_t x)
{
	uint32_t k = operand(op, x);

	switch (BPF_OP(op->code)) {
	case BPF_JEQ:
		return a == k;
	case BPF_JGT:
		return a > k;
	case BPF_JGE:
		return a >= k;
	case BPF_JSET:
		return a & k;
	default:
		fail_msg("unknown jump %#x", op->code);
		return false;
	}
}

/* What the kernel would answer. Loads of other than whole aligned words do not pass its checker. */
static uint32_t run(const struct program *program, const struct seccomp_data *data)
{
	uint32_t a = 0, x = 0;

	for (size_t pc = 0; pc < program->n_ops; pc++) {
		const struct sock_filter *op = &program->ops[pc];

		switch (op->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(op->k % 4 == 0 && op->k < sizeof(*data));
			memcpy(&a, (const char *)data + op->k, sizeof(a));
			continue;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= op->k;
			continue;
		case BPF_RET | BPF_K:
			return op->k;
		case BPF_JMP | BPF_JA:
			pc += op->k;
			continue;
		default:
			if (BPF_CLASS(op->code) != BPF_JMP)
				fail_msg("unknown operation %#x", op->code);
			pc += jump_is_taken(op, a, x) ? op->jt : op->jf;
		}
	}
	fail_msg("the filter has no end");
	return 0;
}

static uint32_t ask_nr(
	void **state, uint32_t arch, int nr, uint64_t arg0, uint64_t arg1, uint64_t arg2)
{
	struct seccomp_data data = { .nr = nr, .arch = arch, .args = { arg0, arg1, arg2 } };

	return run(*state, &data);
}

static uint32_t ask(void **state, const char *name, uint64_t arg0, uint64_t arg1, uint64_t arg2)
{
	int nr = seccomp_syscall_resolve_name_arch(NATIVE_TOKEN, name);

	if (nr < 0)
		fail_msg("no such system call: %s", name);
	return ask_nr(state, NATIVE, nr, arg0, arg1, arg2);
}

static void expect_all(void **state, uint32_t want, const char *const *names, size_t n_names)
{
	static const uint32_t archs[] = { NATIVE, COMPAT };
	static const uint32_t tokens[] = { NATIVE_TOKEN, COMPAT_TOKEN };

	for (size_t i = 0; i < n_names; i++)
		for (int k = 0; k < 2; k++) {
			int nr = seccomp_syscall_resolve_name_arch(tokens[k], names[i]);
			uint32_t got = nr < 0 ? want : ask_nr(state, archs[k], nr, 0, 0, 0);

			if (got != want)
				fail_msg("%s on %#x: %#x, not %#x", names[i], archs[k], got, want);
		}
}

static void calls_of_ordinary_programs_are_allowed(void **state)
{
	static const char *const names[] = { "read", "write", "openat", "openat2", "close",
		"execve", "execveat", "exit_group", "fork", "vfork", "wait4", "waitid", "kill",
		"tgkill", "mmap", "mprotect", "brk", "futex", "futex_waitv", "rt_sigaction",
		"rt_sigreturn", "rseq", "set_robust_list", "getrandom", "clock_gettime",
		"nanosleep", "epoll_pwait2", "ppoll", "socketpair", "connect", "bind", "accept4",
		"sendmsg", "recvmsg", "statx", "getdents64", "mknod", "mknodat", "chroot", "chown",
		"setxattr", "capset", "setuid", "setresuid", "setgroups", "prctl", "seccomp",
		"ptrace", "process_vm_readv", "pidfd_open", "pidfd_send_signal", "memfd_create",
		"splice", "vmsplice", "io_setup", "landlock_restrict_self", "close_range",
		"prlimit64", "sched_setaffinity", "name_to_handle_at", "arch_prctl" };

	expect_all(state, ALLOW, names, N_ELEMENTS(names));
}

static void calls_that_reach_for_the_host_are_denied(void **state)
{
	static const char *const names[] = { "mount", "umount2", "pivot_root", "fsopen", "fsconfig",
		"fsmount", "fspick", "move_mount", "open_tree", "mount_setattr", "unshare", "setns",
		"bpf", "perf_event_open", "userfaultfd", "init_module", "finit_module",
		"delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
		"acct", "iopl", "ioperm", "settimeofday", "clock_settime", "stime", "sethostname",
		"setdomainname", "quotactl", "quotactl_fd", "open_by_handle_at", "syslog",
		"vhangup", "move_pages", "migrate_pages", "mbind", "set_mempolicy", "fanotify_init",
		"kcmp", "pidfd_getfd", "process_madvise", "nfsservctl", "lookup_dcookie", "uselib",
		"ustat", "sysfs", "_sysctl" };

	expect_all(state, DENY, names, N_ELEMENTS(names));
}

static void calls_that_programs_can_do_without_seem_to_be_missing(void **state)
{
	static const char *const names[] = { "clone3", "keyctl", "add_key", "request_key",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret" };

	expect_all(state, MISSING, names, N_ELEMENTS(names));
}

static void numbers_that_nobody_knows_seem_to_be_missing(void **state)
{
	static const int numbers[] = { 451, 1000, 0x7fffffff, 0x40000000, 0x40000000 + 59, -1 };

	for (size_t i = 0; i < N_ELEMENTS(numbers); i++) {
		assert_int_equal(ask_nr(state, NATIVE, numbers[i], 0, 0, 0), MISSING);
		assert_int_equal(ask_nr(state, COMPAT, numbers[i], 0, 0, 0), MISSING);
	}
}

static void a_foreign_architecture_is_fatal(void **state)
{
	assert_int_equal(ask_nr(state, FOREIGN, 0, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(ask_nr(state, 0, 1, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
}

static void clone_makes_threads_and_processes_but_no_namespace(void **state)
{
	static const uint64_t namespaces[] = { 0x00020000, 0x02000000, 0x04000000, 0x08000000,
		0x10000000, 0x20000000, 0x40000000, 0x7e020000 };
	const uint64_t thread = 0x3d0f00, fork_flags = 0x1200011;

	assert_int_equal(ask(state, "clone", thread, 0, 0), ALLOW);
	assert_int_equal(ask(state, "clone", fork_flags, 0, 0), ALLOW);
	for (size_t i = 0; i < N_ELEMENTS(namespaces); i++) {
		assert_int_equal(ask(state, "clone", namespaces[i] | 17, 0, 0), DENY);
		assert_int_equal(ask(state, "clone", namespaces[i] | thread, 0, 0), DENY);
		assert_int_equal(
			ask(state, "clone", namespaces[i] | UINT64_C(1) << 63, 0, 0), DENY);
	}
}

static void ioctl_is_allowed_except_for_putting_words_into_terminals(void **state)
{
	static const uint64_t high_halves[] = { 0, UINT64_C(1) << 32, UINT64_C(0xffffffff) << 32 };

	for (size_t i = 0; i < N_ELEMENTS(high_halves); i++) {
		assert_int_equal(ask(state, "ioctl", 0, high_halves[i] | 0x5412, 0), DENY);
		assert_int_equal(ask(state, "ioctl", 0, high_halves[i] | 0x541c, 0), DENY);
		assert_int_equal(ask(state, "ioctl", 0, high_halves[i] | 0x5401, 0), ALLOW);
		assert_int_equal(ask(state, "ioctl", 0, high_halves[i] | 0x5413, 0), ALLOW);
	}
	/* number 54 of the compatible architecture is ioctl; of the native one it is not */
	assert_int_equal(ask_nr(state, COMPAT, 54, 0, 0x5412, 0), DENY);
	assert_int_equal(ask_nr(state, COMPAT, 54, 0, 0x541c, 0), DENY);
	assert_int_equal(ask_nr(state, COMPAT, 54, 0, 0x5401, 0), ALLOW);
	assert_int_equal(ask_nr(state, NATIVE, 54, 0, 0x5412, 0), ALLOW);
}

static void flags_of_files_are_denied_where_they_hold_a_limit(void **state)
{
	static const uint64_t commands[] = { 0x401c5820, 0x40086602, 0x40046602 };
	struct program kept = { 0 };
	void *kept_state = &kept;
	size_t n_bytes;

	assert_int_equal(
		seccomp_filter_build(SECCOMP_DEFAULT, true, (void **)&kept.ops, &n_bytes, NULL), 0);
	kept.n_ops = n_bytes / sizeof(*kept.ops);
	for (size_t i = 0; i < N_ELEMENTS(commands); i++) {
		assert_int_equal(ask(&kept_state, "ioctl", 0, commands[i], 0), DENY);
		assert_int_equal(ask(state, "ioctl", 0, commands[i], 0), ALLOW);
	}
	assert_int_equal(ask(&kept_state, "ioctl", 0, 0x5412, 0), DENY);
	assert_int_equal(ask(&kept_state, "ioctl", 0, 0x80086601, 0), ALLOW); /* GETFLAGS */
	free(kept.ops);
}

/* What a kernel without the family would say, and a plain no to those that have been ways in. */
static uint32_t answer_to_family(uint64_t domain)
{
	switch (domain) {
	case 1:
	case 2:
	case 10:
	case 16:
	case 17:
		return ALLOW;
	case 15:
	case 33:
	case 38:
	case 40:
		return DENY;
	default:
		return SECCOMP_RET_ERRNO | EAFNOSUPPORT;
	}
}

static void only_ordinary_socket_families_are_allowed(void **state)
{
	for (uint64_t domain = 0; domain < 64; domain++) {
		uint32_t answer = answer_to_family(domain);

		assert_int_equal(ask(state, "socket", domain, 1, 0), answer);
		assert_int_equal(ask(state, "socket", domain | UINT64_C(7) << 32, 1, 0), answer);
	}
	for (uint64_t protocol = 0; protocol < 32; protocol++) {
		bool ok = protocol == 0 || protocol == 4 || protocol == 15 || protocol == 16;

		assert_int_equal(ask(state, "socket", 16, 3, protocol),
			ok ? ALLOW : SECCOMP_RET_ERRNO | EPROTONOSUPPORT);
	}
	assert_int_equal(ask(state, "socket", UINT32_MAX, 1, 0), SECCOMP_RET_ERRNO | EAFNOSUPPORT);
}

#if defined(__x86_64__)
static void socketcall_may_do_anything_but_make_sockets(void **state)
{
	for (uint64_t call = 0; call < 32; call++) {
		uint32_t got = ask_nr(state, COMPAT, 102, call, 0, 0);

		if (got != (call >= 2 && call <= 20 ? ALLOW : DENY))
			fail_msg("socketcall %ju: %#x", (uintmax_t)call, got);
	}
}
#endif

static void only_harmless_personalities_are_allowed(void **state)
{
	static const uint64_t good[] = { 0, 8, 0x20000, 0x20008, 0xffffffff };
	static const uint64_t bad[] = { 1, 0x40000, 0x400000, 0x20001, 0xfffffffe };

	for (size_t i = 0; i < N_ELEMENTS(good); i++)
		assert_int_equal(ask(state, "personality", good[i], 0, 0), ALLOW);
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_int_equal(ask(state, "personality", bad[i], 0, 0), DENY);
}

static void the_filter_is_short_and_its_jumps_stay_inside(void **state)
{
	struct program *program = *state;

	assert_in_range(program->n_ops, 10, 1200);
	for (size_t pc = 0; pc < program->n_ops; pc++) {
		const struct sock_filter *op = &program->ops[pc];
		size_t far = op->jt > op->jf ? op->jt : op->jf;

		if (BPF_CLASS(op->code) != BPF_JMP)
			continue;
		if (BPF_OP(op->code) == BPF_JA)
			far = op->k;
		assert_true(pc + 1 + far < program->n_ops);
	}
}

static void two_builds_give_the_same_bytes(void **state)
{
	struct program *program = *state;
	AUTO_FREE void *other = NULL;
	size_t n_bytes = 0;

	assert_int_equal(seccomp_filter_build(SECCOMP_DEFAULT, false, &other, &n_bytes, NULL), 0);
	assert_int_equal(n_bytes, program->n_ops * sizeof(*program->ops));
	assert_memory_equal(other, program->ops, n_bytes);
}

static void others_get_what_they_need_and_no_more(void **state UNUSED)
{
	static const struct {
		const char *name;
		uint64_t argument;
		uint32_t answers[N_SECCOMP_KINDS];
	} rows[] = {
		{ "mount", 0, { DENY, ALLOW, ALLOW } },
		{ "umount2", 0, { DENY, ALLOW, ALLOW } },
		{ "fsopen", 0, { DENY, ALLOW, ALLOW } },
		{ "unshare", 0x20000000, { DENY, DENY, ALLOW } },
		{ "setns", 0, { DENY, DENY, ALLOW } },
		{ "clone", 0x10000000, { DENY, DENY, ALLOW } },
		{ "pivot_root", 0, { DENY, DENY, ALLOW } },
		{ "bpf", 0, { DENY, DENY, DENY } },
		{ "init_module", 0, { DENY, DENY, DENY } },
		{ "kexec_load", 0, { DENY, DENY, DENY } },
		{ "open_by_handle_at", 0, { DENY, DENY, DENY } },
		{ "read", 0, { ALLOW, ALLOW, ALLOW } },
	};

	for (enum seccomp_kind kind = 0; kind < N_SECCOMP_KINDS; kind++) {
		struct program program;
		void *one = &program;
		size_t n_bytes;

		assert_int_equal(
			seccomp_filter_build(kind, false, (void **)&program.ops, &n_bytes, NULL),
			0);
		program.n_ops = n_bytes / sizeof(*program.ops);
		for (size_t i = 0; i < N_ELEMENTS(rows); i++)
			if (ask(&one, rows[i].name, rows[i].argument, 0, 0) !=
				rows[i].answers[kind])
				fail_msg("%s with filter %d", rows[i].name, (int)kind);
		free(program.ops);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_of_ordinary_programs_are_allowed),
		cmocka_unit_test(calls_that_reach_for_the_host_are_denied),
		cmocka_unit_test(calls_that_programs_can_do_without_seem_to_be_missing),
		cmocka_unit_test(numbers_that_nobody_knows_seem_to_be_missing),
		cmocka_unit_test(a_foreign_architecture_is_fatal),
		cmocka_unit_test(clone_makes_threads_and_processes_but_no_namespace),
		cmocka_unit_test(ioctl_is_allowed_except_for_putting_words_into_terminals),
		cmocka_unit_test(flags_of_files_are_denied_where_they_hold_a_limit),
		cmocka_unit_test(only_ordinary_socket_families_are_allowed),
#if defined(__x86_64__)
		cmocka_unit_test(socketcall_may_do_anything_but_make_sockets),
#endif
		cmocka_unit_test(only_harmless_personalities_are_allowed),
		cmocka_unit_test(the_filter_is_short_and_its_jumps_stay_inside),
		cmocka_unit_test(two_builds_give_the_same_bytes),
		cmocka_unit_test(others_get_what_they_need_and_no_more),
	};

	return cmocka_run_group_tests(tests, build, done);
}

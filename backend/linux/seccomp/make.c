/* Runs while cloche is built: prints seccomp_programs.h, the programs that libseccomp makes of the lists of calls, squeezed. To make
 * them takes libseccomp longer than all the rest of a server's start. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/seccomp.h"
#include "linux/seccomp/squeeze.h"

/* NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET */
#define CLONE_NAMESPACES 0x7e020000

#if defined(__x86_64__)
#define COMPAT_ARCH SCMP_ARCH_X86
static const uint32_t archs[] = { AUDIT_ARCH_X86_64, AUDIT_ARCH_I386 };
#elif defined(__aarch64__)
#define COMPAT_ARCH SCMP_ARCH_ARM
static const uint32_t archs[] = { AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM };
#endif

static const char *const allowed[] = {
#define ALLOW(name) #name,
#include "linux/seccomp_allow.def"
#undef ALLOW
};

/* Programs cope with a kernel that lacks these, but not with one that refuses them. */
static const char *const missing[] = { "clone3", "keyctl", "add_key", "request_key",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret" };

/* For a root with CAP_SYS_ADMIN in a user namespace of its own: it can mount what such a root may (tmpfs,
 * overlay, FUSE), and undo nothing that its container was given. */
static const char *const mounting[] = { "mount", "umount", "umount2", "mount_setattr", "move_mount",
	"open_tree", "fsopen", "fsconfig", "fsmount", "fspick" };
static const char *const making_namespaces[] = { "unshare", "setns", "clone", "pivot_root",
	"sethostname", "setdomainname" };

static const uint32_t personalities[] = { 0, 8, 0x20000, 0x20008, 0xffffffff };
/* Which protocols of NETLINK, the program in front decides. */
static const uint32_t socket_domains[] = { 1 /* UNIX */, 2 /* INET */, 10 /* INET6 */,
	16 /* NETLINK */, 17 /* PACKET */ };

/* int-typed arguments: the kernel looks at the low half only, so the filter must too. */
#define LOW(arg, value) SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, 0xffffffff, value)

static int allow_unconditional(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(allowed) && r == 0; i++) {
		int nr = seccomp_syscall_resolve_name(allowed[i]);

		if (nr != __NR_SCMP_ERROR)
			r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
	}
	for (size_t i = 0; i < N_ELEMENTS(missing) && r == 0; i++) {
		int nr = seccomp_syscall_resolve_name(missing[i]);

		if (nr != __NR_SCMP_ERROR)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), nr, 0);
	}
	return r;
}

static int allow_by_argument(scmp_filter_ctx ctx)
{
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
		SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, CLONE_NAMESPACES, 0));

	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 0);
	for (size_t i = 0; i < N_ELEMENTS(personalities) && r == 0; i++)
		r = seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, SCMP_SYS(personality), 1, LOW(0, personalities[i]));
	for (size_t i = 0; i < N_ELEMENTS(socket_domains) && r == 0; i++)
		r = seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, LOW(0, socket_domains[i]));
	/* socketcall(SOCKET, ...) hides its domain behind a pointer; 32-bit C libraries of the last
	 * ten years call socket itself. */
	for (uint32_t call = 2; call <= 20 && r == 0; call++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socketcall), 1, LOW(0, call));
	return r;
}

static int allow_names(scmp_filter_ctx ctx, const char *const names[], size_t n_names)
{
	int r = 0;

	for (size_t i = 0; i < n_names && r == 0; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]);

		if (nr != __NR_SCMP_ERROR)
			r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
	}
	return r;
}

static int allow_more(scmp_filter_ctx ctx, enum seccomp_kind kind)
{
	int r = 0;

	if (kind >= SECCOMP_MOUNTS)
		r = allow_names(ctx, mounting, N_ELEMENTS(mounting));
	if (r == 0 && kind >= SECCOMP_NAMESPACES)
		r = allow_names(ctx, making_namespaces, N_ELEMENTS(making_namespaces));
	return r;
}

static int allow_all(scmp_filter_ctx ctx, enum seccomp_kind kind)
{
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = seccomp_arch_add(ctx, COMPAT_ARCH);
	if (r == 0)
		r = allow_unconditional(ctx);
	if (r == 0)
		r = allow_by_argument(ctx);
	return r < 0 ? r : allow_more(ctx, kind);
}

static int print(scmp_filter_ctx ctx, enum seccomp_kind kind)
{
	static struct sock_filter ops[SQUEEZE_MAX_OPS];
	static struct squeezed program;
	int fd = memfd_create("seccomp", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
	ssize_t n = r < 0 ? r : pread(fd, ops, sizeof(ops), 0);

	if (n <= 0 || n == sizeof(ops))
		return n < 0 ? (int)n : -E2BIG;
	r = seccomp_squeeze(ops, (size_t)n / sizeof(*ops), archs, &program);
	if (r < 0)
		return r;
	printf("static const struct sock_filter seccomp_program_%d[] = {\n", (int)kind);
	for (size_t i = 0; i < program.n_ops; i++)
		printf("\t{ %#x, %u, %u, %#x },\n", program.ops[i].code, program.ops[i].jt,
			program.ops[i].jf, program.ops[i].k);
	printf("};\n");
	return 0;
}

int main(void)
{
	int r = 0;

	printf("/* seccomp_programs.h - made by libseccomp, by enum seccomp_kind. */\n");
	for (enum seccomp_kind kind = 0; kind < N_SECCOMP_KINDS && r == 0; kind++) {
		scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));

		r = ctx ? allow_all(ctx, kind) : -ENOMEM;
		if (r == 0)
			r = print(ctx, kind);
		seccomp_release(ctx);
	}
	printf("static const struct {\n\tconst struct sock_filter *ops;\n\tsize_t n_ops;\n"
	       "} seccomp_programs[] = {\n");
	for (int kind = 0; kind < N_SECCOMP_KINDS; kind++)
		printf("\t{ seccomp_program_%d, sizeof(seccomp_program_%d) / sizeof(struct sock_filter) },\n",
			kind, kind);
	printf("};\n");
	if (r < 0)
		fprintf(stderr, "libseccomp: %s\n", strerrordesc_np(-r));
	return r < 0 || fflush(stdout) != 0;
}

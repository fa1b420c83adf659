#include "linux/seccomp.h"

#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"

/* The highest number that libseccomp 2.5.4 knows (set_mempolicy_home_node): what is newer has no
 * name here and is answered as if the kernel did not have it. x32 numbers are above it too. */
#define LAST_KNOWN_NR 450
/* NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET */
#define CLONE_NAMESPACES 0x7e020000
#define TIOCSTI_CMD 0x5412
#define TIOCLINUX_CMD 0x541c
#define FSSETXATTR_CMD 0x401c5820
#define SETFLAGS_CMD 0x40086602
#define SETFLAGS32_CMD 0x40046602

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

static int add_compat_arch(scmp_filter_ctx ctx)
{
#if defined(__x86_64__)
	return seccomp_arch_add(ctx, SCMP_ARCH_X86);
#elif defined(__aarch64__)
	return seccomp_arch_add(ctx, SCMP_ARCH_ARM);
#else
	return 0;
#endif
}

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#define NATIVE_IOCTL 16
#define NATIVE_SOCKET 41
#define COMPAT_SOCKET 359
#else
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#define NATIVE_IOCTL 29
#define NATIVE_SOCKET 198
#define COMPAT_SOCKET 281
#endif
#define COMPAT_IOCTL 54
#define COMPAT_SOCKETCALL 102
#define SYS_SOCKET_CALL 1

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (value))
#define GO(here, label) BPF_STMT(BPF_JMP | BPF_JA, (label) - (here)-1)
/* value: go to the label, else to the next */
#define ON(here, value, label) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, (label) - (here)-1, 0)

enum front_label { NATIVE = 6, IOCTL = 17, SOCKET = 24, NETLINK = 35, REFUSE = 41, END = 42 };

/* In front of libseccomp's program, which can express neither "newer than I know" nor "any command
 * except these", adds a socketcall of its own for each socket rule, and cannot answer with
 * several numbers there. Programs cope with a family or protocol that the kernel does not have
 * (shadow's tools with a missing audit socket), so that is what they hear; KEY, RXRPC, ALG and
 * VSOCK have been ways into the kernel and get a plain no. TIOCSTI stands in for the
 * commands that are denied only where projects are kept. Each LOAD of an argument takes its low
 * half. */
static void write_front(struct sock_filter to[END], bool keeps_projects)
{
	const struct sock_filter front[] = {
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_KNOWN_NR, 0, 1),
		RETURN(ENOSYS),
		LOAD(arch),
		ON(4, NATIVE_ARCH, NATIVE),
		GO(5, NATIVE + 4),
		/* NATIVE */ LOAD(nr),
		ON(7, NATIVE_IOCTL, IOCTL),
		ON(8, NATIVE_SOCKET, SOCKET),
		GO(9, END),
		/* the 32-bit architecture */ LOAD(nr),
		ON(11, COMPAT_IOCTL, IOCTL),
		ON(12, COMPAT_SOCKET, SOCKET),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, COMPAT_SOCKETCALL, 0, END - 14),
		LOAD(args[0]),
		ON(15, SYS_SOCKET_CALL, REFUSE),
		GO(16, END),
		/* IOCTL */ LOAD(args[1]),
		ON(18, TIOCSTI_CMD, REFUSE),
		ON(19, TIOCLINUX_CMD, REFUSE),
		ON(20, keeps_projects ? FSSETXATTR_CMD : TIOCSTI_CMD, REFUSE),
		ON(21, keeps_projects ? SETFLAGS_CMD : TIOCSTI_CMD, REFUSE),
		ON(22, keeps_projects ? SETFLAGS32_CMD : TIOCSTI_CMD, REFUSE),
		GO(23, END),
		/* SOCKET */ LOAD(args[0]),
		ON(25, 16, NETLINK),
		ON(26, 1 /* UNIX */, END),
		ON(27, 2 /* INET */, END),
		ON(28, 10 /* INET6 */, END),
		ON(29, 17 /* PACKET */, END),
		ON(30, 15 /* KEY */, REFUSE),
		ON(31, 33 /* RXRPC */, REFUSE),
		ON(32, 38 /* ALG */, REFUSE),
		ON(33, 40 /* VSOCK */, REFUSE),
		RETURN(EAFNOSUPPORT),
		/* NETLINK */ LOAD(args[2]),
		ON(36, 0 /* ROUTE */, END),
		ON(37, 4 /* SOCK_DIAG */, END),
		ON(38, 15 /* KOBJECT_UEVENT */, END),
		ON(39, 16 /* GENERIC */, END),
		RETURN(EPROTONOSUPPORT),
		/* REFUSE */ RETURN(EPERM),
	};

	static_assert(N_ELEMENTS(front) == END, "the labels are places in the program");
	memcpy(to, front, sizeof(front));
}

static int export_with_front(
	scmp_filter_ctx ctx, bool keeps_projects, void **ret_filter, size_t *ret_bytes)
{
	AUTO_FD int fd = memfd_create("cloche-seccomp", MFD_CLOEXEC);
	const size_t front_bytes = END * sizeof(struct sock_filter);
	struct stat st;
	char *filter;
	int r;

	if (fd < 0)
		return -errno;
	r = seccomp_export_bpf(ctx, fd);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	filter = malloc(front_bytes + st.st_size);
	if (!filter)
		return -ENOMEM;
	write_front((struct sock_filter *)filter, keeps_projects);
	if (pread(fd, filter + front_bytes, st.st_size, 0) != st.st_size) {
		free(filter);
		return -EIO;
	}
	*ret_filter = filter;
	*ret_bytes = front_bytes + st.st_size;
	return 0;
}

int seccomp_filter_build(enum seccomp_kind kind, bool keeps_projects, void **ret_filter,
	size_t *ret_bytes, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!ctx)
		return err_system(err, -ENOMEM, "seccomp filter");
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = add_compat_arch(ctx);
	if (r == 0)
		r = allow_unconditional(ctx);
	if (r == 0)
		r = allow_by_argument(ctx);
	if (r == 0)
		r = allow_more(ctx, kind);
	if (r == 0)
		r = export_with_front(ctx, keeps_projects, ret_filter, ret_bytes);
	seccomp_release(ctx);
	return r < 0 ? err_system(err, r, "seccomp filter") : 0;
}

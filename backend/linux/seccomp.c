#include "linux/seccomp.h"

#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp_programs.h> /* made by seccomp/make.c */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"

/* The highest number that libseccomp 2.5.4 knows (set_mempolicy_home_node): what is newer has no
 * name here and is answered as if the kernel did not have it. x32 numbers are above it too. */
#define LAST_KNOWN_NR 450
#define TIOCSTI_CMD 0x5412
#define TIOCLINUX_CMD 0x541c
#define FSSETXATTR_CMD 0x401c5820
#define SETFLAGS_CMD 0x40086602
#define SETFLAGS32_CMD 0x40046602

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

static_assert(N_ELEMENTS(seccomp_programs) == N_SECCOMP_KINDS, "one for each kind");

int seccomp_filter_build(enum seccomp_kind kind, bool keeps_projects, void **ret_filter,
	size_t *ret_bytes, struct err *err)
{
	const size_t front_bytes = END * sizeof(struct sock_filter);
	const size_t n_bytes = seccomp_programs[kind].n_ops * sizeof(struct sock_filter);
	char *filter = malloc(front_bytes + n_bytes);

	if (!filter)
		return err_system(err, -ENOMEM, "seccomp filter");
	write_front((struct sock_filter *)filter, keeps_projects);
	memcpy(filter + front_bytes, seccomp_programs[kind].ops, n_bytes);
	*ret_filter = filter;
	*ret_bytes = front_bytes + n_bytes;
	return 0;
}

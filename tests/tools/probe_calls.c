/* probe_calls.c - what the system call filter says, by the native calls, by the 32-bit ones (int 0x80)
 * and by x32 numbers. The arguments are such that a call which gets through does no harm. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif

static long native(long nr, long a, long b, long c)
{
	long r = syscall(nr, a, b, c, -1L, -1L, -1L);

	return r < 0 ? -errno : r;
}

#ifdef __x86_64__
static long compat(long nr, long a, long b, long c)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(-1L), "D"(-1L)
			 : "memory", "cc", "r8", "r9", "r10", "r11");
	return (int)result;
}
#else
static long compat(long nr, long a, long b, long c)
{
	(void)nr, (void)a, (void)b, (void)c;
	return -ENOSYS;
}
#endif

static long x32(long nr, long a, long b, long c)
{
	return native(nr | 0x40000000, a, b, c);
}

struct call {
	const char *name;
	long nr, compat_nr; /* -1: not there */
	long a;
};

#define CALL(name, compat_nr)                                                                      \
	{                                                                                          \
#name, SYS_##name, compat_nr, -1                                                   \
	}

static const struct call calls[] = {
	{ "unshare-user", SYS_unshare, 310, CLONE_NEWUSER },
	{ "unshare-mnt", SYS_unshare, 310, CLONE_NEWNS },
	{ "unshare-cgroup", SYS_unshare, 310, CLONE_NEWCGROUP },
	{ "unshare-time", SYS_unshare, 310, CLONE_NEWTIME },
	{ "clone-user", SYS_clone, 120, CLONE_NEWUSER | SIGCHLD },
	{ "clone-net", SYS_clone, 120, CLONE_NEWNET | SIGCHLD },
	{ "clone-cgroup", SYS_clone, 120, CLONE_NEWCGROUP | SIGCHLD },
	{ "personality-odd", SYS_personality, 136, 0x0040000 },
	{ "unknown-1000", 1000, 1000, -1 },
	{ "unknown-5000", 5000, 5000, -1 },
	CALL(setns, 346),
	CALL(clone3, 435),
	CALL(mount, 21),
	CALL(umount2, 52),
	CALL(pivot_root, 217),
	CALL(fsopen, 430),
	CALL(fsconfig, 431),
	CALL(fsmount, 432),
	CALL(fspick, 433),
	CALL(open_tree, 428),
	CALL(move_mount, 429),
	CALL(mount_setattr, 442),
	CALL(open_tree_attr, 467),
	CALL(keyctl, 288),
	CALL(add_key, 286),
	CALL(request_key, 287),
	CALL(io_uring_setup, 425),
	CALL(io_uring_enter, 426),
	CALL(io_uring_register, 427),
	CALL(bpf, 357),
	CALL(userfaultfd, 374),
	CALL(perf_event_open, 336),
	CALL(kexec_load, 283),
	CALL(kexec_file_load, -1),
	CALL(init_module, 128),
	CALL(finit_module, 350),
	CALL(delete_module, 129),
	CALL(swapon, 87),
	CALL(swapoff, 115),
	CALL(reboot, 88),
	CALL(acct, 51),
	CALL(settimeofday, 79),
	CALL(clock_settime, 264),
	CALL(iopl, 110),
	CALL(ioperm, 101),
	CALL(quotactl, 131),
	CALL(quotactl_fd, 443),
	CALL(nfsservctl, 169),
	CALL(open_by_handle_at, 342),
	CALL(lookup_dcookie, 253),
	CALL(vhangup, 111),
	CALL(syslog, 103),
	CALL(move_pages, 317),
	CALL(migrate_pages, 294),
	CALL(mbind, 274),
	CALL(set_mempolicy, 276),
	CALL(kcmp, 349),
	CALL(process_madvise, 440),
	CALL(pidfd_getfd, 438),
	CALL(fanotify_init, 338),
	CALL(sethostname, 74),
	CALL(setdomainname, 121),
};

int cmd_syscalls(int argc, char **argv)
{
	const char *abi = argc > 1 ? argv[1] : "native";

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const struct call *c = &calls[i];
		long result;

		if (!strcmp(abi, "i386") && c->compat_nr < 0)
			continue;
		long second = !strncmp(c->name, "clone-", 6) ? 0 : -1;

		if (!strcmp(abi, "i386"))
			result = compat(c->compat_nr, c->a, second, second);
		else if (!strcmp(abi, "x32"))
			result = x32(c->nr, c->a, second, second);
		else
			result = native(c->nr, c->a, second, second);
		if (second == 0 && result == 0)
			_exit(0); /* the child of a clone that got through */
		print_result(abi, c->name, result);
	}
	/* What the kernel ends a program for under a bad filter, and what must go on working. */
	print_result(abi, "getpid",
		!strcmp(abi, "i386")          ? compat(20, 0, 0, 0)
			: !strcmp(abi, "x32") ? x32(SYS_getpid, 0, 0, 0)
					      : native(SYS_getpid, 0, 0, 0));
	return 0;
}

static const struct {
	const char *name;
	int domain, type, protocol;
} sockets[] = {
	{ "unix", 1, SOCK_STREAM, 0 },
	{ "inet", 2, SOCK_STREAM, 0 },
	{ "inet6", 10, SOCK_STREAM, 0 },
	{ "inet-raw", 2, SOCK_RAW, 1 },
	{ "netlink-route", 16, SOCK_RAW, 0 },
	{ "netlink-sock-diag", 16, SOCK_RAW, 4 },
	{ "netlink-xfrm", 16, SOCK_RAW, 6 },
	{ "netlink-netfilter", 16, SOCK_RAW, 12 },
	{ "netlink-audit", 16, SOCK_RAW, 9 },
	{ "netlink-crypto", 16, SOCK_RAW, 21 },
	{ "ax25", 3, SOCK_DGRAM, 0 },
	{ "ipx", 4, SOCK_DGRAM, 0 },
	{ "x25", 9, SOCK_SEQPACKET, 0 },
	{ "key", 15, SOCK_RAW, 2 },
	{ "rds", 21, SOCK_SEQPACKET, 0 },
	{ "can", 29, SOCK_RAW, 1 },
	{ "tipc", 30, SOCK_STREAM, 0 },
	{ "bluetooth", 31, SOCK_RAW, 1 },
	{ "rxrpc", 33, SOCK_DGRAM, 2 },
	{ "alg", 38, SOCK_SEQPACKET, 0 },
	{ "vsock", 40, SOCK_STREAM, 0 },
	{ "smc", 43, SOCK_STREAM, 0 },
	{ "xdp", 44, SOCK_RAW, 0 },
	{ "mctp", 45, SOCK_DGRAM, 0 },
};

int cmd_sockets(int argc, char **argv)
{
	const char *abi = argc > 1 ? argv[1] : "native";
	static unsigned int block[3]; /* below 4 GiB, for the 32-bit call */

	for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
		long domain = sockets[i].domain, type = sockets[i].type,
		     protocol = sockets[i].protocol;
		long fd;

		block[0] = (unsigned int)domain;
		block[1] = (unsigned int)type;
		block[2] = (unsigned int)protocol;
		if (!strcmp(abi, "i386"))
			fd = compat(359, domain, type, protocol);
		else if (!strcmp(abi, "socketcall"))
			fd = compat(102, 1, (long)block, 0);
		else if (!strcmp(abi, "high")) /* the upper half of an int argument is nothing */
			fd = native(SYS_socket, domain | 1L << 32, type, protocol);
		else
			fd = native(SYS_socket, domain, type, protocol);
		print_result(abi, sockets[i].name, fd);
		if (fd >= 0)
			close((int)fd);
	}
	return 0;
}

/* On a terminal at descriptor 0. */
int cmd_terminal(int argc, char **argv)
{
	(void)argc, (void)argv;
	static const struct {
		const char *name;
		unsigned long command;
	} list[] = { { "TIOCSTI", 0x5412 }, { "TIOCLINUX", 0x541c } };
	static char byte[2] = "x";

	for (int i = 0; i < 2; i++) {
		long command = (long)list[i].command;

		print_result("native", list[i].name, native(SYS_ioctl, 0, command, (long)byte));
		print_result(
			"high", list[i].name, native(SYS_ioctl, 0, command | 1L << 32, (long)byte));
		print_result("i386", list[i].name, compat(54, 0, command, (long)byte));
	}
	print_result(
		"native", "TIOCGWINSZ", native(SYS_ioctl, 0, TIOCGWINSZ, (long)(char[16]){ 0 }));
	return 0;
}

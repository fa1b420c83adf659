#include "inject_transfers.h"

#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEAST_BYTES 64 /* shorter ones are records, which pipes keep whole */
#define RED_ZONE_BYTES 128

struct transfer {
	struct user_regs_struct regs;
};

enum kind { OTHER, PACKETS, PIPE, STREAM };

static enum kind kind_of(pid_t pid, int number)
{
	int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0), type = 0;
	int fd = pid_fd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pid_fd, number, 0);
	socklen_t size = sizeof(type);
	enum kind kind = OTHER;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0) {
		if (S_ISFIFO(st.st_mode))
			kind = PIPE;
		else if (S_ISSOCK(st.st_mode) &&
			getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0)
			kind = type == SOCK_STREAM ? STREAM : PACKETS;
		else if (S_ISCHR(st.st_mode) &&
			(major(st.st_rdev) == 5 || (major(st.st_rdev) & ~7U) == 136))
			kind = STREAM;
	}
	if (fd >= 0)
		close(fd);
	if (pid_fd >= 0)
		close(pid_fd);
	return kind;
}

bool call_may_block(pid_t pid, long nr, const uint64_t args[6])
{
	switch (nr) {
	case SYS_poll:
	case SYS_ppoll:
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
		return true;
	case SYS_wait4:
		return !(args[2] & WNOHANG);
	case SYS_waitid:
		return !(args[3] & WNOHANG);
	case SYS_splice:
		return kind_of(pid, (int)args[0]) != OTHER || kind_of(pid, (int)args[2]) != OTHER;
	default:
		return kind_of(pid, (int)args[0]) != OTHER;
	}
}

/* ---- how much is asked for ------------------------------------------------------------------- */

static void peek(pid_t pid, uint64_t address, void *ret, size_t n_bytes)
{
	struct iovec here = { ret, n_bytes }, there = { (void *)address, n_bytes };

	memset(ret, 0, n_bytes);
	process_vm_readv(pid, &here, 1, &there, 1, 0);
}

/* The parts of what is given in parts; 0 if it is not. */
static size_t parts_of(pid_t pid, long nr, const uint64_t args[6], struct iovec parts[4])
{
	struct msghdr message = { .msg_iov = (void *)args[1], .msg_iovlen = args[2] };

	if (nr == SYS_sendmsg)
		peek(pid, args[1], &message, sizeof(message));
	else if (nr != SYS_readv && nr != SYS_writev)
		return 0;
	if (message.msg_iovlen > 4)
		message.msg_iovlen = 4;
	peek(pid, (uint64_t)message.msg_iov, parts, message.msg_iovlen * sizeof(*parts));
	return message.msg_iovlen;
}

static size_t wanted_bytes(pid_t pid, long nr, const uint64_t args[6])
{
	struct iovec parts[4];
	size_t n_parts = parts_of(pid, nr, args, parts), n_bytes = 0;

	if (!n_parts)
		return nr == SYS_splice || nr == SYS_copy_file_range ? args[4] : args[2];
	for (size_t i = 0; i < n_parts; i++)
		n_bytes += parts[i].iov_len;
	return n_bytes;
}

static size_t least_bytes(enum kind kind, long nr)
{
	return kind == PIPE && (nr == SYS_write || nr == SYS_writev) ? PIPE_BUF : LEAST_BYTES;
}

bool transfer_may_be_short(pid_t pid, long nr, const uint64_t args[6])
{
	enum kind kind;

	if (nr == SYS_copy_file_range)
		return args[4] > 1;
	kind = kind_of(pid, (int)args[0]);
	if (nr == SYS_splice && kind == OTHER)
		kind = kind_of(pid, (int)args[2]);
	return (kind == PIPE || kind == STREAM) &&
		wanted_bytes(pid, nr, args) > least_bytes(kind, nr);
}

/* ---- less of it ------------------------------------------------------------------------------ */

/* One part, below what the thread has on its stack. */
static uint64_t put_part(pid_t pid, const struct user_regs_struct *regs, const struct iovec *part,
	const struct msghdr *message)
{
	struct {
		struct iovec part;
		struct msghdr message;
	} copy = { .part = *part };
	uint64_t at = (regs->rsp - RED_ZONE_BYTES - sizeof(copy)) & ~15ULL;
	struct iovec here = { &copy, sizeof(copy) }, there = { (void *)at, sizeof(copy) };

	if (message) {
		copy.message = *message;
		copy.message.msg_iov = (void *)at;
		copy.message.msg_iovlen = 1;
	}
	process_vm_writev(pid, &here, 1, &there, 1, 0);
	return message ? at + sizeof(copy.part) : at;
}

static void shorten_parts(pid_t pid, long nr, struct user_regs_struct *regs, struct iovec *parts,
	size_t n_parts, size_t n_bytes)
{
	struct msghdr message;
	size_t i = 0;

	while (i + 1 < n_parts && parts[i].iov_len == 0)
		i++;
	if (parts[i].iov_len > n_bytes)
		parts[i].iov_len = n_bytes;
	if (nr == SYS_sendmsg)
		peek(pid, regs->rsi, &message, sizeof(message));
	regs->rsi = put_part(pid, regs, &parts[i], nr == SYS_sendmsg ? &message : NULL);
	if (nr != SYS_sendmsg)
		regs->rdx = 1;
}

struct transfer *transfer_shorten(pid_t thread, pid_t pid, long nr)
{
	struct transfer *transfer = malloc(sizeof(*transfer));
	struct user_regs_struct regs;
	struct iovec parts[4];
	size_t n_parts, n_bytes;

	ptrace(PTRACE_GETREGS, thread, NULL, &transfer->regs);
	regs = transfer->regs;
	n_parts = parts_of(thread, nr, (uint64_t[6]){ regs.rdi, regs.rsi, regs.rdx }, parts);
	n_bytes = kind_of(pid, (int)regs.rdi) == PIPE && (nr == SYS_write || nr == SYS_writev)
		? PIPE_BUF
		: 1;
	if (n_parts)
		shorten_parts(thread, nr, &regs, parts, n_parts, n_bytes);
	else if (nr == SYS_splice || nr == SYS_copy_file_range)
		regs.r8 = n_bytes;
	else
		regs.rdx = n_bytes;
	ptrace(PTRACE_SETREGS, thread, NULL, &regs);
	return transfer;
}

void transfer_restore(pid_t thread, struct transfer **take_transfer)
{
	struct transfer *transfer = *take_transfer;
	struct user_regs_struct regs;

	ptrace(PTRACE_GETREGS, thread, NULL, &regs);
	transfer->regs.rax = regs.rax;
	transfer->regs.rip = regs.rip;
	transfer->regs.orig_rax = regs.orig_rax;
	ptrace(PTRACE_SETREGS, thread, NULL, &transfer->regs);
	free(transfer);
	*take_transfer = NULL;
}

bool runs_our_program(pid_t pid)
{
	char path[64], program[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, program, sizeof(program) - 1);
	program[n < 0 ? 0 : n] = '\0';
	return strstr(program, "cloche") != NULL;
}

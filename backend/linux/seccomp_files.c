#include "linux/seccomp.h"

#include <errno.h>
#include <seccomp.h>

#include "base/auto.h"
#include "base/err.h"

#define THREAD_FLAG 0x00010000 /* CLONE_THREAD */
/* NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET, bit by bit */
static const uint64_t namespace_flags[] = { 0x00020000, 0x02000000, 0x04000000, 0x08000000,
	0x10000000, 0x20000000, 0x40000000 };

/* Other programs, other processes, other namespaces and mounts, sockets, and the parts of the
 * kernel that have been ways into it. */
static const char *const denied[] = { "execve", "execveat", "fork", "vfork", "ptrace",
	"process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_open",
	"pidfd_getfd", "pidfd_send_signal", "unshare", "setns", "mount", "umount2", "pivot_root",
	"chroot", "move_mount", "open_tree", "mount_setattr", "fsopen", "fsconfig", "fsmount",
	"fspick", "open_by_handle_at", "socket", "socketpair", "socketcall", "bpf",
	"perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"add_key", "request_key", "keyctl", "memfd_create", "memfd_secret", "init_module",
	"finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon",
	"swapoff", "acct", "quotactl", "quotactl_fd", "sethostname", "setdomainname", "syslog",
	"settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "fanotify_init",
	"personality", "modify_ldt", "ioperm", "iopl", "lookup_dcookie", "vhangup", "shmat",
	"msgget", "semget" };

static int deny(scmp_filter_ctx ctx, const char *name)
{
	int nr = seccomp_syscall_resolve_name(name);

	return nr == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 0);
}

/* A filter cannot see the flags of clone3: without it glibc makes its threads by clone. */
static int deny_all_clones_but_threads(scmp_filter_ctx ctx)
{
	int r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
			SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, THREAD_FLAG, 0));
	for (size_t i = 0; i < N_ELEMENTS(namespace_flags) && r == 0; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
			SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, namespace_flags[i], namespace_flags[i]));
	return r;
}

int seccomp_confine_to_files(struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int r;

	if (!ctx)
		return err_system(err, -ENOMEM, "seccomp filter");
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	for (size_t i = 0; i < N_ELEMENTS(denied) && r == 0; i++)
		r = deny(ctx, denied[i]);
	if (r == 0)
		r = deny_all_clones_but_threads(ctx);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r < 0 ? err_system(err, r, "seccomp filter") : 0;
}

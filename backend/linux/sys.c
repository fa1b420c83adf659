#include "linux/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/guard.h"
#include "base/memfd.h"

static inline int result(long r)
{
	return r < 0 ? -errno : (int)r;
}

int sys_open_at(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
		.resolve = resolve };
	long fd = -1;

	for (int tries = 0; tries < 32; tries++) {
		fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return result(fd);
}

int sys_open_in_root(int dir_fd, const char *path, int flags, mode_t mode)
{
	return sys_open_at(dir_fd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int sys_open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
	return sys_open_at(dir_fd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
}

ssize_t sys_read_small(
	int dir_fd, const char *path, uint64_t resolve, char *space, size_t cap_bytes)
{
	AUTO_FD int fd = sys_open_at(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, resolve);
	struct stat st;
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	while ((n = read(fd, space + len, cap_bytes - len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += n;
		if (len == cap_bytes)
			return -EFBIG;
	}
	space[len] = '\0';
	return len;
}

int sys_write_file(int dir_fd, const char *path, const char *text)
{
	AUTO_FD int fd = sys_open_at(dir_fd, path, O_WRONLY, 0, 0);
	size_t len = strlen(text);
	ssize_t n;

	if (fd < 0)
		return fd;
	do
		n = write(fd, text, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

pid_t sys_clone3(const struct clone_args *args)
{
	return result(syscall(SYS_clone3, args, sizeof(*args)));
}

int sys_pidfd_open(pid_t pid)
{
	return result((int)syscall(SYS_pidfd_open, pid, 0));
}

int sys_setns(int fd, int types)
{
	return result(setns(fd, types));
}

int sys_unshare(int flags)
{
	return result(unshare(flags));
}

void sys_default_signals(void)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} standard = { 0 };

	for (int signo = 1; signo <= 64; signo++)
		syscall(SYS_rt_sigaction, signo, &standard, NULL, sizeof(standard.mask));
}

int sys_close_from(int first_fd)
{
	return result(syscall(SYS_close_range, first_fd, ~0U, 0));
}

int sys_getcwd(char *path, size_t n_bytes)
{
	return result(syscall(SYS_getcwd, path, n_bytes));
}

int sys_new_session_keyring(void)
{
	return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ? -errno : 0;
}

int sys_fsopen(const char *type)
{
	return result(fsopen(type, FSOPEN_CLOEXEC));
}

int sys_fsconfig_flag(int fs_fd, const char *key)
{
	return result(fsconfig(fs_fd, FSCONFIG_SET_FLAG, key, NULL, 0));
}

void sys_close_but(int first_fd, int keep[], size_t n_keep)
{
	for (size_t i = 0; i < n_keep; i++) {
		size_t least = i;
		int fd;

		for (size_t k = i + 1; k < n_keep; k++)
			if (keep[k] < keep[least])
				least = k;
		fd = keep[least];
		keep[least] = keep[i];
		keep[i] = fd;
		if (fd > first_fd)
			close_range((unsigned)first_fd, (unsigned)fd - 1, 0);
		if (fd >= first_fd)
			first_fd = fd + 1;
	}
	sys_close_from(first_fd);
}

int sys_fsconfig_string(int fs_fd, const char *key, const char *value)
{
	return result(fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value, 0));
}

int sys_fsconfig_create(int fs_fd)
{
	return result(fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
}

int sys_fsmount(int fs_fd, uint64_t attrs)
{
	return result(fsmount(fs_fd, FSMOUNT_CLOEXEC, attrs));
}

int sys_open_tree(int dir_fd, const char *path, unsigned flags)
{
	return result(open_tree(dir_fd, path, flags | OPEN_TREE_CLOEXEC));
}

int sys_mount_setattr(int mount_fd, unsigned flags, const struct mount_attr *attr)
{
	return result(
		mount_setattr(mount_fd, "", flags | AT_EMPTY_PATH, (void *)attr, sizeof(*attr)));
}

int sys_move_mount(int from_fd, int to_fd)
{
	return result(move_mount(
		from_fd, "", to_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

int sys_make_private(const char *path)
{
	return result(mount(NULL, path, NULL, MS_REC | MS_PRIVATE, NULL));
}

int sys_mount_overlay(const char *mount_point, const char *layers, unsigned long flags)
{
	return result(mount("overlay", mount_point, "overlay", flags, layers));
}

int sys_pivot_into(int root_fd)
{
	if (fchdir(root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
		umount2(".", MNT_DETACH) < 0)
		return -errno;
	return result(chdir("/"));
}

int sys_sealed_memfd(const char *name, const void *data, size_t n_bytes)
{
	AUTO_FD int fd = memfd_of(name, data, n_bytes);
	int r;

	if (fd < 0)
		return fd;
	if (!GUARD(SEAL))
		return TAKE_FD(fd);
	r = fchmod(fd, 0500) < 0 ? -errno : memfd_seal(fd);
	return r < 0 ? r : TAKE_FD(fd);
}

int sys_seccomp_load(const void *filter, size_t n_bytes)
{
	struct sock_fprog program = { .len = n_bytes / sizeof(struct sock_filter),
		.filter = (struct sock_filter *)filter };

	return result(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
}

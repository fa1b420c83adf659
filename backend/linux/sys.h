/* sys.h - system calls that have no C library wrapper or a wrapper with -1 and errno.
 * Descriptor or 0, or a negative errno; no text, no heap: safe between clone and exec.
 * Each name is its manual page's (section 2) unless said. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct clone_args;
struct mount_attr;

/* openat2(2) with O_CLOEXEC added; EAGAIN (a rename raced with the walk) is retried a few times. */
int sys_open_at(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve);

/* A path below dir_fd as a process inside would see it: symbolic links stay within dir_fd, magic
 * links are refused. For trees that others can write. */
int sys_open_in_root(int dir_fd, const char *path, int flags, mode_t mode);

/* A path below dir_fd that follows no symbolic link and leaves the tree by no "..". */
int sys_open_beneath(int dir_fd, const char *path, int flags, mode_t mode);

/* The whole of a small regular file, at most cap_bytes, NUL-terminated; opened without blocking and
 * without trust: -EINVAL if it is no regular file, -EFBIG if longer. Returns the length. */
ssize_t sys_read_small(
	int dir_fd, const char *path, uint64_t resolve, char *space, size_t cap_bytes);

int sys_write_file(int dir_fd, const char *path, const char *text);

pid_t sys_clone3(const struct clone_args *args);
int sys_pidfd_open(pid_t pid);
int sys_setns(int fd, int types);
int sys_unshare(int flags);
/* Default action for every signal, those that the C library keeps for itself too (it ignores them
 * in what posix_spawn starts, and that would be inherited). */
void sys_default_signals(void);
int sys_close_from(int first_fd);
/* All from first_fd on but those, which are put in order; -1 is none. */
void sys_close_but(int first_fd, int keep[], size_t n_keep);
int sys_getcwd(
	char *path, size_t n_bytes); /* the kernel's own: "(unreachable)" outside of the root */
int sys_new_session_keyring(void); /* keyctl(2) KEYCTL_JOIN_SESSION_KEYRING, anonymous */

int sys_fsopen(const char *type);
int sys_fsconfig_flag(int fs_fd, const char *key);
int sys_fsconfig_string(int fs_fd, const char *key, const char *value);
int sys_fsconfig_create(int fs_fd);
int sys_fsmount(int fs_fd, uint64_t attrs);
int sys_open_tree(int dir_fd, const char *path, unsigned flags);
int sys_mount_setattr(int mount_fd, unsigned flags, const struct mount_attr *attr);
int sys_move_mount(int from_fd, int to_fd); /* both by descriptor alone */
int sys_make_private(const char *path); /* recursively */
/* mount(2): fsconfig(2) takes no value over 255 bytes, and a list of layers is longer. Layers and
 * mount point may be relative to the working directory. */
int sys_mount_overlay(const char *mount_point, const char *layers, unsigned long flags);
int sys_pivot_into(int root_fd); /* pivot_root(".", "."), the old root detached */

/* A memfd that holds a copy of data, sealed against every change. */
int sys_sealed_memfd(const char *name, const void *data, size_t n_bytes);

/* Puts a seccomp filter (an array of struct sock_filter) into force for this thread and what it
 * makes from now on. Needs CAP_SYS_ADMIN in the user namespace, or no_new_privs. */
int sys_seccomp_load(const void *filter, size_t n_bytes);

/* seccomp.h - the default system call filter (reference: security.md 2.3). Made by
 * libseccomp when cloche is built (seccomp/make.c), loaded by init before it gives up CAP_SYS_ADMIN: everything in the
 * container inherits it. Allowed calls stand in seccomp_allow.def. Denied known ones give EPERM,
 * some ENOSYS (so that programs fall back), numbers nobody knows give ENOSYS. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct err;

/* What else is let through, each with what stands before it. */
enum seccomp_kind { SECCOMP_DEFAULT, SECCOMP_MOUNTS, SECCOMP_NAMESPACES, N_SECCOMP_KINDS };

/* *ret_filter is an array of struct sock_filter in *ret_bytes bytes; the caller frees it.
 * sys_seccomp_load (sys.h) puts it into force.
 *
 * keeps_projects: flags of files cannot be changed. On a file of the image an overlay copies it up first,
 * and then sets the flags with the rights of who mounted it: the copy would leave the project by which
 * the container's disk is limited. */
int seccomp_filter_build(enum seccomp_kind kind, bool keeps_projects, void **ret_filter,
	size_t *ret_bytes, struct err *err);

/* The calling process, for good: from now on it can read and write files and make threads, and start
 * or reach no other program or process, make no socket, mount or namespace. Needs no_new_privs, which
 * it sets. Threads: before there are others. A list of what is denied, not of what is allowed: the
 * libraries of a parser may call what we do not know of; Landlock and capabilities are the first line. */
int seccomp_confine_to_files(struct err *err);

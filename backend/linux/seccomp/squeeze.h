/* squeeze.h - a shorter filter with the same answers. libseccomp compares the number of a call with one number
 * after the other; the kernel translates every comparison anew for each container. Used while cloche is built. */
#pragma once
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>

#define SQUEEZE_MAX_OPS BPF_MAXINSNS
#define SQUEEZE_ARCHS 2

struct squeezed {
	struct sock_filter ops[SQUEEZE_MAX_OPS];
	size_t n_ops;
};

/* Ranges of numbers with the same answer are found by halving; what the program does from its first look at an argument on
 * is taken as it is. archs: AUDIT_ARCH_*, those that the program knows; it treats all others alike. -EINVAL: the program does
 * with a number what ranges cannot express; -E2BIG: a jump is too long; -EBADMSG: the answers would differ. */
int seccomp_squeeze(const struct sock_filter *ops, size_t n_ops,
	const uint32_t archs[SQUEEZE_ARCHS], struct squeezed *ret);

/* alloc.h - allocations that fail on demand. Include it in one test program: it puts itself before the
 * C library's malloc, calloc and realloc. Sanitizers bring their own allocator: there, alloc_can_fail
 * is 0 and tests that need it skip themselves. One thread only. */
#pragma once
#include <errno.h>
#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define alloc_can_fail 0
static void alloc_fail_at(long n)
{
	(void)n;
}
static int alloc_has_failed(void)
{
	return 0;
}
#else
#define alloc_can_fail 1
extern void *__libc_malloc(size_t n_bytes);
extern void *__libc_calloc(size_t n, size_t n_bytes);
extern void *__libc_realloc(void *old, size_t n_bytes);

static long alloc_countdown;
static int alloc_failed;

/* The n-th allocation from here on fails, once; 0: none does. */
static void alloc_fail_at(long n)
{
	alloc_countdown = n;
	alloc_failed = 0;
}

/* Whether that has come to pass. Disarms. */
static int alloc_has_failed(void)
{
	alloc_countdown = 0;
	return alloc_failed;
}

static int alloc_fails_now(void)
{
	if (alloc_countdown <= 0 || --alloc_countdown > 0)
		return 0;
	alloc_failed = 1;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t n_bytes)
{
	return alloc_fails_now() ? NULL : __libc_malloc(n_bytes);
}

void *calloc(size_t n, size_t n_bytes)
{
	return alloc_fails_now() ? NULL : __libc_calloc(n, n_bytes);
}

void *realloc(void *old, size_t n_bytes)
{
	return alloc_fails_now() ? NULL : __libc_realloc(old, n_bytes);
}
#endif

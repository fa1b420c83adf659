#include "base/fault.h"

#ifdef HAS_FAULTS
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/auto.h"
#include "base/err.h"

static const char *const names[N_FAULTS] = {
#define FAULT_POINT(name, fails) [FAULT_##name] = #name,
#include "base/fault.def"
#undef FAULT_POINT
};

static enum fault wanted = N_FAULTS;
static _Atomic uint64_t countdown;
static const char *action;
static struct fault_heap *heap; /* NULL: it never fails */

/* ---- points ---------------------------------------------------------------------------------- */

static uint64_t number(const char *digits)
{
	uint64_t n = 0;

	while (*digits >= '0' && *digits <= '9')
		n = n * 10 + (uint64_t)(*digits++ - '0');
	return n;
}

/* A copy: shims get the environment as it was. */
static void parse_point(const char *given)
{
	static char copy[80];
	char *text = copy, *name, *n;

	snprintf(copy, sizeof(copy), "%s", given);
	name = strsep(&text, ":");
	n = strsep(&text, ":");
	for (int i = 0; i < N_FAULTS; i++)
		if (text && !strcmp(names[i], name))
			wanted = (enum fault)i;
	if (wanted == N_FAULTS)
		abort(); /* a test that names nothing proves nothing */
	countdown = number(n);
	action = text;
}

static int errno_of(const char *name)
{
	for (int code = 1; code < 200; code++)
		if (strerrorname_np(code) && !strcmp(strerrorname_np(code), name))
			return code;
	abort();
}

static void delay(uint64_t ms)
{
	struct timespec left = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		continue;
}

int fault_at(enum fault fault, struct err *err)
{
	if (fault != wanted || atomic_fetch_sub(&countdown, 1) != 1)
		return 0;
	if (!strcmp(action, "kill"))
		raise(SIGKILL);
	if (strncmp(action, "delay=", 6) != 0)
		return err_system(err, -errno_of(action), "failure point %s", names[fault]);
	delay(number(action + 6));
	return 0;
}

/* ---- the heap -------------------------------------------------------------------------------- */

static bool is_refused(void)
{
	uint64_t at = heap ? heap->fail_at : 0, n;

	if (!at)
		return false;
	n = atomic_fetch_add(&heap->n_calls, 1) + 1;
	if (n < at || (n > at && !heap->is_lasting))
		return false;
	atomic_fetch_add(&heap->n_failed, 1);
	errno = ENOMEM;
	return true;
}

/* The linker calls these where our objects call the C library's: see WRAP in the Makefile. */
#define WRAPPED(type, name, parameters, ...)                                                       \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return is_refused() ? NULL : __real_##name(__VA_ARGS__);                           \
	}

WRAPPED(void *, malloc, (size_t n_bytes), n_bytes)
WRAPPED(void *, calloc, (size_t n, size_t n_bytes), n, n_bytes)
WRAPPED(void *, realloc, (void *old, size_t n_bytes), old, n_bytes)
WRAPPED(char *, strdup, (const char *text), text)
WRAPPED(char *, strndup, (const char *text, size_t n_bytes), text, n_bytes)

int __real_vasprintf(char **ret, const char *format, va_list args);
int __wrap_vasprintf(char **ret, const char *format, va_list args);
int __wrap_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));

int __wrap_vasprintf(char **ret, const char *format, va_list args)
{
	return is_refused() ? -1 : __real_vasprintf(ret, format, args);
}

int __wrap_asprintf(char **ret, const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = __wrap_vasprintf(ret, format, args);
	va_end(args);
	return r;
}

/* ---- start ----------------------------------------------------------------------------------- */

static void map_heap(const char *path, bool is_shim)
{
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	struct fault_heap *both =
		mmap(NULL, 2 * sizeof(*heap), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (both == MAP_FAILED)
		abort();
	heap = &both[is_shim];
}

__attribute__((constructor)) static void fault_begin(int argc, char **argv)
{
	const char *point = getenv("CLOCHE_FP"), *path = getenv("CLOCHE_HEAP");

	if (point)
		parse_point(point);
	if (path)
		map_heap(path, argc == 2 && !strcmp(argv[0], "cloche-shim"));
}
#endif

/* deny.c - `deny SYSCALL ERRNO COMMAND...` runs a command in which one system call always fails.
 * ERRNO is a number or a name (ENOSYS). Forces the paths that are taken where the kernel lacks it. */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int errno_of(const char *text)
{
	for (int code = 1; code < 200; code++) {
		const char *name = strerrorname_np(code);

		if (name && !strcmp(name, text))
			return code;
	}
	return (int)strtol(text, NULL, 10);
}

static int fail(const char *what, int code)
{
	fprintf(stderr, "deny: %s: %s\n", what, strerror(code));
	return 125;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: deny SYSCALL ERRNO COMMAND...\n");
		return 125;
	}
	int nr = seccomp_syscall_resolve_name(argv[1]), code = errno_of(argv[2]);
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	if (nr == __NR_SCMP_ERROR || code <= 0)
		return fail(nr == __NR_SCMP_ERROR ? argv[1] : argv[2], EINVAL);
	if (!filter)
		return fail("filter", ENOMEM);
	/* The command may be one that must not lose its set-user-id bits, and we are root here. */
	int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned int)code), nr, 0);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	if (r < 0)
		return fail("filter", -r);
	execvp(argv[3], argv + 3);
	return fail(argv[3], errno);
}

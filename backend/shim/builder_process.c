/* Runs in children of the shim too: system calls only (tests/lint/child.allow). */
#include "shim/builder_process.h"

#include <stddef.h>
#include <string.h>

#include "linux/sys.h"

int process_open(int proc_fd, pid_t pid, const char *name, int flags)
{
	char path[64], digits[16];
	size_t n = 0, len = 0;

	for (; pid; pid /= 10)
		digits[n++] = (char)('0' + pid % 10);
	while (n)
		path[len++] = digits[--n];
	path[len++] = '/';
	memcpy(path + len, name, strlen(name) + 1);
	return sys_open_at(proc_fd, path, flags, 0, 0);
}

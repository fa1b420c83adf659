/* spawn.h - programs of our own, started by posix_spawn(3) from a sealed memfd or from ourselves:
 * the server never forks. */
#pragma once
#include <sys/types.h>

/* Descriptors are borrowed; -1 stands for none. */
struct spawn {
	int exe_fd; /* the program */
	const char *const *argv; /* borrowed; ends in NULL */
	int stdin_fd, stdout_fd, stderr_fd; /* none: /dev/null */
	int extra_fd; /* becomes descriptor 3 */
	int more_fd; /* becomes descriptor 4; none: 0 */
	char *const *envp; /* borrowed; ends in NULL; NULL: an empty environment */
};

/* Starts it with default signals, in a session of its own. The pid or -errno; the caller waits for it. */
pid_t spawn_program(const struct spawn *spawn);

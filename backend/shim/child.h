/* child.h - from a fork of init to the user's program. Runs in the container, with init's seccomp
 * filter already in force. System calls only: no heap, no stdio, no locks (tests/lint/child.allow).
 */
#pragma once
#include <stdint.h>

struct program_wire;

/* fds: what become 0, 1, 2 and the report (for a terminal, fds[0] is its slave and serves for all
 * three). program is checked and writable. A failure is reported on fds[3]. own_bounding: the
 * bounding set that init has already. */
_Noreturn void child_become(struct program_wire *program, const int fds[4], uint64_t own_bounding);

/* landlock.h - gives up for good what a process may do with files, except beneath named directories
 * (landlock(7)). Needs no_new_privs or CAP_SYS_ADMIN. Once in force, this process and what it forks
 * change no mounts any more either. Threads: before there are others. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct landlock_tree {
	int dir_fd; /* O_PATH will do; borrowed */
	bool writable; /* else reading alone */
};

/* The version of the kernel's interface, from 1 on; or -errno: -ENOSYS, -EOPNOTSUPP (switched off). */
int landlock_version(void);

/* 0 too where the kernel has no Landlock, or one that cannot make hard links (before 5.19);
 * else -errno. */
int landlock_confine(const struct landlock_tree trees[], size_t n_trees);

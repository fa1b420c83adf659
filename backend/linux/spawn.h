/* spawn.h - programs of our own, started by posix_spawn(3) from a sealed memfd or from ourselves:
 * the server never forks. */
#pragma once
#include <sys/types.h>

/* Starts the program that lies in exe_fd with an empty environment, default signals, fds 0-2 on
 * /dev/null (err_fd, if >= 0, as 2) and extra_fd as descriptor 3 (-1: none). The pid or -errno;
 * the caller waits for it. argv is borrowed. */
pid_t spawn_program(int exe_fd, const char *const argv[], int stdin_fd, int err_fd, int extra_fd);

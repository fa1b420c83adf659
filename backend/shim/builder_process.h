/* builder_process.h - what a procfs has of a process of ours that nobody has reaped. */
#pragma once
#include <sys/types.h>

/* "<pid>/<name>" below proc_fd, a descriptor or -errno. name is shorter than 48 bytes. */
int process_open(int proc_fd, pid_t pid, const char *name, int flags);

/* probe.h - what the parts of the probe share. Every command prints lines of words; a result is "ok"
 * or the name of an errno. */
#pragma once
#include <stdbool.h>

const char *result_name(long result); /* 0 and up: "ok"; -errno: its name */
void print_result(const char *what, const char *object, long result);

int cmd_mounts(int argc, char **argv); /* probe_mounts.c */
int cmd_syscalls(int argc, char **argv); /* probe_calls.c */
int cmd_sockets(int argc, char **argv);
int cmd_terminal(int argc, char **argv);
int cmd_hunt(int argc, char **argv); /* probe_hunt.c */
int cmd_bomb(int argc, char **argv); /* probe_bombs.c */
int cmd_lines(int argc, char **argv); /* probe_streams.c */
int cmd_acknowledge(int argc, char **argv);

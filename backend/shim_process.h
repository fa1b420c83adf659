/* shim_process.h - the process of a shim that is not our child, found by the socket that it listens on: no other
 * process has that, and no number has to be trusted. Any thread; slow, for shims that do not answer. */
#pragma once

/* Kills whoever holds the socket that was bound to the name `id`, whatever its directory; how many, or -errno. */
int shim_process_kill(const char *id);

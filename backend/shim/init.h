/* init.h - process 1 of a container: "garden-init". Reaps, and forks user processes when the shim
 * says so. A clone of the builder without an exec in between: its memory belongs to the host's user
 * namespace and is not dumpable, so nobody inside can look at it. It holds one descriptor: its end
 * of a socket to the shim. */
#pragma once

/* Runs until the shim is gone (then the whole container ends). control_fd is the socket; everything
 * else is closed. argv0 is where the process title lies: at least 12 bytes. */
_Noreturn void init_main(int control_fd, char *argv0);

/* sock.h - writing to a connection that was taken from the HTTP library, and ending it so that the
 * peer sees a FIN, never a RST. Descriptors are non-blocking. */
#pragma once
#include <stddef.h>
#include <sys/uio.h>

/* All of it, or -errno; -ECANCELED when stop_fd (-1: none) becomes readable first. */
int sock_write(int fd, const void *data, size_t n_bytes, int stop_fd);
/* Several pieces as one: each write is a packet, as nothing waits for more on our connections. The
 * parts are used up. */
int sock_writev(int fd, struct iovec *parts, int n_parts, int stop_fd);
int sock_printf(int fd, int stop_fd, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, and more is about to follow: it may wait for that, 200 ms at most. */
int sock_write_more(int fd, const void *data, size_t n_bytes, int stop_fd);
/* n_bytes that are in a pipe, without a copy. -EPIPE: it ends before. SIGPIPE must be ignored. */
int sock_splice(int fd, int pipe_fd, size_t n_bytes, int stop_fd);

/* Ends our side, then reads away what still comes until the peer ends too, timeout_ms are over (it
 * may send forever) or stop_fd becomes readable. */
void sock_finish(int fd, int timeout_ms, int stop_fd);

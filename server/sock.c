#include "server/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define STOP_MS 300

static int wait_for(int fd, short events, int stop_fd, int timeout_ms)
{
	struct pollfd fds[2] = { { .fd = fd, .events = events },
		{ .fd = stop_fd, .events = POLLIN } };
	int n = poll(fds, 2, timeout_ms);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ETIMEDOUT;
	return fds[1].revents ? -ECANCELED : 0;
}

/* n_bytes have been taken from the front. */
static void advance(struct iovec **parts, int *n_parts, size_t n_bytes)
{
	while (*n_parts && n_bytes >= (*parts)->iov_len) {
		n_bytes -= (*parts)->iov_len;
		(*parts)++;
		(*n_parts)--;
	}
	if (*n_parts) {
		(*parts)->iov_base = (char *)(*parts)->iov_base + n_bytes;
		(*parts)->iov_len -= n_bytes;
	}
}

static int write_parts(int fd, struct iovec *parts, int n_parts, int stop_fd, int flags)
{
	advance(&parts, &n_parts, 0); /* empty ones */
	while (n_parts) {
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = n_parts };
		ssize_t n = sendmsg(fd, &message, flags | MSG_NOSIGNAL | MSG_DONTWAIT);
		int r = 0;

		if (n >= 0)
			advance(&parts, &n_parts, n);
		else if (errno == EAGAIN)
			r = wait_for(fd, POLLOUT, stop_fd, -1);
		else if (errno != EINTR)
			r = -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

int sock_writev(int fd, struct iovec *parts, int n_parts, int stop_fd)
{
	return write_parts(fd, parts, n_parts, stop_fd, 0);
}

int sock_write_more(int fd, const void *data, size_t n_bytes, int stop_fd)
{
	struct iovec part = { .iov_base = (void *)data, .iov_len = n_bytes };

	return write_parts(fd, &part, 1, stop_fd, MSG_MORE);
}

int sock_splice(int fd, int pipe_fd, size_t n_bytes, int stop_fd)
{
	while (n_bytes) {
		ssize_t n = splice(pipe_fd, NULL, fd, NULL, n_bytes, SPLICE_F_NONBLOCK);
		int r = 0;

		if (n > 0)
			n_bytes -= n;
		else if (n == 0)
			r = -EPIPE; /* it held less than it was said to */
		else if (errno == EAGAIN)
			r = wait_for(fd, POLLOUT, stop_fd, -1);
		else if (errno != EINTR)
			r = -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

int sock_write(int fd, const void *data, size_t n_bytes, int stop_fd)
{
	struct iovec part = { .iov_base = (void *)data, .iov_len = n_bytes };

	return sock_writev(fd, &part, 1, stop_fd);
}

int sock_printf(int fd, int stop_fd, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return n < (int)sizeof(text) ? sock_write(fd, text, n, stop_fd) : -E2BIG;
}

void sock_finish(int fd, int timeout_ms, int stop_fd)
{
	int64_t end_ms = clock_ms() + timeout_ms, left_ms;
	char nowhere[16384];
	ssize_t n = -1;
	int r;

	shutdown(fd, SHUT_WR);
	while (n != 0 && (left_ms = end_ms - clock_ms()) > 0) {
		n = recv(fd, nowhere, sizeof(nowhere), MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return;
		if (n >= 0)
			continue;
		r = wait_for(fd, POLLIN, stop_fd, (int)left_ms);
		if (r ==
			-ECANCELED) { /* a last moment for what is on its way: it would meet a RST */
			stop_fd = -1;
			end_ms = end_ms < clock_ms() + STOP_MS ? end_ms : clock_ms() + STOP_MS;
		} else if (r < 0) {
			return;
		}
	}
}

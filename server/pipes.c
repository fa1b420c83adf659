#include "server/pipes.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "server/chunks.h"
#include "server/request.h"
#include "server/sock.h"

#define DRAIN_MS 10000

/* -ECANCELED: we are to stop. */
static int wait_for_room(int fd, int stop_fd)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLOUT },
		{ .fd = stop_fd, .events = POLLIN } };

	while (poll(fds, N_ELEMENTS(fds), -1) < 0)
		continue;
	return fds[1].revents ? -ECANCELED : 0;
}

int pipe_write(const struct request *request, int fd, const char *data, size_t n_bytes)
{
	while (n_bytes) {
		ssize_t n = write(fd, data, n_bytes);
		int r = n >= 0 || errno == EINTR ? 0 : -errno;

		if (r == -EAGAIN)
			r = wait_for_room(fd, request_stop_fd(request));
		if (r < 0)
			return r;
		if (n > 0) {
			data += n;
			n_bytes -= n;
		}
	}
	return 0;
}

/* Something to read, or its end; false: the client has gone, or we are to stop. A client that only
 * ends its own side wants the answer all the same. */
static bool wait_for_helper(const struct request *request, int fd)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = request->fd },
		{ .fd = request_stop_fd(request), .events = POLLIN } };

	while (poll(fds, N_ELEMENTS(fds), -1) < 0)
		continue;
	return fds[0].revents && !fds[1].revents && !fds[2].revents;
}

/* How much there is, 0 at the end. The first bytes decide about the status: what comes after them can
 * only break the connection. */
static int available(const struct request *request, int fd)
{
	int n = 0;

	if (!wait_for_helper(request, fd))
		return -ECANCELED;
	return ioctl(fd, FIONREAD, &n) < 0 ? -errno : n;
}

/* An archive that is not whole must not end as if it were: no last chunk, and a reset. */
static void finish(struct request *request, bool is_whole)
{
	struct linger none = { .l_onoff = 1 };

	if (is_whole && chunks_end(request, "") == 0)
		sock_finish(request->fd, DRAIN_MS, request_stop_fd(request));
	else
		setsockopt(request->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

void pipe_pour(struct request *request, const struct pour *pour)
{
	int n = available(request, pour->fd), r;
	struct err err = { 0 };

	if (n <= 0) {
		r = pour->end(pour->stream, n < 0, &err);
		pour->refuse(request, r < 0 ? r : -EIO, &err);
		return;
	}
	r = chunks_begin(request, pour->content_type, "");
	while (r == 0 && n > 0) {
		r = chunks_splice(request, pour->fd, (size_t)n);
		if (r == 0)
			n = available(request, pour->fd);
	}
	if (n < 0)
		r = n;
	if (pour->end(pour->stream, r < 0, &err) < 0)
		r = -EIO;
	finish(request, r == 0);
}

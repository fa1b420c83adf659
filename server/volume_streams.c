/* Archives into volumes and out of them. A helper process does the work (volumes/volumes.h); here
 * its pipe meets the connection. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "server/chunks.h"
#include "server/request.h"
#include "server/router.h"
#include "server/sock.h"
#include "server/volume_json.h"
#include "volumes/volumes.h"

#define CHUNK_BYTES (256u * 1024)
#define DRAIN_MS 10000

static const char failed_in[] = "failed to stream in to volume";
static const char failed_out[] = "failed to stream out from volume";

static const char *path_of(const struct request *request)
{
	const char *path = request_query(request, "path");

	return path ? path : "";
}

/* ---- in -------------------------------------------------------------------------------------- */

struct upload_state {
	struct volume_stream *stream;
	uint64_t n_bytes, limit_bytes; /* on the wire; 0: as many as there are */
};

/* 0; -EINVAL: no number, or below 0. In units of 1 MiB. */
static int parse_limit(const char *text, uint64_t *ret_bytes)
{
	double mib = 0;

	if (!text || !*text)
		return 0;
	if (parse_double(text, &mib) < 0 || mib < 0)
		return -EINVAL;
	*ret_bytes = mib * 1048576 >= (double)UINT64_MAX ? 0 : (uint64_t)(mib * 1048576);
	return 0;
}

static void refuse_limit(struct request *request, const char *text)
{
	char message[128];

	snprintf(message, sizeof(message), "invalid limit %.100s", text);
	reply_failure(request, 400, message);
}

static int take_nothing(const struct volume_view *view, void *arg)
{
	(void)view;
	(void)arg;
	return 0;
}

/* 404 comes before what is wrong with the encoding. */
static int check_in(struct request *request, uint64_t *ret_limit)
{
	const char *limit = request_query(request, "limit");
	struct err err = { 0 };

	if (parse_limit(limit, ret_limit) < 0) {
		refuse_limit(request, limit);
		return -EINVAL;
	}
	if (volume_look(request_volumes(request), request_param(request, "handle"), take_nothing,
		    NULL, &err) < 0) {
		volume_fail(request, 404, failed_in, &err);
		return -ENOENT;
	}
	if (!volume_encoding_is_known(request_header(request, "Content-Encoding"))) {
		err_set(&err, ERR_BAD_REQUEST, EINVAL,
			"Content-Encoding: expected gzip, zstd, s2 or raw");
		volume_fail(request, 400, failed_in, &err);
		return -EINVAL;
	}
	return 0;
}

void handle_volume_stream_in_begin(struct request *request)
{
	struct upload_state *state;
	uint64_t limit = 0;
	struct err err;
	int r;

	if (check_in(request, &limit) < 0)
		return;
	state = calloc(1, sizeof(*state));
	if (!state) {
		reply_failure(request, 500, failed_in);
		return;
	}
	state->limit_bytes = limit;
	r = volume_stream_in(request_volumes(request), request_param(request, "handle"),
		path_of(request), request_header(request, "Content-Encoding"), &state->stream,
		&err);
	if (r < 0) {
		free(state);
		volume_fail(request, r == -ENOENT ? 404 : 500, failed_in, &err);
		return;
	}
	request->upload = state;
}

/* Ends the stream and frees the state. */
static int end_upload(struct request *request, bool kill_it, struct err *err)
{
	struct upload_state *state = request->upload;
	int r = volume_stream_end(state->stream, kill_it, err);

	free(state);
	request->upload = NULL;
	return r;
}

static void answer_in(struct request *request, int r, const struct err *err)
{
	if (r < 0)
		volume_fail(request, r == -EBADMSG ? 400 : 500, failed_in, err);
	else
		reply_nothing(request, 204);
}

static void refuse_size(struct request *request, uint64_t limit)
{
	char message[128];
	struct err ignored;

	end_upload(request, true, &ignored);
	if (limit < 1048576)
		snprintf(message, sizeof(message), "exceeded volume streaming limit of %lluB",
			(unsigned long long)limit);
	else
		snprintf(message, sizeof(message), "exceeded volume streaming limit of %lluMB",
			(unsigned long long)(limit >> 20));
	reply_failure(request, 403, message);
}

/* -ECANCELED: we are to stop. */
static int wait_for_room(int fd, int stop_fd)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLOUT },
		{ .fd = stop_fd, .events = POLLIN } };

	while (poll(fds, N_ELEMENTS(fds), -1) < 0)
		continue;
	return fds[1].revents ? -ECANCELED : 0;
}

static int write_all(int fd, const char *data, size_t n_bytes, int stop_fd)
{
	while (n_bytes) {
		ssize_t n = write(fd, data, n_bytes);
		int r = n >= 0 || errno == EINTR ? 0 : -errno;

		if (r == -EAGAIN)
			r = wait_for_room(fd, stop_fd);
		if (r < 0)
			return r;
		if (n > 0) {
			data += n;
			n_bytes -= n;
		}
	}
	return 0;
}

/* A helper that has gone before the end has something to say; one that has all it wants (behind the
 * archive's end mark) reads on. */
void handle_volume_stream_in_data(struct request *request, const char *data, size_t n_bytes)
{
	struct upload_state *state = request->upload;
	struct err err;
	int r;

	state->n_bytes += n_bytes;
	if (state->limit_bytes && state->n_bytes > state->limit_bytes) {
		refuse_size(request, state->limit_bytes);
		return;
	}
	r = write_all(volume_stream_fd(state->stream), data, n_bytes, request_stop_fd(request));
	if (r < 0)
		answer_in(request, end_upload(request, r == -ECANCELED, &err), &err);
}

void handle_volume_stream_in(struct request *request)
{
	struct err err;
	int r = end_upload(request, false, &err);

	answer_in(request, r, &err);
}

void handle_volume_stream_in_abort(struct request *request)
{
	struct err ignored;

	if (request->upload)
		end_upload(request, true, &ignored);
}

/* ---- out ------------------------------------------------------------------------------------- */

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

/* The first bytes decide about the status: what comes after them can only break the connection. */
static ssize_t read_some(const struct request *request, int fd, char *data)
{
	return wait_for_helper(request, fd) ? read(fd, data, CHUNK_BYTES) : -ECANCELED;
}

static void answer_out(struct request *request, int r, const struct err *err)
{
	if (r == -ENOENT)
		reply_failure(request, 404, "no such file or directory");
	else
		volume_fail(request, 500, failed_out, err);
}

/* An archive that is not whole must not end as if it were: no last chunk, and a reset. */
static void finish_out(struct request *request, bool is_whole)
{
	struct linger none = { .l_onoff = 1 };

	if (is_whole && chunks_end(request, "") == 0)
		sock_finish(request->fd, DRAIN_MS, request_stop_fd(request));
	else
		setsockopt(request->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

static void pour_out(struct request *request, struct volume_stream *stream, const char *encoding)
{
	AUTO_FREE char *data = malloc(CHUNK_BYTES);
	int fd = volume_stream_fd(stream);
	ssize_t n = data ? read_some(request, fd, data) : -ENOMEM;
	struct err err = { 0 };
	int r;

	if (n <= 0) {
		r = volume_stream_end(stream, n < 0, &err);
		answer_out(request, r < 0 ? r : -EIO, &err);
		return;
	}
	r = chunks_begin(request,
		!strcmp(encoding, "gzip") ? "application/x-gzip" : "application/octet-stream", "");
	while (r == 0 && n > 0) {
		r = chunks_add(request, data, n);
		if (r == 0)
			n = read_some(request, fd, data);
	}
	if (n < 0)
		r = (int)n;
	if (volume_stream_end(stream, r < 0, &err) < 0)
		r = -EIO;
	finish_out(request, r == 0);
}

void handle_volume_stream_out(struct request *request)
{
	const char *encoding = request_header(request, "Accept-Encoding");
	struct volume_stream *stream;
	struct err err = { 0 };
	int r;

	r = volume_look(request_volumes(request), request_param(request, "handle"), take_nothing,
		NULL, &err);
	if (r == 0 && !volume_encoding_is_known(encoding)) {
		err_set(&err, ERR_BAD_REQUEST, EINVAL,
			"Accept-Encoding: expected gzip, zstd, s2 or raw");
		volume_fail(request, 400, failed_out, &err);
		return;
	}
	if (r == 0)
		r = volume_stream_out(request_volumes(request), request_param(request, "handle"),
			path_of(request), encoding, &stream, &err);
	if (r < 0)
		volume_fail(request, r == -ENOENT ? 404 : 500, failed_out, &err);
	else
		pour_out(request, stream, encoding);
}

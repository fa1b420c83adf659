/* Handlers of processes: run and attach hold a control connection, stdout and stderr carry raw
 * bytes, exec answers in plain HTTP. Each runs in its connection's thread until the process or the
 * client is done. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "linux/tcp.h"
#include "output.h"
#include "server/chunks.h"
#include "server/json.h"
#include "server/request.h"
#include "server/router.h"
#include "server/sock.h"
#include "server/spec_json.h"
#include "server/stdin_decoder.h"

#define CONTROL_DRAIN_MS                                                                           \
	60000 /* a client reads all output before it closes its control connection */
#define STREAM_DRAIN_MS 10000
#define LINGER_MS 10000 /* after a client's FIN it may still read: wait this long for the exit */
#define CHUNK_BYTES (256u * 1024)

/* ---- the control connection ------------------------------------------------------------------ */

static void on_data(void *arg, const char *bytes, size_t n_bytes)
{
	attach_write_stdin(arg, bytes, n_bytes);
}

static void on_end(void *arg)
{
	attach_end_stdin(arg);
}

static void on_signal(void *arg, int64_t number)
{
	if (number == 0 || number == 1)
		attach_signal(arg, number == 0 ? SIGTERM : SIGKILL, NULL);
	else
		attach_end_stdin(arg);
}

static void on_resize(void *arg, uint32_t columns, uint32_t rows)
{
	attach_resize(arg, columns, rows);
}

static const struct stdin_events stdin_events = { on_data, on_end, on_signal, on_resize };

enum control_end { CONTROL_EXITED, CONTROL_GONE, CONTROL_GARBAGE, CONTROL_CUT, CONTROL_STOPPED };

/* 1: go on; else how the connection has ended for us. A FIN ends a pipe's stdin, a RST ends
 * nothing. */
static int read_control(const struct request *request, struct attach *attach,
	struct stdin_decoder *decoder, bool *ret_has_fin)
{
	char bytes[16384];
	ssize_t n = recv(request->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -1 : CONTROL_GONE;
	if (n == 0) {
		attach_end_stdin(attach);
		*ret_has_fin = true;
		return -1;
	}
	return stdin_decoder_feed(decoder, bytes, n) < 0 ? CONTROL_GARBAGE : -1;
}

static enum control_end serve_control(const struct request *request, struct attach *attach)
{
	struct pollfd fds[] = { { .fd = attach_exit_fd(attach), .events = POLLIN },
		{ .fd = request->fd, .events = POLLIN },
		{ .fd = attach_cut_fd(attach), .events = POLLIN },
		{ .fd = request_stop_fd(request), .events = POLLIN } };
	struct stdin_decoder decoder;
	bool has_fin = false;
	int end = -1;

	attach_watch(attach, request->fd, request_stop_fd(request));
	stdin_decoder_init(&decoder, &stdin_events, attach);
	while (end < 0) {
		int n = poll(fds, N_ELEMENTS(fds), has_fin ? LINGER_MS : -1);

		if (n == 0)
			end = CONTROL_GONE;
		else if (fds[0].revents)
			end = CONTROL_EXITED;
		else if (fds[2].revents)
			end = CONTROL_CUT;
		else if (fds[3].revents)
			end = CONTROL_STOPPED;
		else if (fds[1].revents)
			end = read_control(request, attach, &decoder, &has_fin);
		if (has_fin)
			fds[1].events = 0; /* hang-ups and errors still show */
		if (has_fin && fds[1].revents & (POLLHUP | POLLERR))
			end = CONTROL_GONE;
	}
	return end;
}

static void say_exit(const struct request *request, const struct attach *attach)
{
	int status;

	if (attach_exit_status(attach, &status))
		sock_printf(request->fd, request_stop_fd(request),
			"{\"process_id\":\"%s\",\"exit_status\":%d}\n", attach_process_id(attach),
			status);
}

/* Ids are of characters that JSON takes as they are. */
static void control(struct request *request, struct attach *attach, const char *status)
{
	enum control_end end = CONTROL_GONE;

	if (hijack(request, status, "application/json") == 0 &&
		sock_printf(request->fd, request_stop_fd(request),
			"{\"process_id\":\"%s\",\"stream_id\":\"%s\"}\n", attach_process_id(attach),
			attach_stream_id(attach)) == 0)
		end = serve_control(request, attach);
	if (end == CONTROL_EXITED)
		say_exit(request, attach);
	if (end != CONTROL_GONE)
		sock_finish(request->fd, end == CONTROL_EXITED ? CONTROL_DRAIN_MS : STREAM_DRAIN_MS,
			request_stop_fd(request));
}

/* Parses, runs; -errno and answered, or 0. */
static int run(
	struct request *request, struct container **ret_container, struct attach **ret_attach)
{
	AUTO(process_spec_done) struct process_spec spec = { 0 };
	AUTO_JSON json_t *json = NULL;
	struct container *container;
	struct err err;
	int r;

	container = request_container(request);
	if (!container)
		return -ESRCH;
	r = request_json(request, &json, &err);
	if (r == 0) {
		r = process_spec_parse(json, &spec, &err);
		if (r == 0)
			r = process_run(container, &spec, ret_attach, &err);
		if (r < 0)
			reply_error(request, &err);
	}
	if (r < 0)
		container_put(container);
	else
		*ret_container = container;
	return r;
}

void handle_process_run(struct request *request)
{
	struct container *container;
	struct attach *attach;

	if (run(request, &container, &attach) < 0)
		return;
	control(request, attach, "201 Created");
	attach_end(attach);
	container_put(container);
}

void handle_process_attach(struct request *request)
{
	struct err err;
	struct attach *attach;
	struct container *container =
		container_get(request_backend(request), request_param(request, "handle"), &err);

	if (!container ||
		process_attach(container, request_param(request, "process"), &attach, &err) < 0) {
		container_put(container);
		reply_error(request, &err);
		return;
	}
	control(request, attach, "200 OK");
	attach_end(attach);
	container_put(container);
}

/* ---- raw streams ----------------------------------------------------------------------------- */

static bool is_stopping(const struct request *request)
{
	struct pollfd stop = { .fd = request_stop_fd(request), .events = POLLIN };

	return poll(&stop, 1, 0) == 1;
}

/* 0: go on; 1: the end. Waits at most a second at a time, to see a stop or a stall, while others
 * depend on it. */
static int wait_more(const struct request *request, struct stream_reader *stream, bool want_room)
{
	struct reader *reader = stream_reader(stream);
	unsigned events = readers_wait(&reader, 1, want_room, want_room ? 1000 : -1);

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		return 1;
	if (reader_is_stalled(reader, want_room, request_stall_ms(request))) {
		stream_cut(stream);
		return 1;
	}
	return 0;
}

/* True if the stream has ended and all of it was given to the socket. */
static bool pour(const struct request *request, struct stream_reader *stream)
{
	struct reader *reader = stream_reader(stream);
	const unsigned char *data;
	size_t n_bytes;
	int r;

	while ((r = reader_peek(reader, &data, &n_bytes)) != -ENODATA) {
		ssize_t n = r == 0
			? 0
			: send(request->fd, data, n_bytes < CHUNK_BYTES ? n_bytes : CHUNK_BYTES,
				  MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			reader_sent(reader, n);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		else if (wait_more(request, stream, r != 0))
			return false;
	}
	return true;
}

/* What is on its way to a client that is still there is waited for: neither lost nor sent again. */
static void finish_stream(const struct request *request, struct stream_reader *stream)
{
	stream_will_end(stream);
	sock_finish(request->fd, STREAM_DRAIN_MS, request_stop_fd(request));
	if (!reader_await_acks(stream_reader(stream), STREAM_DRAIN_MS, request_stop_fd(request)) &&
		!is_stopping(request))
		tcp_give_up(request->fd);
	stream_close(stream, request_stop_fd(request));
}

static void serve_stream(struct request *request, int stream_number)
{
	struct err err;
	struct stream_reader *stream;
	struct container *container = request_container(request);

	if (!container)
		return;
	/* the head goes first: what the socket has been given before the stream's bytes is known
	 * then */
	if (hijack(request, "200 OK", NULL) == 0 &&
		stream_open(container, request_param(request, "process"),
			request_param(request, "stream"), stream_number, request->fd, &stream,
			&err) == 0) {
		if (reader_watch(stream_reader(stream), request_stop_fd(request), EPOLLIN) == 0)
			pour(request, stream);
		finish_stream(request, stream);
	} else {
		sock_finish(request->fd, STREAM_DRAIN_MS, request_stop_fd(request));
	}
	container_put(container);
}

void handle_process_stdout(struct request *request)
{
	serve_stream(request, STREAM_OUT);
}

void handle_process_stderr(struct request *request)
{
	serve_stream(request, STREAM_ERR);
}

/* ---- exec: proper HTTP for people ------------------------------------------------------------ */

struct exec {
	struct request *request;
	struct stream_reader *streams[N_STREAMS];
	struct reader *readers[N_STREAMS];
	bool without_stderr;
	char last; /* byte of the output, to put the status on a line of its own */
};

static int exec_write(struct exec *exec, const void *data, size_t n_bytes)
{
	exec->last = ((const char *)data)[n_bytes - 1];
	return chunks_add(exec->request, data, n_bytes);
}

/* What there is of each stream. 0: nothing now; 1: something; -ENODATA: all have ended; or a
 * socket's errno. Standard error that nobody wants is read all the same: the process shall not wait
 * for a reader. */
static int exec_pour_once(struct exec *exec)
{
	int ret = 0, n_ended = 0;

	for (int i = 0; i < N_STREAMS; i++) {
		const unsigned char *data;
		size_t n_bytes;
		int r = reader_peek(exec->readers[i], &data, &n_bytes);

		n_ended += r == -ENODATA;
		if (r != 1)
			continue;
		if (n_bytes > CHUNK_BYTES)
			n_bytes = CHUNK_BYTES;
		r = i == STREAM_ERR && exec->without_stderr ? 0 : exec_write(exec, data, n_bytes);
		if (r < 0)
			return r;
		reader_sent(exec->readers[i], n_bytes);
		ret = 1;
	}
	return n_ended == N_STREAMS ? -ENODATA : ret;
}

/* Two streams go into one connection: its acknowledgements say nothing of either, written is
 * delivered. A process that has ended without a word may have no streams left: -ENODATA. */
static int exec_open(struct exec *exec, struct attach *attach)
{
	struct err err;
	int r = 0;

	for (int i = 0; i < N_STREAMS && r == 0; i++) {
		r = attach_open_stream(attach, i, -1, &exec->streams[i], &err);
		if (r == 0)
			exec->readers[i] = stream_reader(exec->streams[i]);
	}
	if (r == 0)
		r = reader_watch(exec->readers[0], request_stop_fd(exec->request), EPOLLIN);
	return r < 0 ? r : reader_watch(exec->readers[0], exec->request->fd, EPOLLRDHUP);
}

static int exec_pour(struct exec *exec, struct attach *attach)
{
	int r = exec_open(exec, attach);

	while (r >= 0) {
		r = exec_pour_once(exec);
		if (r == 0 &&
			readers_wait(exec->readers, N_STREAMS, false, -1) &
				(EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			return -EPIPE;
	}
	return r == -ENODATA ? 0 : r;
}

/* The streams end soon after the exit; the status is known by then. */
static int await_exit(const struct request *request, const struct attach *attach)
{
	struct pollfd fds[] = { { .fd = attach_exit_fd(attach), .events = POLLIN },
		{ .fd = request_stop_fd(request), .events = POLLIN } };
	int status = -1;

	while (!attach_exit_status(attach, &status))
		if (poll(fds, 2, -1) > 0 && fds[1].revents)
			return -1;
	return status;
}

static void exec_finish(struct exec *exec, int status)
{
	const char *wants_line = request_query(exec->request, "status");
	char line[48];

	if (wants_line && strcmp(wants_line, "0")) {
		snprintf(line, sizeof(line), "%sexit status %d\n", exec->last == '\n' ? "" : "\n",
			status);
		exec_write(exec, line, strlen(line));
	}
	snprintf(line, sizeof(line), "Cloche-Exit-Status: %d\r\n", status);
	chunks_end(exec->request, line);
}

void handle_process_exec(struct request *request)
{
	const char *wants_stderr = request_query(request, "stderr");
	struct exec exec = { .request = request,
		.without_stderr = wants_stderr && !strcmp(wants_stderr, "0"),
		.last = '\n' };
	struct container *container;
	struct attach *attach;
	int status = -1;

	if (run(request, &container, &attach) < 0)
		return;
	attach_end_stdin(attach);
	if (chunks_begin(request, "application/octet-stream",
		    request->is_http_1_0 ? "" : "Trailer: Cloche-Exit-Status\r\n") == 0 &&
		exec_pour(&exec, attach) == 0)
		status = await_exit(request, attach);
	if (status >= 0)
		exec_finish(&exec, status);
	sock_finish(request->fd, STREAM_DRAIN_MS, request_stop_fd(request));
	for (int i = 0; i < N_STREAMS; i++)
		if (exec.streams[i])
			stream_close(exec.streams[i], request_stop_fd(request));
	attach_end(attach);
	container_put(container);
}

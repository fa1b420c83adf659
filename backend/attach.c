/* Clients of processes: their hold on a process, what they write to it, the streams that they read.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "container.h"
#include "link.h"
#include "process.h"

/* A stream can be opened this long after its attach has ended. */
#define LATE_STREAM_MS 60000
#define FIN_MS 10000
/* So long the next attach waits for acknowledgements of one that has ended: a retransmission or two. */
#define SETTLE_MS 1000

struct attach {
	TAILQ_ENTRY(attach) entry;
	struct process *process; /* counted while the control connection lives */
	struct container *container; /* the same */
	char stream_id[33];
	int cut_fd, exit_fd; /* eventfds; closed when the control connection ends */
	int client_fd, stop_fd; /* borrowed, see attach_watch; -1 */
	int64_t fin_ms; /* when the client was seen to have said its last byte; 0 */
	bool has_given_up; /* nobody waits for stdin to be taken any more */
	int64_t expires_ms; /* 0: the control connection lives */
	struct {
		struct pin pin;
		uint64_t start;
		bool is_pinned, is_opened;
	} streams[N_STREAMS];
};

struct stream_reader {
	struct reader reader;
	struct process *process;
	int cut_fd;
};

/* ---- attaches ----- */

static void attach_free(struct process *process, struct attach *attach)
{
	TAILQ_REMOVE(&process->attaches, attach, entry);
	for (int i = 0; i < N_STREAMS; i++)
		if (attach->streams[i].is_pinned)
			output_unpin(&process->output, i, &attach->streams[i].pin);
	auto_fd(&attach->cut_fd);
	auto_fd(&attach->exit_fd);
	free(attach);
}

void attaches_exited(struct process *process)
{
	struct attach *attach;
	uint64_t one = 1;

	TAILQ_FOREACH (attach, &process->attaches, entry)
		if (attach->exit_fd >= 0)
			(void)!write(attach->exit_fd, &one, sizeof(one));
}

void attaches_free(struct process *process)
{
	while (!TAILQ_EMPTY(&process->attaches))
		attach_free(process, TAILQ_FIRST(&process->attaches));
}

/* Lock held. */
static void purge_expired(struct process *process)
{
	struct attach *attach, *next;

	for (attach = TAILQ_FIRST(&process->attaches); attach; attach = next) {
		next = TAILQ_NEXT(attach, entry);
		if (attach->expires_ms && attach->expires_ms < clock_ms())
			attach_free(process, attach);
	}
}

int attach_new(struct process *take_process, struct container *take_container,
	struct attach **ret_attach, struct err *err)
{
	struct attach *attach = calloc(1, sizeof(*attach));

	if (attach)
		*attach = (struct attach){ .process = take_process,
			.container = take_container,
			.client_fd = -1,
			.stop_fd = -1,
			.cut_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			.exit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (!attach || attach->cut_fd < 0 || attach->exit_fd < 0 ||
		random_hex(attach->stream_id, 16) < 0) {
		if (attach) {
			auto_fd(&attach->cut_fd);
			auto_fd(&attach->exit_fd);
		}
		free(attach);
		process_put(take_process);
		container_put(take_container);
		return err_system(err, -ENOMEM, "attach");
	}
	pthread_mutex_lock(&take_process->lock);
	purge_expired(take_process);
	TAILQ_INSERT_TAIL(&take_process->attaches, attach, entry);
	for (int i = 0; i < N_STREAMS; i++) {
		attach->streams[i].start =
			output_pin(&take_process->output, i, &attach->streams[i].pin);
		attach->streams[i].is_pinned = true;
	}
	if (take_process->has_exited)
		attaches_exited(take_process);
	pthread_mutex_unlock(&take_process->lock);
	*ret_attach = attach;
	return 0;
}

/* One that is still being started, or could not be, has no descriptors yet. */
static bool is_started(struct process *process, bool *ret_is_unsettled)
{
	bool yes;

	pthread_mutex_lock(&process->lock);
	yes = process->is_started;
	*ret_is_unsettled = process->is_unsettled;
	pthread_mutex_unlock(&process->lock);
	return yes;
}

int process_attach(struct container *container, const char *process_id, struct attach **ret_attach,
	struct err *err)
{
	struct process *process = process_find(container, process_id);
	bool is_unsettled;
	int r;

	if (process && !is_started(process, &is_unsettled)) {
		process_put(process);
		process = NULL;
	}
	if (!process)
		return err_set(err, ERR_NO_PROCESS, ESRCH, "unknown process: %s", process_id);
	r = is_unsettled ? process_settle(process, err) : 0;
	if (r < 0) {
		process_put(process);
		return r;
	}
	container_hold(container);
	output_settle(&process->output, SETTLE_MS);
	return attach_new(process, container, ret_attach, err);
}

/* When we stop, the shim ends what is left. */
static bool is_stopping(int stop_fd)
{
	struct pollfd stop = { .fd = stop_fd, .events = POLLIN };

	return poll(&stop, 1, 0) == 1;
}

void attach_end(struct attach *attach)
{
	struct process *process = attach->process;
	struct container *container = attach->container;

	if (attach->client_fd >= 0 && !is_stopping(attach->stop_fd))
		process_let_go(process, attach->client_fd);
	pthread_mutex_lock(&process->lock);
	attach->expires_ms = clock_ms() + LATE_STREAM_MS;
	auto_fd(&attach->cut_fd);
	auto_fd(&attach->exit_fd);
	if (attach->streams[STREAM_OUT].is_opened && attach->streams[STREAM_ERR].is_opened &&
		!attach->streams[STREAM_OUT].is_pinned && !attach->streams[STREAM_ERR].is_pinned)
		attach_free(process, attach); /* nobody can come for a stream of it any more */
	pthread_mutex_unlock(&process->lock);
	process_release_if_delivered(process);
	process_put(process);
	container_put(container);
}

const char *attach_process_id(const struct attach *attach)
{
	return attach->process->id;
}

const char *attach_stream_id(const struct attach *attach)
{
	return attach->stream_id;
}

int attach_exit_fd(const struct attach *attach)
{
	return attach->exit_fd;
}

int attach_cut_fd(const struct attach *attach)
{
	return attach->cut_fd;
}

bool attach_exit_status(const struct attach *attach, int *ret_status)
{
	struct process *process = attach->process;
	bool has_exited;

	pthread_mutex_lock(&process->lock);
	has_exited = process->has_exited;
	*ret_status = process->exited.exit_status;
	pthread_mutex_unlock(&process->lock);
	return has_exited;
}

/* ---- input ----------------------------------------------------------------------------------- */

/* 1: not ready yet; 0: done or nobody there; the lock keeps the descriptor open for the moment. */
static ssize_t write_some(struct process *process, const char *data, size_t n_bytes)
{
	ssize_t n = -EPIPE;

	pthread_mutex_lock(&process->lock);
	if (process->input_fd >= 0) {
		n = write(process->input_fd, data, n_bytes);
		if (n < 0)
			n = -errno;
	}
	pthread_mutex_unlock(&process->lock);
	return n;
}

void attach_watch(struct attach *attach, int client_fd, int stop_fd)
{
	attach->client_fd = client_fd;
	attach->stop_fd = stop_fd;
	process_hold(attach->process, &(struct msg_hold){ .stream = N_STREAMS }, client_fd);
}

/* False: give up, the server stops or the client is gone. A client that has only said its last byte
 * may wait for the process to take it, as long as it may linger. A copy of the descriptor: another
 * client may end stdin while we wait. */
static bool wait_for_room(struct attach *attach)
{
	struct process *process = attach->process;
	struct pollfd fds[] = { { .events = POLLOUT }, { .fd = attach->exit_fd, .events = POLLIN },
		{ .fd = attach->stop_fd, .events = POLLIN },
		{ .fd = attach->client_fd, .events = attach->fin_ms ? 0 : POLLRDHUP } };
	int64_t left_ms = attach->fin_ms ? attach->fin_ms + FIN_MS - clock_ms() : -1;
	AUTO_FD int fd = -1;

	pthread_mutex_lock(&process->lock);
	if (process->input_fd >= 0)
		fd = fcntl(process->input_fd, F_DUPFD_CLOEXEC, 3);
	pthread_mutex_unlock(&process->lock);
	if (attach->fin_ms && left_ms <= 0)
		return false;
	fds[0].fd = fd;
	if (fd >= 0)
		poll(fds, N_ELEMENTS(fds), (int)left_ms);
	if (fds[3].revents & POLLRDHUP)
		attach->fin_ms = clock_ms();
	return !fds[2].revents && !(fds[3].revents & (POLLHUP | POLLERR));
}

int attach_write_stdin(struct attach *attach, const void *data, size_t n_bytes)
{
	struct process *process = attach->process;

	for (size_t done = 0; done < n_bytes && !attach->has_given_up;) {
		ssize_t n = write_some(process, (const char *)data + done, n_bytes - done);
		int status;

		if (n > 0)
			done += n;
		else if (n == -EAGAIN && (attach->has_given_up |= !wait_for_room(attach)))
			return -ECANCELED;
		else if (n == -EAGAIN)
			continue;
		else if (n != -EINTR)
			return n < 0 ? (int)n : -EPIPE;
		if (n <= 0 && attach_exit_status(attach, &status))
			return -EPIPE;
	}
	return 0;
}

void attach_end_stdin(struct attach *attach)
{
	struct process *process = attach->process;
	struct msg_token body = { .token = process->token };
	bool was_open;

	if (process->is_tty)
		return;
	pthread_mutex_lock(&process->lock);
	was_open = process->input_fd >= 0;
	auto_fd(&process->input_fd);
	pthread_mutex_unlock(&process->lock);
	if (was_open)
		link_call(attach->container->link,
			&(struct msg){ .type = MSG_CLOSE_STDIN,
				.body = &body,
				.body_bytes = sizeof(body) },
			NULL, NULL);
}

int attach_signal(struct attach *attach, int signo, struct err *err)
{
	struct msg_signal body = { .token = attach->process->token, .signo = signo };

	return link_call(attach->container->link,
		&(struct msg){ .type = MSG_SIGNAL, .body = &body, .body_bytes = sizeof(body) },
		NULL, err);
}

void attach_resize(struct attach *attach, uint32_t columns, uint32_t rows)
{
	struct process *process = attach->process;
	struct winsize size = { .ws_col = columns < 1 ? 80
			: columns > 65535             ? 65535
						      : columns,
		.ws_row = rows < 1     ? 24
			: rows > 65535 ? 65535
				       : rows };

	pthread_mutex_lock(&process->lock);
	if (process->is_tty && process->input_fd >= 0)
		ioctl(process->input_fd, TIOCSWINSZ, &size);
	pthread_mutex_unlock(&process->lock);
}

/* ---- output ---------------------------------------------------------------------------------- */

/* From now on the shim may not drop anything: it must have heard so before we look at the tail. */
static void tell_opened(struct process *process, int stream)
{
	struct msg_signal body = { .token = process->token, .signo = stream };
	struct ring rings[N_STREAMS] = { 0 };
	bool is_new = false;

	pthread_mutex_lock(&process->output.lock);
	if (!process->output.is_released && ring_map(process->output.ring_fd, rings) == 0) {
		is_new = !atomic_load(&rings[stream].shared->opened) &&
			!atomic_load(&rings[stream].shared->closed);
		ring_unmap(rings);
	}
	pthread_mutex_unlock(&process->output.lock);
	if (is_new)
		link_call(process->container->link,
			&(struct msg){
				.type = MSG_OPENED, .body = &body, .body_bytes = sizeof(body) },
			NULL, NULL);
}

static struct attach *claim_stream(struct process *process, const char *stream_id, int stream)
{
	struct attach *attach, *found = NULL;

	TAILQ_FOREACH (attach, &process->attaches, entry)
		if (!strcmp(attach->stream_id, stream_id) && !attach->streams[stream].is_opened)
			found = attach;
	if (found)
		found->streams[stream].is_opened = true;
	if (found && found->expires_ms)
		found->expires_ms = clock_ms() + LATE_STREAM_MS; /* not purged while we open it */
	return found;
}

static int open_claimed(struct process *process, struct attach *attach,
	struct stream_reader *reader, int stream, int sock_fd, struct err *err)
{
	int r;

	tell_opened(process, stream);
	r = reader_open(&reader->reader, &process->output, stream, attach->streams[stream].start,
		sock_fd, err);
	if (r == 0 && sock_fd >= 0)
		process_hold(process,
			&(struct msg_hold){ .stream = (uint32_t)stream,
				.is_tcp = reader->reader.is_tcp,
				.start = reader->reader.start,
				.base = reader->reader.tcp_base },
			sock_fd);
	pthread_mutex_lock(&process->lock);
	output_unpin(&process->output, stream, &attach->streams[stream].pin);
	attach->streams[stream].is_pinned = false;
	pthread_mutex_unlock(&process->lock);
	return r;
}

/* Consumes the reference to process. */
static int open_stream(struct process *take_process, const char *stream_id, int stream, int sock_fd,
	struct stream_reader **ret_stream, struct err *err)
{
	struct stream_reader *reader = calloc(1, sizeof(*reader));
	struct attach *attach = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&take_process->lock);
	if (reader && (attach = claim_stream(take_process, stream_id, stream)))
		reader->cut_fd = fcntl(attach->cut_fd, F_DUPFD_CLOEXEC, 3);
	pthread_mutex_unlock(&take_process->lock);
	if (attach)
		r = open_claimed(take_process, attach, reader, stream, sock_fd, err);
	if (r < 0) {
		if (attach)
			auto_fd(&reader->cut_fd);
		free(reader);
		process_put(take_process);
		return err_set(err, ERR_NOT_FOUND, -r, "unknown stream id");
	}
	reader->process = take_process;
	*ret_stream = reader;
	return 0;
}

int stream_open(struct container *container, const char *process_id, const char *stream_id,
	int stream, int sock_fd, struct stream_reader **ret_stream, struct err *err)
{
	struct process *process = process_find(container, process_id);

	if (!process)
		return err_set(err, ERR_NO_PROCESS, ESRCH, "unknown process: %s", process_id);
	return open_stream(process, stream_id, stream, sock_fd, ret_stream, err);
}

int attach_open_stream(struct attach *attach, int stream, int sock_fd,
	struct stream_reader **ret_stream, struct err *err)
{
	struct process *process = attach->process;

	pthread_mutex_lock(&process->lock);
	process->n_refs++;
	pthread_mutex_unlock(&process->lock);
	return open_stream(process, attach->stream_id, stream, sock_fd, ret_stream, err);
}

struct reader *stream_reader(struct stream_reader *stream)
{
	return &stream->reader;
}

void stream_cut(struct stream_reader *stream)
{
	uint64_t one = 1;

	(void)!write(stream->cut_fd, &one, sizeof(one));
}

void stream_will_end(struct stream_reader *stream)
{
	reader_will_end(&stream->reader);
	process_will_end(stream->process, stream->reader.sock_fd, stream->reader.cursor);
}

void stream_close(struct stream_reader *stream, int stop_fd)
{
	int sock_fd = stream->reader.sock_fd;

	reader_close(&stream->reader);
	if (sock_fd >= 0 && !is_stopping(stop_fd))
		process_let_go(stream->process, sock_fd);
	process_release_if_delivered(stream->process);
	auto_fd(&stream->cut_fd);
	process_put(stream->process);
	free(stream);
}

#include "shim/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/sys.h"

#define PIPE_BYTES (1 << 20)

static void close_all(struct proc *proc)
{
	auto_fd(&proc->report_fd);
	auto_fd(&proc->pid_fd);
	auto_fd(&proc->stdin_fd);
	auto_fd(&proc->ring_fd);
	auto_fd(&proc->data_fd);
	for (int i = 0; i < N_STREAMS; i++)
		auto_fd(&proc->streams[i].fd);
	ring_unmap(proc->rings);
	watch_done(&proc->watch);
}

void proc_take_name(struct proc *proc, const struct program_wire *program)
{
	const char *blob = (const char *)program;
	const char *path = blob + *(const uint64_t *)(const void *)(blob + program->argv);
	const char *slash = strrchr(path, '/');

	snprintf(proc->name, sizeof(proc->name), "%.31s", slash ? slash + 1 : path);
}

void proc_free(struct proc *proc)
{
	if (!proc)
		return;
	close_all(proc);
	free(proc);
}

static void auto_proc(struct proc **proc)
{
	proc_free(*proc);
}

/* Both ends belong to the process's user, who may open /dev/stdout anew. */
static int make_pipe(int *ret_read, int *ret_write, const struct msg_run *run)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = ends[0];
	*ret_write = ends[1];
	return fchown(ends[0], run->uid, run->gid) < 0 ? -errno : 0;
}

static int make_output(struct proc *proc, int stream, int *child_fd, const struct msg_run *run)
{
	int r = make_pipe(&proc->streams[stream].fd, child_fd, run);

	if (r < 0)
		return r;
	fcntl(*child_fd, F_SETPIPE_SZ, PIPE_BYTES); /* as much as the host lets us have */
	return fcntl(proc->streams[stream].fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int make_pipes(struct proc *proc, int child_fds[4], const struct msg_run *run)
{
	int r = make_pipe(&child_fds[0], &proc->stdin_fd, run);

	if (r == 0)
		r = fcntl(proc->stdin_fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	if (r == 0)
		r = make_output(proc, STREAM_OUT, &child_fds[1], run);
	if (r == 0)
		r = make_output(proc, STREAM_ERR, &child_fds[2], run);
	return r;
}

/* The slave comes from the master, never from a path that the container could have replaced. */
static int make_terminal(struct proc *proc, int pts_fd, int child_fds[4], const struct msg_run *run)
{
	struct winsize size = { .ws_row = run->rows ? run->rows : 24,
		.ws_col = run->columns ? run->columns : 80 };
	int unlock = 0, master;

	master = proc->streams[STREAM_OUT].fd =
		sys_open_beneath(pts_fd, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
	if (master < 0)
		return master;
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
		return -errno;
	child_fds[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (child_fds[0] < 0 || fchown(child_fds[0], run->uid, (gid_t)-1) < 0)
		return -errno;
	for (int i = 1; i < 3; i++) {
		child_fds[i] = fcntl(child_fds[0], F_DUPFD_CLOEXEC, 3);
		if (child_fds[i] < 0)
			return -errno;
	}
	return 0;
}

static int open_all(struct proc *proc, int pts_fd, int child_fds[4], const struct msg_run *run)
{
	int ends[2], r;

	proc->ring_fd = ring_create(run->ring_bytes);
	if (proc->ring_fd < 0)
		return proc->ring_fd;
	r = ring_map(proc->ring_fd, proc->rings);
	if (r < 0)
		return r;
	proc->data_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (proc->data_fd < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	proc->report_fd = ends[0];
	child_fds[3] = ends[1];
	return run->tty ? make_terminal(proc, pts_fd, child_fds, run)
			: make_pipes(proc, child_fds, run);
}

struct proc *proc_new(const struct msg_run *run, int pts_fd, int child_fds[4], int *ret_code)
{
	struct proc *proc AUTO(auto_proc) = calloc(1, sizeof(*proc));

	if (!proc) {
		*ret_code = -ENOMEM;
		return NULL;
	}
	proc->token = run->token;
	proc->tty = run->tty;
	memcpy(proc->process_id, run->process_id, sizeof(proc->process_id) - 1);
	watch_init(&proc->watch);
	proc->pid_fd = proc->report_fd = proc->stdin_fd = proc->ring_fd = proc->data_fd = -1;
	for (int i = 0; i < N_STREAMS; i++)
		proc->streams[i].fd = -1;
	*ret_code = open_all(proc, pts_fd, child_fds, run);
	return *ret_code < 0 ? NULL : TAKE_PTR(proc);
}

static void wake_readers(struct proc *proc, int stream)
{
	uint64_t one = 1;

	if (proc->data_fd >= 0 && ring_wants_wake(&proc->rings[stream]))
		(void)!write(proc->data_fd, &one, sizeof(one));
}

static void end_stream(struct proc *proc, int stream)
{
	if (!proc->rings[stream].shared)
		return;
	atomic_store(&proc->rings[stream].shared->closed, 1);
	wake_readers(proc, stream);
}

/* After the exit nobody waits for the rest of a stream, but whoever still writes to it must not die
 * of SIGPIPE: read on and throw away. */
static bool is_discarding(const struct proc *proc, int stream)
{
	return !proc->rings[stream].shared || atomic_load(&proc->rings[stream].shared->closed);
}

static void discard(struct proc *proc, int stream)
{
	static char nowhere[65536];
	ssize_t n = read(proc->streams[stream].fd, nowhere, sizeof(nowhere));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		auto_fd(&proc->streams[stream].fd);
}

/* Nobody has ever opened the stream: after a minute it keeps its newest bytes. */
static bool make_room(struct proc *proc, int stream, int64_t now_ms)
{
	struct stream *s = &proc->streams[stream];
	struct ring *ring = &proc->rings[stream];

	if (!s->full_since_ms)
		s->full_since_ms = now_ms;
	if (atomic_load(&ring->shared->opened) || now_ms - s->full_since_ms < UNOPENED_GRACE_MS)
		return false;
	ring_drop(ring, ring->capacity_bytes / 4);
	return true;
}

void proc_pump(struct proc *proc, int stream, int64_t now_ms)
{
	struct stream *s = &proc->streams[stream];
	ssize_t n;

	if (is_discarding(proc, stream)) {
		discard(proc, stream);
		return;
	}
	n = ring_fill(&proc->rings[stream], s->fd);
	if (n == -ENOBUFS && make_room(proc, stream, now_ms))
		n = ring_fill(&proc->rings[stream], s->fd);
	if (n > 0) {
		if (atomic_load(&proc->rings[stream].shared->opened))
			s->full_since_ms = 0;
		wake_readers(proc, stream);
	} else if (n != -EAGAIN && n != -EINTR && n != -ENOBUFS && n != -ENOMEM) {
		auto_fd(&s->fd); /* 0: all writers are gone; -EIO: a terminal without users */
		if (proc->state == PROCESS_EXITED)
			end_stream(proc, stream);
	}
}

void proc_trim(struct proc *proc)
{
	for (int i = 0; i < N_STREAMS && proc->rings[i].shared; i++) {
		uint64_t head = atomic_load(&proc->rings[i].shared->head);

		if (head - proc->trimmed[i] >= TRIM_BYTES &&
			ring_trim(proc->ring_fd, &proc->rings[i], i))
			proc->trimmed[i] = head;
	}
}

static bool is_full(const struct proc *proc, int stream)
{
	const struct ring *ring = &proc->rings[stream];

	return atomic_load(&ring->shared->head) - atomic_load(&ring->shared->tail) ==
		ring->capacity_bytes;
}

bool proc_wants_input(const struct proc *proc, int stream)
{
	if (proc->streams[stream].fd < 0 || proc->state == PROCESS_STARTING)
		return false;
	return is_discarding(proc, stream) || !is_full(proc, stream);
}

static int64_t check_stream(struct proc *proc, int stream, int64_t now_ms)
{
	struct stream *s = &proc->streams[stream];

	if (s->fd < 0 || is_discarding(proc, stream))
		return 0;
	if (is_full(proc, stream)) {
		proc_pump(proc, stream, now_ms); /* sets the flag that makes the server kick us */
		if (!is_full(proc, stream) || atomic_load(&proc->rings[stream].shared->opened))
			return 0;
		return s->full_since_ms + UNOPENED_GRACE_MS;
	}
	if (proc->state != PROCESS_EXITED)
		return 0;
	if (s->end_at_ms == 0)
		s->end_at_ms = now_ms + OUTPUT_GRACE_MS;
	if (now_ms < s->end_at_ms)
		return s->end_at_ms;
	end_stream(proc, stream);
	return 0;
}

int64_t proc_check_time(struct proc *proc, int64_t now_ms)
{
	int64_t next = 0;

	for (int i = 0; i < N_STREAMS; i++) {
		int64_t at = check_stream(proc, i, now_ms);

		if (at && (!next || at < next))
			next = at;
	}
	return next;
}

static void put_words(struct proc *proc, const char *words)
{
	size_t n_bytes = strlen(words);

	if (n_bytes && !proc->tty && proc->rings[STREAM_ERR].shared &&
		ring_put(&proc->rings[STREAM_ERR], words, n_bytes))
		wake_readers(proc, STREAM_ERR);
}

void proc_exited(
	struct proc *proc, const struct msg_end *end, const char *last_words, int64_t now_ms)
{
	proc->end = *end;
	proc->state = PROCESS_EXITED;
	auto_fd(&proc->stdin_fd);
	for (int i = 0; i < N_STREAMS; i++) {
		if (proc->streams[i].fd >= 0)
			proc_pump(proc, i, now_ms);
		if (i == STREAM_ERR)
			put_words(proc, last_words);
		if (proc->streams[i].fd < 0)
			end_stream(proc, i);
	}
}

void proc_finish(struct proc *proc, int64_t now_ms)
{
	for (int i = 0; i < N_STREAMS; i++) {
		for (int tries = 0;
			tries < 1024 && proc_wants_input(proc, i) && !is_discarding(proc, i);
			tries++)
			proc_pump(proc, i, now_ms);
		end_stream(proc, i);
	}
}

void proc_forget(struct proc *proc)
{
	for (int i = 0; i < N_STREAMS; i++)
		end_stream(proc, i);
	auto_fd(&proc->ring_fd);
	auto_fd(&proc->data_fd);
	auto_fd(&proc->stdin_fd);
	ring_unmap(proc->rings);
}

#include "output.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "linux/tcp.h"

enum { WAIT_DATA, WAIT_SOCKET, WAIT_STOP };

static uint64_t higher(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Rings of an adopted process: go on where the last server stopped, forget its readers. */
static void take_over(struct output *output, bool has_readers)
{
	struct ring rings[N_STREAMS] = { 0 };

	if (output->ring_fd < 0 || ring_map(output->ring_fd, rings) < 0)
		return;
	for (int i = 0; i < N_STREAMS; i++) {
		uint64_t noted =
			higher(atomic_load(&rings[i].shared->tail), atomic_load(rings[i].resume));

		output->streams[i].resume = higher(output->streams[i].resume, noted);
		if (!has_readers)
			atomic_store(&rings[i].shared->n_waiting, 0);
	}
	ring_unmap(rings);
}

void output_look_again(struct output *output)
{
	pthread_mutex_lock(&output->lock);
	take_over(output, true);
	pthread_mutex_unlock(&output->lock);
}

void output_init(struct output *output, int take_ring_fd, int take_data_fd, int kick_fd)
{
	*output = (struct output){ .ring_fd = take_ring_fd,
		.data_fd = take_data_fd,
		.kick_fd = kick_fd,
		.is_released = take_ring_fd < 0 };
	pthread_mutex_init(&output->lock, NULL);
	for (int i = 0; i < N_STREAMS; i++) {
		TAILQ_INIT(&output->streams[i].readers);
		TAILQ_INIT(&output->streams[i].pins);
	}
	take_over(output, false);
}

void output_done(struct output *output)
{
	ring_unmap(output->rings);
	auto_fd(&output->ring_fd);
	auto_fd(&output->data_fd);
	pthread_mutex_destroy(&output->lock);
}

/* Mapped while somebody needs it. Lock held. */
static int use_rings(struct output *output)
{
	int r = 0;

	if (output->is_released)
		return -ENODATA;
	if (output->n_users == 0)
		r = ring_map(output->ring_fd, output->rings);
	if (r == 0)
		output->n_users++;
	return r;
}

static void unuse_rings(struct output *output)
{
	if (--output->n_users == 0)
		ring_unmap(output->rings);
}

/* ---- acknowledgements ------------------------------------------------------------------------ */

/* Lock held, rings mapped. A unix socket has no acknowledgements: written is arrived. The FIN counts
 * as a byte. */
static void refresh_acked(struct reader *reader)
{
	uint64_t acked = reader->cursor;
	struct tcp_peer peer;

	if (reader->is_tcp && tcp_look(reader->sock_fd, &peer)) {
		reader->is_closed = peer.is_closed;
		acked = reader->start;
		if (peer.acked_bytes > reader->tcp_base)
			acked += peer.acked_bytes - reader->tcp_base;
		if (acked > reader->cursor)
			acked = reader->cursor;
	}
	if (acked > reader->acked) {
		reader->acked = acked;
		reader->progress_ms = clock_ms();
	}
	if (acked > reader->output->streams[reader->stream].resume) {
		reader->output->streams[reader->stream].resume = acked;
		atomic_store(reader->output->rings[reader->stream].resume, acked);
	}
}

/* ---- what may be freed ----------------------------------------------------------------------- */

/* Lock held, rings mapped. Below this nobody needs the bytes any more. */
static uint64_t lowest_needed(struct output *output, int stream)
{
	uint64_t lowest = output->streams[stream].resume;
	struct reader *reader;
	struct pin *pin;

	TAILQ_FOREACH (reader, &output->streams[stream].readers, entry)
		if (reader->acked < lowest)
			lowest = reader->acked;
	TAILQ_FOREACH (pin, &output->streams[stream].pins, entry)
		if (pin->at < lowest && clock_ms() < pin->until_ms)
			lowest = pin->at;
	return lowest;
}

/* Kicks the shim when it waits for room, or when a drained stream has memory worth giving back. */
static void release(struct output *output, int stream)
{
	struct ring *ring = &output->rings[stream];
	uint64_t to = lowest_needed(output, stream), one = 1;
	bool kicks = false;

	if (to > atomic_load(&ring->shared->tail))
		kicks = ring_release(ring, to);
	if (to - output->streams[stream].trimmed >= TRIM_BYTES &&
		to == atomic_load(&ring->shared->head)) {
		output->streams[stream].trimmed = to;
		kicks = true;
	}
	if (kicks && output->kick_fd >= 0)
		(void)!write(output->kick_fd, &one, sizeof(one));
}

/* ---- readers that have ended ----------------------------------------------------------------- */

/* Lock held, rings mapped. */
static bool owes(struct reader *reader)
{
	refresh_acked(reader);
	return reader->acked < reader->cursor;
}

static bool is_unsettled(struct output *output)
{
	struct reader *reader;
	bool yes = false;

	pthread_mutex_lock(&output->lock);
	for (int i = 0; i < N_STREAMS; i++)
		TAILQ_FOREACH (reader, &output->streams[i].readers, entry)
			yes |= reader->is_ending && owes(reader) && !reader->is_closed;
	pthread_mutex_unlock(&output->lock);
	return yes;
}

void output_settle(struct output *output, int timeout_ms)
{
	int64_t end_ms = clock_ms() + timeout_ms;

	while (is_unsettled(output) && clock_ms() < end_ms)
		poll(NULL, 0, 1);
}

void reader_will_end(struct reader *reader)
{
	pthread_mutex_lock(&reader->output->lock);
	reader->is_ending = true;
	pthread_mutex_unlock(&reader->output->lock);
}

/* ---- pins ------------------------------------------------------------------------------------ */

uint64_t output_pin(struct output *output, int stream, struct pin *pin)
{
	struct reader *reader;

	pthread_mutex_lock(&output->lock);
	TAILQ_FOREACH (reader, &output->streams[stream].readers, entry)
		refresh_acked(reader);
	*pin = (struct pin){ .at = output->streams[stream].resume,
		.until_ms = clock_ms() + PIN_MS };
	TAILQ_INSERT_TAIL(&output->streams[stream].pins, pin, entry);
	pthread_mutex_unlock(&output->lock);
	return pin->at;
}

void output_unpin(struct output *output, int stream, struct pin *pin)
{
	pthread_mutex_lock(&output->lock);
	TAILQ_REMOVE(&output->streams[stream].pins, pin, entry);
	pthread_mutex_unlock(&output->lock);
}

/* ---- readers --------------------------------------------------------------------------------- */

static int open_wait(struct reader *reader)
{
	struct epoll_event data = { .events = EPOLLIN | EPOLLET, .data.u32 = WAIT_DATA };
	struct epoll_event sock = { .events = EPOLLRDHUP, .data.u32 = WAIT_SOCKET };

	reader->wait_fd = epoll_create1(EPOLL_CLOEXEC);
	if (reader->wait_fd < 0 ||
		epoll_ctl(reader->wait_fd, EPOLL_CTL_ADD, reader->output->data_fd, &data) < 0 ||
		(reader->sock_fd >= 0 &&
			epoll_ctl(reader->wait_fd, EPOLL_CTL_ADD, reader->sock_fd, &sock) < 0))
		return -errno;
	return 0;
}

int reader_open(struct reader *reader, struct output *output, int stream, uint64_t start,
	int sock_fd, struct err *err)
{
	uint64_t tail;
	int r;

	*reader = (struct reader){ .output = output,
		.stream = stream,
		.sock_fd = sock_fd,
		.wait_fd = -1,
		.progress_ms = clock_ms() };
	pthread_mutex_lock(&output->lock);
	r = use_rings(output);
	if (r == 0) {
		tail = atomic_load(&output->rings[stream].shared->tail);
		if (output->streams[stream].resume < tail)
			output->streams[stream].resume = tail; /* dropped before anybody came */
		reader->start = start > tail ? start : tail;
		reader->cursor = reader->acked = reader->start;
		reader->is_tcp = tcp_given(sock_fd, &reader->tcp_base);
		r = open_wait(reader);
		if (r == 0)
			TAILQ_INSERT_TAIL(&output->streams[stream].readers, reader, entry);
		else
			unuse_rings(output);
	}
	pthread_mutex_unlock(&output->lock);
	if (r == 0)
		return 0;
	auto_fd(&reader->wait_fd);
	return err_system(err, r, "open a stream");
}

int reader_watch(struct reader *reader, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u32 = WAIT_STOP };

	return epoll_ctl(reader->wait_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void reader_close(struct reader *reader)
{
	struct output *output = reader->output;

	pthread_mutex_lock(&output->lock);
	refresh_acked(reader);
	TAILQ_REMOVE(&output->streams[reader->stream].readers, reader, entry);
	release(output, reader->stream);
	unuse_rings(output);
	pthread_mutex_unlock(&output->lock);
	auto_fd(&reader->wait_fd);
}

/* The order matters: a stream that is closed gets no more bytes, so look at the bytes last. */
int reader_peek(struct reader *reader, const unsigned char **ret_data, size_t *ret_bytes)
{
	struct ring *ring = &reader->output->rings[reader->stream];
	bool closed = atomic_load(&ring->shared->closed);

	*ret_bytes = ring_peek(ring, reader->cursor, ret_data);
	if (*ret_bytes)
		return 1;
	return closed ? -ENODATA : 0;
}

void reader_sent(struct reader *reader, size_t n_bytes)
{
	struct output *output = reader->output;
	uint64_t capacity = output->rings[reader->stream].capacity_bytes;

	pthread_mutex_lock(&output->lock);
	reader->cursor += n_bytes;
	if (reader->cursor - reader->acked > capacity / 8) {
		refresh_acked(reader);
		release(output, reader->stream);
	}
	pthread_mutex_unlock(&output->lock);
}

/* Nothing wakes who waits for an acknowledgement: look again soon, and later each time. */
static int pause_ms(int64_t age_ms)
{
	return age_ms < 2 ? 1 : age_ms < 200 ? (int)age_ms / 2 : 100;
}

/* All is sent but not yet acknowledged: until when to sleep. -1 once everything has arrived. */
static int ack_timeout(struct reader *reader)
{
	struct output *output = reader->output;
	int64_t now = clock_ms(), age_ms;
	int pin_ms = -1;
	bool has_debt;
	struct pin *pin;

	pthread_mutex_lock(&output->lock);
	has_debt = owes(reader);
	release(output, reader->stream);
	age_ms = now - reader->progress_ms;
	TAILQ_FOREACH (pin, &output->streams[reader->stream].pins, entry)
		if (pin->at < reader->acked && now < pin->until_ms &&
			(pin_ms < 0 || pin->until_ms - now < pin_ms))
			pin_ms = (int)(pin->until_ms - now);
	pthread_mutex_unlock(&output->lock);
	if (!has_debt)
		return pin_ms; /* a pin that lapses frees the room behind it */
	return pause_ms(age_ms);
}

/* The flag tells the shim to wake us; what came before it was seen shows in a second look. */
static bool announce_wait(struct reader *reader, int *timeout_ms)
{
	struct ring *ring = &reader->output->rings[reader->stream];
	const unsigned char *data;
	int acks = ack_timeout(reader);
	size_t n_bytes;

	if (acks >= 0 && (*timeout_ms < 0 || acks < *timeout_ms))
		*timeout_ms = acks;
	atomic_fetch_add(&ring->shared->n_waiting, 1);
	return reader_peek(reader, &data, &n_bytes) == 0;
}

unsigned readers_wait(struct reader *const readers[], int n_readers, bool want_room, int timeout_ms)
{
	struct epoll_event sock = { .events = EPOLLRDHUP | (want_room ? EPOLLOUT : 0),
		.data.u32 = WAIT_SOCKET };
	struct epoll_event events[4];
	unsigned ret = 0;
	int n, n_empty = 0;

	if (readers[0]->sock_fd >= 0)
		epoll_ctl(readers[0]->wait_fd, EPOLL_CTL_MOD, readers[0]->sock_fd, &sock);
	for (int i = 0; i < n_readers; i++)
		n_empty += announce_wait(readers[i], &timeout_ms);
	if (!want_room && n_empty < n_readers)
		timeout_ms = 0;
	n = epoll_wait(readers[0]->wait_fd, events, N_ELEMENTS(events), timeout_ms);
	for (int i = 0; i < n_readers; i++)
		atomic_fetch_sub(
			&readers[i]->output->rings[readers[i]->stream].shared->n_waiting, 1);
	for (int i = 0; i < n; i++)
		if (events[i].data.u32 == WAIT_SOCKET)
			ret |= events[i].events;
		else if (events[i].data.u32 == WAIT_STOP)
			ret |= EPOLLHUP;
	return ret;
}

bool reader_is_stalled(struct reader *reader, bool is_blocked, int64_t stall_ms)
{
	struct output *output = reader->output;
	struct ring *ring = &output->rings[reader->stream];
	struct reader_list *readers = &output->streams[reader->stream].readers;
	bool is_stalled;

	pthread_mutex_lock(&output->lock);
	is_stalled = (owes(reader) || is_blocked) && clock_ms() - reader->progress_ms > stall_ms &&
		atomic_load(&ring->shared->writer_waits) &&
		TAILQ_FIRST(readers) != TAILQ_LAST(readers, reader_list);
	pthread_mutex_unlock(&output->lock);
	return is_stalled;
}

bool reader_await_acks(struct reader *reader, int stall_ms, int stop_fd)
{
	struct pollfd stop = { .fd = stop_fd, .events = POLLIN };
	int64_t begin_ms = clock_ms(), age_ms;
	bool has_debt, waits;

	do {
		pthread_mutex_lock(&reader->output->lock);
		has_debt = owes(reader);
		waits = has_debt && !reader->is_closed;
		age_ms = clock_ms() -
			(reader->progress_ms > begin_ms ? reader->progress_ms : begin_ms);
		release(reader->output, reader->stream);
		pthread_mutex_unlock(&reader->output->lock);
	} while (waits && age_ms < stall_ms && poll(&stop, 1, pause_ms(age_ms)) != 1);
	return !has_debt;
}

bool output_try_release(struct output *output)
{
	bool is_done = false;

	pthread_mutex_lock(&output->lock);
	if (output->n_users == 0 && use_rings(output) == 0) {
		is_done = true;
		for (int i = 0; i < N_STREAMS; i++) {
			struct ring_head *shared = output->rings[i].shared;

			if (!atomic_load(&shared->closed) ||
				lowest_needed(output, i) != atomic_load(&shared->head))
				is_done = false;
		}
		unuse_rings(output);
		if (is_done) {
			output->is_released = true;
			auto_fd(&output->ring_fd);
			auto_fd(&output->data_fd);
		}
	}
	pthread_mutex_unlock(&output->lock);
	return is_done;
}

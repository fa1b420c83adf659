/* The server's side of the rings, with a thread in the part of the shim. */
#include <errno.h>
#include <poll.h>

#include "base/err.h"
#include "output_stage.h"

static void open_reader(struct stage *stage, struct reader *reader, int stream, uint64_t start)
{
	struct err err = { 0 };

	if (reader_open(reader, &stage->output, stream, start, -1, &err))
		fail_msg("%s", err.msg);
}

/* Takes at most max_bytes of what is there, compares, returns how many. */
static size_t consume(struct reader *reader, size_t max_bytes)
{
	const unsigned char *data;
	size_t n_bytes, n = 0;

	while (n < max_bytes && reader_peek(reader, &data, &n_bytes) == 1) {
		if (n_bytes > max_bytes - n)
			n_bytes = max_bytes - n;
		for (size_t i = 0; i < n_bytes; i++)
			if (data[i] != byte_at(reader->cursor + i))
				fail_msg("byte %ju is %#x", (uintmax_t)(reader->cursor + i),
					data[i]);
		reader_sent(reader, n_bytes);
		n += n_bytes;
	}
	return n;
}

static void a_reader_gets_what_was_there_and_what_comes(void **state)
{
	struct stage *stage = *state;
	struct reader reader;

	produce(stage, STREAM_OUT, 0, 1000);
	open_reader(stage, &reader, STREAM_OUT, 0);
	assert_int_equal(consume(&reader, CAPACITY), 1000);
	produce(stage, STREAM_OUT, 1000, 500);
	assert_int_equal(consume(&reader, CAPACITY), 500);
	assert_int_equal(consume(&reader, CAPACITY), 0);
	reader_close(&reader);
}

static void a_stream_ends_after_its_last_byte(void **state)
{
	struct stage *stage = *state;
	const unsigned char *data;
	struct reader reader;
	size_t n_bytes;

	open_reader(stage, &reader, STREAM_ERR, 0);
	assert_int_equal(reader_peek(&reader, &data, &n_bytes), 0);
	produce(stage, STREAM_ERR, 0, 10);
	atomic_store(&stage->writer[STREAM_ERR].shared->closed, 1);
	assert_int_equal(reader_peek(&reader, &data, &n_bytes), 1);
	assert_int_equal(consume(&reader, CAPACITY), 10);
	assert_int_equal(reader_peek(&reader, &data, &n_bytes), -ENODATA);
	reader_close(&reader);
}

static void the_next_reader_goes_on_where_the_last_one_stopped(void **state)
{
	struct stage *stage = *state;
	struct reader reader;
	struct pin pin;

	produce(stage, STREAM_OUT, 0, 1000);
	open_reader(stage, &reader, STREAM_OUT, output_pin(&stage->output, STREAM_OUT, &pin));
	output_unpin(&stage->output, STREAM_OUT, &pin);
	assert_int_equal(consume(&reader, 300), 300);
	reader_close(&reader);
	assert_int_equal(output_pin(&stage->output, STREAM_OUT, &pin), 300);
	open_reader(stage, &reader, STREAM_OUT, pin.at);
	output_unpin(&stage->output, STREAM_OUT, &pin);
	assert_int_equal(consume(&reader, CAPACITY), 700);
	reader_close(&reader);
}

static uint64_t tail_of(struct stage *stage, int stream)
{
	return atomic_load(&stage->writer[stream].shared->tail);
}

static void the_slowest_reader_holds_the_ring(void **state)
{
	struct stage *stage = *state;
	struct reader fast, slow;

	open_reader(stage, &fast, STREAM_OUT, 0);
	open_reader(stage, &slow, STREAM_OUT, 0);
	produce(stage, STREAM_OUT, 0, CAPACITY);
	assert_int_equal(consume(&slow, 100), 100);
	assert_int_equal(consume(&fast, CAPACITY), CAPACITY);
	assert_true(tail_of(stage, STREAM_OUT) <= 100);
	assert_int_equal(ring_fill(&stage->writer[STREAM_OUT], stage->pipe_read_fd), -ENOBUFS);
	assert_int_equal(consume(&slow, CAPACITY), CAPACITY - 100);
	reader_close(&slow);
	reader_close(&fast);
	assert_int_equal(tail_of(stage, STREAM_OUT), CAPACITY);
}

static void a_slow_reader_that_leaves_frees_the_ring_and_kicks_the_writer(void **state)
{
	struct stage *stage = *state;
	struct pollfd kick = { .fd = stage->kick_fd, .events = POLLIN };
	struct reader fast, slow;

	open_reader(stage, &fast, STREAM_OUT, 0);
	open_reader(stage, &slow, STREAM_OUT, 0);
	produce(stage, STREAM_OUT, 0, CAPACITY);
	consume(&fast, CAPACITY);
	assert_int_equal(ring_fill(&stage->writer[STREAM_OUT], stage->pipe_read_fd), -ENOBUFS);
	assert_int_equal(poll(&kick, 1, 0), 0);
	reader_close(&slow);
	assert_int_equal(poll(&kick, 1, 0), 1);
	assert_int_equal(tail_of(stage, STREAM_OUT), CAPACITY);
	reader_close(&fast);
}

static void a_pin_keeps_the_bytes_for_who_comes_to_fetch_them(void **state)
{
	struct stage *stage = *state;
	struct reader first, second;
	struct pin pin;

	produce(stage, STREAM_OUT, 0, CAPACITY / 2);
	open_reader(stage, &first, STREAM_OUT, 0);
	assert_int_equal(output_pin(&stage->output, STREAM_OUT, &pin), 0);
	assert_int_equal(consume(&first, CAPACITY), CAPACITY / 2);
	reader_close(&first);
	assert_int_equal(tail_of(stage, STREAM_OUT), 0);
	open_reader(stage, &second, STREAM_OUT, pin.at);
	output_unpin(&stage->output, STREAM_OUT, &pin);
	assert_int_equal(consume(&second, CAPACITY), CAPACITY / 2);
	reader_close(&second);
	assert_int_equal(tail_of(stage, STREAM_OUT), CAPACITY / 2);
}

static void what_was_dropped_before_anybody_came_is_skipped(void **state)
{
	struct stage *stage = *state;
	struct reader reader;

	produce(stage, STREAM_OUT, 0, 5000);
	ring_drop(&stage->writer[STREAM_OUT], 2000);
	open_reader(stage, &reader, STREAM_OUT, 0);
	assert_int_equal(reader.cursor, 2000);
	assert_int_equal(consume(&reader, CAPACITY), 3000);
	reader_close(&reader);
}

static void rings_are_mapped_only_while_somebody_reads(void **state)
{
	struct stage *stage = *state;
	struct reader out, err;

	assert_null(stage->output.rings[0].shared);
	open_reader(stage, &out, STREAM_OUT, 0);
	open_reader(stage, &err, STREAM_ERR, 0);
	assert_non_null(stage->output.rings[0].shared);
	reader_close(&out);
	assert_non_null(stage->output.rings[0].shared);
	reader_close(&err);
	assert_null(stage->output.rings[0].shared);
}

static void an_output_is_released_once_when_all_was_delivered(void **state)
{
	struct stage *stage = *state;
	struct reader reader;
	struct err err = { 0 };
	struct pin pin;

	produce(stage, STREAM_OUT, 0, 100);
	output_pin(&stage->output, STREAM_OUT, &pin);
	assert_false(output_try_release(&stage->output));
	atomic_store(&stage->writer[STREAM_OUT].shared->closed, 1);
	atomic_store(&stage->writer[STREAM_ERR].shared->closed, 1);
	assert_false(output_try_release(&stage->output));
	open_reader(stage, &reader, STREAM_OUT, 0);
	consume(&reader, CAPACITY);
	assert_false(output_try_release(&stage->output));
	reader_close(&reader);
	assert_false(output_try_release(&stage->output));
	output_unpin(&stage->output, STREAM_OUT, &pin);
	assert_true(output_try_release(&stage->output));
	assert_false(output_try_release(&stage->output));
	assert_int_equal(reader_open(&reader, &stage->output, STREAM_OUT, 0, -1, &err), -ENODATA);
}

static void an_output_without_rings_has_ended(void **state UNUSED)
{
	struct output output;
	struct reader reader;
	struct err err = { 0 };

	output_init(&output, -1, -1, -1);
	assert_int_equal(reader_open(&reader, &output, STREAM_OUT, 0, -1, &err), -ENODATA);
	assert_false(output_try_release(&output));
	output_done(&output);
}

/* ---- with a thread in the part of the shim --------------------------------------------------------- */

#define N_TOTAL (UINT64_C(48) << 20)

/* As the shim does it: what the pipe holds goes into the ring, the memory of a drained ring goes back. */
static void pump(struct stage *stage)
{
	struct ring *ring = &stage->writer[STREAM_OUT];
	struct pollfd kick = { .fd = stage->kick_fd, .events = POLLIN };
	uint64_t count;
	ssize_t n;

	while ((n = ring_fill(ring, stage->pipe_read_fd)) != -EAGAIN) {
		if (n == -ENOBUFS) {
			poll(&kick, 1, GUARD_SECONDS * 1000);
			(void)!read(stage->kick_fd, &count, sizeof(count));
		} else if (ring_wants_wake(ring)) {
			signal_event(stage->data_fd);
		}
		ring_trim(stage->output.ring_fd, ring, STREAM_OUT);
	}
}

/* Bursts: the reader is done and idle when the next one comes. */
static void *shim_thread(void *arg)
{
	struct stage *stage = arg;
	unsigned char data[40000];
	uint64_t offset = 0;

	while (offset < N_TOTAL) {
		size_t n = 1 + offset * 2654435761u % sizeof(data);

		for (size_t i = 0; i < n; i++)
			data[i] = byte_at(offset + i);
		assert_int_equal(write(stage->pipe_write_fd, data, n), n);
		pump(stage);
		offset += n;
	}
	atomic_store(&stage->writer[STREAM_OUT].shared->closed, 1);
	signal_event(stage->data_fd);
	return NULL;
}

static void nothing_is_lost_while_memory_is_given_back(void **state)
{
	struct stage *stage = *state;
	struct reader reader, *readers[] = { &reader };
	const unsigned char *data;
	pthread_t thread;
	size_t n_bytes;
	int r;

	fcntl(stage->pipe_read_fd, F_SETFL, O_NONBLOCK);
	open_reader(stage, &reader, STREAM_OUT, 0);
	assert_int_equal(pthread_create(&thread, NULL, shim_thread, stage), 0);
	while ((r = reader_peek(&reader, &data, &n_bytes)) >= 0) {
		if (r == 1)
			consume(&reader, CAPACITY);
		else
			readers_wait(readers, 1, false, GUARD_SECONDS * 1000);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(reader.cursor >= N_TOTAL);
	reader_close(&reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAGE_TEST(a_reader_gets_what_was_there_and_what_comes),
		STAGE_TEST(a_stream_ends_after_its_last_byte),
		STAGE_TEST(the_next_reader_goes_on_where_the_last_one_stopped),
		STAGE_TEST(the_slowest_reader_holds_the_ring),
		STAGE_TEST(a_slow_reader_that_leaves_frees_the_ring_and_kicks_the_writer),
		STAGE_TEST(a_pin_keeps_the_bytes_for_who_comes_to_fetch_them),
		STAGE_TEST(what_was_dropped_before_anybody_came_is_skipped),
		STAGE_TEST(rings_are_mapped_only_while_somebody_reads),
		STAGE_TEST(an_output_is_released_once_when_all_was_delivered),
		cmocka_unit_test(an_output_without_rings_has_ended),
		STAGE_TEST(nothing_is_lost_while_memory_is_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

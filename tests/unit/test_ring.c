#include "unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "linux/ring.h"

#define CAPACITY 8192

struct pipe_and_ring {
	int ring_fd, read_fd, write_fd;
	struct ring rings[N_STREAMS];
};

static int make_ring(void **state)
{
	struct pipe_and_ring *r = calloc(1, sizeof(*r));
	int fds[2];

	if (!r || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	r->read_fd = fds[0];
	r->write_fd = fds[1];
	r->ring_fd = ring_create(CAPACITY);
	*state = r;
	return r->ring_fd < 0 ? -1 : ring_map(r->ring_fd, r->rings);
}

static int free_ring(void **state)
{
	struct pipe_and_ring *r = *state;

	ring_unmap(r->rings);
	auto_fd(&r->ring_fd);
	auto_fd(&r->read_fd);
	auto_fd(&r->write_fd);
	free(r);
	return 0;
}

/* Byte n of an endless text: no period that a capacity could hide. */
static unsigned char byte_at(uint64_t n)
{
	return (unsigned char)(n * 7 + n / 256 * 13 + n / 65536);
}

static void put(struct pipe_and_ring *r, uint64_t from, size_t n_bytes)
{
	unsigned char data[2 * CAPACITY];

	for (size_t i = 0; i < n_bytes; i++)
		data[i] = byte_at(from + i);
	assert_int_equal(write(r->write_fd, data, n_bytes), n_bytes);
}

static void expect(const struct ring *ring, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		const unsigned char *data;
		size_t n = ring_peek(ring, offset, &data);

		assert_in_range(n, 1, end - offset);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(data[i], byte_at(offset + i));
		offset += n;
	}
}

static void a_new_ring_is_empty_and_close_on_exec(void **state)
{
	struct pipe_and_ring *r = *state;
	const unsigned char *data;

	assert_int_equal(fcntl(r->ring_fd, F_GETFD), FD_CLOEXEC);
	for (int i = 0; i < N_STREAMS; i++) {
		assert_int_equal(r->rings[i].capacity_bytes, CAPACITY);
		assert_int_equal(ring_peek(&r->rings[i], 0, &data), 0);
		assert_false(ring_wants_wake(&r->rings[i]));
	}
}

static void a_ring_cannot_change_its_size(void **state)
{
	struct pipe_and_ring *r = *state;

	assert_int_equal(ftruncate(r->ring_fd, 0), -1);
	assert_int_equal(ftruncate(r->ring_fd, 1 << 20), -1);
	assert_int_equal(fcntl(r->ring_fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
}

static void bytes_go_through_and_around(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_OUT];
	uint64_t offset = 0;

	for (size_t n = 1; n < 3000; n += 97) {
		put(r, offset, n);
		assert_int_equal(ring_fill(ring, r->read_fd), n);
		expect(ring, offset, offset + n);
		offset += n;
		assert_false(ring_release(ring, offset));
	}
	assert_true(offset > 5 * CAPACITY);
}

static void the_two_streams_do_not_mix(void **state)
{
	struct pipe_and_ring *r = *state;

	put(r, 0, CAPACITY);
	assert_int_equal(ring_fill(&r->rings[STREAM_OUT], r->read_fd), CAPACITY);
	put(r, 1000, CAPACITY);
	assert_int_equal(ring_fill(&r->rings[STREAM_ERR], r->read_fd), CAPACITY);
	expect(&r->rings[STREAM_OUT], 0, CAPACITY);
	for (uint64_t i = 0; i < CAPACITY; i++)
		assert_int_equal(r->rings[STREAM_ERR].data[i], byte_at(1000 + i));
}

static void a_full_ring_leaves_the_rest_in_the_pipe_and_asks_for_a_kick(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_OUT];

	put(r, 0, CAPACITY + 100);
	assert_int_equal(ring_fill(ring, r->read_fd), CAPACITY);
	assert_int_equal(ring_fill(ring, r->read_fd), -ENOBUFS);
	assert_true(ring_release(ring, 10));
	assert_int_equal(ring_fill(ring, r->read_fd), 10);
	assert_int_equal(ring_fill(ring, r->read_fd), -ENOBUFS);
	expect(ring, 10, CAPACITY + 10);
	assert_true(ring_release(ring, CAPACITY));
	assert_int_equal(ring_fill(ring, r->read_fd), 90);
	assert_false(ring_release(ring, CAPACITY + 1));
	expect(ring, CAPACITY + 1, CAPACITY + 100);
}

static void the_tail_never_goes_back(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_OUT];

	put(r, 0, CAPACITY);
	assert_int_equal(ring_fill(ring, r->read_fd), CAPACITY);
	ring_release(ring, 500);
	ring_release(ring, 400);
	assert_int_equal(atomic_load(&ring->shared->tail), 500);
}

static void the_end_of_the_pipe_is_zero_and_nothing_yet_is_eagain(void **state)
{
	struct pipe_and_ring *r = *state;

	assert_int_equal(ring_fill(&r->rings[STREAM_OUT], r->read_fd), -EAGAIN);
	assert_int_equal(ring_fill(&r->rings[STREAM_OUT], -1), -EBADF);
	put(r, 0, 5);
	auto_fd(&r->write_fd);
	assert_int_equal(ring_fill(&r->rings[STREAM_OUT], r->read_fd), 5);
	assert_int_equal(ring_fill(&r->rings[STREAM_OUT], r->read_fd), 0);
}

static void a_second_map_sees_the_same_bytes(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring other[N_STREAMS];

	assert_int_equal(ring_map(r->ring_fd, other), 0);
	put(r, 0, 100);
	assert_int_equal(ring_fill(&r->rings[STREAM_ERR], r->read_fd), 100);
	expect(&other[STREAM_ERR], 0, 100);
	atomic_fetch_add(&other[STREAM_ERR].shared->n_waiting, 1);
	assert_true(ring_wants_wake(&r->rings[STREAM_ERR]));
	assert_false(ring_wants_wake(&r->rings[STREAM_OUT]));
	ring_unmap(other);
	assert_null(other[0].shared);
	ring_unmap(other);
}

static void forgotten_bytes_are_counted_and_make_room(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_OUT];

	put(r, 0, CAPACITY + 1000);
	assert_int_equal(ring_fill(ring, r->read_fd), CAPACITY);
	ring_drop(ring, 300);
	ring_drop(ring, 700);
	assert_int_equal(atomic_load(&ring->shared->dropped_bytes), 1000);
	assert_int_equal(atomic_load(&ring->shared->tail), 1000);
	assert_int_equal(ring_fill(ring, r->read_fd), 1000);
	expect(ring, 1000, CAPACITY + 1000);
}

static long n_blocks(const struct pipe_and_ring *r)
{
	struct stat st;

	assert_int_equal(fstat(r->ring_fd, &st), 0);
	return st.st_blocks;
}

static void trimmed_pages_go_back_to_the_system(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_ERR];
	long before;

	atomic_store(&ring->shared->opened, 1); /* the page of the heads is there from now on */
	before = n_blocks(r);
	put(r, 0, CAPACITY);
	assert_int_equal(ring_fill(ring, r->read_fd), CAPACITY);
	assert_int_equal(n_blocks(r), before + CAPACITY / 512);
	ring_release(ring, CAPACITY);
	assert_true(ring_trim(r->ring_fd, ring, STREAM_ERR));
	assert_int_equal(n_blocks(r), before);
}

static void trimming_leaves_what_has_not_been_read(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_OUT];

	put(r, 0, CAPACITY);
	assert_int_equal(ring_fill(ring, r->read_fd), CAPACITY);
	ring_release(ring, CAPACITY - 1);
	assert_false(ring_trim(r->ring_fd, ring, STREAM_OUT));
	expect(ring, CAPACITY - 1, CAPACITY);
}

static void offsets_may_pass_the_32nd_bit(void **state)
{
	struct pipe_and_ring *r = *state;
	struct ring *ring = &r->rings[STREAM_OUT];
	uint64_t offset = (UINT64_C(1) << 40) - 1000;

	atomic_store(&ring->shared->head, offset);
	atomic_store(&ring->shared->tail, offset);
	put(r, offset, 3000);
	assert_int_equal(ring_fill(ring, r->read_fd), 3000);
	expect(ring, offset, offset + 3000);
}

static void files_that_are_no_ring_are_refused(void **state UNUSED)
{
	static const off_t sizes[] = { 0, 1, 4095, 4096, 4098, 4096 + 4096, 4096 + 2 * 4095,
		4096 + 2 * 12288 };
	struct ring rings[N_STREAMS];

	assert_int_equal(ring_map(-1, rings), -EBADF);
	for (size_t i = 0; i < N_ELEMENTS(sizes); i++) {
		AUTO_FD int fd = memfd_create("test", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, sizes[i]), 0);
		assert_int_equal(ring_map(fd, rings), -EINVAL);
	}
}

#define RING_TEST(name) cmocka_unit_test_setup_teardown(name, make_ring, free_ring)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RING_TEST(a_new_ring_is_empty_and_close_on_exec),
		RING_TEST(a_ring_cannot_change_its_size),
		RING_TEST(bytes_go_through_and_around),
		RING_TEST(the_two_streams_do_not_mix),
		RING_TEST(a_full_ring_leaves_the_rest_in_the_pipe_and_asks_for_a_kick),
		RING_TEST(the_tail_never_goes_back),
		RING_TEST(the_end_of_the_pipe_is_zero_and_nothing_yet_is_eagain),
		RING_TEST(a_second_map_sees_the_same_bytes),
		RING_TEST(forgotten_bytes_are_counted_and_make_room),
		RING_TEST(trimmed_pages_go_back_to_the_system),
		RING_TEST(trimming_leaves_what_has_not_been_read),
		RING_TEST(offsets_may_pass_the_32nd_bit),
		cmocka_unit_test(files_that_are_no_ring_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

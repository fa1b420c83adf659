/* output_stage.h - an output of the server and its shim's end of the rings, for tests of output.h. */
#pragma once
#include "unit.h"

#include <sys/eventfd.h>

#include "base/auto.h"
#include "output.h"

#define CAPACITY 65536

struct stage {
	struct output output;
	struct ring writer[N_STREAMS]; /* the shim's mapping */
	int data_fd, kick_fd, pipe_read_fd, pipe_write_fd;
};

static inline int set_up(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	int ring_fd = ring_create(CAPACITY), fds[2];

	*state = stage;
	if (!stage || ring_fd < 0 || ring_map(ring_fd, stage->writer) || pipe2(fds, O_CLOEXEC))
		return -1;
	stage->pipe_read_fd = fds[0];
	stage->pipe_write_fd = fds[1];
	stage->data_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	stage->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	output_init(&stage->output, ring_fd, stage->data_fd, stage->kick_fd);
	return 0;
}

static inline int tear_down(void **state)
{
	struct stage *stage = *state;

	ring_unmap(stage->writer);
	output_done(&stage->output);
	auto_fd(&stage->kick_fd);
	auto_fd(&stage->pipe_read_fd);
	auto_fd(&stage->pipe_write_fd);
	free(stage);
	return 0;
}

static inline unsigned char byte_at(uint64_t n)
{
	return (unsigned char)(n * 7 + n / 256 * 13 + n / 65536 * 101 + 1);
}

static inline void signal_event(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

/* n_bytes of the endless text, from its byte number `from`, through the pipe into the ring. */
static inline void produce(struct stage *stage, int stream, uint64_t from, size_t n_bytes)
{
	unsigned char data[4096];

	while (n_bytes) {
		size_t n = n_bytes < sizeof(data) ? n_bytes : sizeof(data);

		for (size_t i = 0; i < n; i++)
			data[i] = byte_at(from + i);
		assert_int_equal(write(stage->pipe_write_fd, data, n), n);
		assert_int_equal(ring_fill(&stage->writer[stream], stage->pipe_read_fd), n);
		if (ring_wants_wake(&stage->writer[stream]))
			signal_event(stage->data_fd);
		from += n;
		n_bytes -= n;
	}
}

#define STAGE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

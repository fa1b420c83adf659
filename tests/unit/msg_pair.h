/* msg_pair.h - two ends of a socket, for tests of base/msg.h. */
#pragma once
#include "unit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "base/msg.h"

struct pair {
	int fds[2], n_fds_before;
	char space[MSG_INLINE_BYTES];
};

static inline int make_pair(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	if (!pair)
		return -1;
	pair->n_fds_before = unit_count_fds();
	*state = pair;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair->fds);
}

/* Every test ends with as many descriptors as it began with. */
static inline int end_pair(void **state)
{
	struct pair *pair = *state;
	int n_more;

	auto_fd(&pair->fds[0]);
	auto_fd(&pair->fds[1]);
	n_more = unit_count_fds() - pair->n_fds_before;
	if (n_more)
		print_error("%d descriptors more than before\n", n_more);
	free(pair);
	return n_more;
}

static inline int receive(struct pair *pair, struct msg *ret)
{
	return msg_recv(pair->fds[1], ret, pair->space, MSG_DONTWAIT);
}

static inline int send_body(struct pair *pair, const void *body, size_t n_bytes)
{
	struct msg msg = { .type = 7, .seq = 99, .body = (void *)body, .body_bytes = n_bytes };

	return msg_send(pair->fds[0], &msg);
}

static inline int sealed_memfd(size_t n_bytes, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)n_bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

#define PAIR_TEST(name) cmocka_unit_test_setup_teardown(name, make_pair, end_pair)

/* What a peer without manners sends is refused, and costs nothing. */
#include "msg_pair.h"

#include <errno.h>

/* A packet as a peer without manners would write it. */
static void send_raw(
	struct pair *pair, const void *data, size_t n_bytes, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * 64)];
	} control = { 0 };
	struct iovec iov = { (void *)data, n_bytes };
	struct msghdr packet = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * n_fds);
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
	}
	assert_int_equal(sendmsg(pair->fds[0], &packet, MSG_NOSIGNAL), n_bytes);
}

/* The head of a true message, to be spoiled. */
static struct msg_head learn_head(struct pair *pair)
{
	struct msg_head head;

	assert_int_equal(send_body(pair, NULL, 0), 0);
	assert_int_equal(recv(pair->fds[1], &head, sizeof(head), MSG_DONTWAIT), sizeof(head));
	return head;
}

#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

static void garbage_is_refused_and_the_next_message_still_arrives(void **state)
{
	struct pair *pair = *state;
	const struct msg_head good = learn_head(pair);
	struct {
		struct msg_head head;
		char body[4];
	} packet = { good, "abc" };
	struct msg msg;

	for (size_t n = 1; n < sizeof(good); n++) {
		send_raw(pair, &packet, n, NULL, 0);
		assert_int_equal(receive(pair, &msg), -EPROTO);
	}
	send_raw(pair, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 28, NULL, 0);
	assert_int_equal(receive(pair, &msg), -EPROTO);
	for (uint32_t claim = 0; claim <= 8; claim++) {
		packet.head.body_bytes = claim;
		send_raw(pair, &packet, sizeof(packet), NULL, 0);
		assert_int_equal(receive(pair, &msg), claim == 4 ? 0 : -EPROTO);
	}
	packet.head.body_bytes = UINT32_MAX;
	send_raw(pair, &packet, sizeof(packet), NULL, 0);
	assert_int_equal(receive(pair, &msg), -EPROTO);
	packet.head = good;
	packet.head.magic ^= 1;
	send_raw(pair, &packet, sizeof(good), NULL, 0);
	assert_int_equal(receive(pair, &msg), -EPROTO);
	assert_int_equal(send_body(pair, "fine", 5), 0);
	assert_int_equal(receive(pair, &msg), 0);
	assert_string_equal(msg.body, "fine");
	msg_done(&msg);
}

static void a_packet_longer_than_the_space_is_refused(void **state)
{
	struct pair *pair = *state;
	struct msg_head head = learn_head(pair);
	size_t n_bytes = sizeof(head) + MSG_INLINE_BYTES + 100;
	AUTO_FREE char *packet = calloc(1, n_bytes);
	struct msg msg;

	head.body_bytes = MSG_INLINE_BYTES + 100;
	memcpy(packet, &head, sizeof(head));
	send_raw(pair, packet, n_bytes, NULL, 0);
	assert_int_equal(receive(pair, &msg), -EPROTO);
}

static void the_descriptors_of_garbage_are_closed(void **state)
{
	struct pair *pair = *state;
	struct msg msg;

	send_raw(pair, "garbage", 7, pair->fds, 2);
	assert_int_equal(receive(pair, &msg), -EPROTO);
	send_raw(pair, "", 0, pair->fds, 2);
	assert_true(receive(pair, &msg) < 0);
}

static void more_descriptors_than_fit_are_not_leaked(void **state)
{
	struct pair *pair = *state;
	const struct msg_head head = learn_head(pair);
	struct msg msg;
	int fds[40];

	for (size_t i = 0; i < N_ELEMENTS(fds); i++)
		fds[i] = pair->fds[0];
	for (size_t n = MSG_MAX_FDS + 1; n <= N_ELEMENTS(fds); n++) {
		send_raw(pair, &head, sizeof(head), fds, n);
		if (receive(pair, &msg) == 0) {
			assert_true(msg.n_fds <= MSG_MAX_FDS);
			msg_done(&msg);
		}
		assert_int_equal(unit_count_fds(), pair->n_fds_before + 2);
	}
}

static int receive_with_fd(struct pair *pair, size_t claimed_bytes, int take_fd, struct msg *ret)
{
	struct msg_head head = learn_head(pair);
	AUTO_FD int fd = take_fd;

	head.in_memfd = 1;
	head.body_bytes = (uint32_t)claimed_bytes;
	send_raw(pair, &head, sizeof(head), &fd, fd < 0 ? 0 : 1);
	return receive(pair, ret);
}

static void a_memfd_that_is_missing_or_none_is_refused(void **state)
{
	struct msg msg;
	int pipe_fds[2];

	assert_true(receive_with_fd(*state, 4096, -1, &msg) < 0);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	auto_fd(&pipe_fds[1]);
	assert_true(receive_with_fd(*state, 4096, pipe_fds[0], &msg) < 0);
	assert_true(receive_with_fd(*state, 4096, open("/", O_PATH | O_CLOEXEC), &msg) < 0);
	assert_true(receive_with_fd(*state, 0, sealed_memfd(4096, ALL_SEALS), &msg) < 0);
}

/* Reading behind the end of a mapped file is SIGBUS: a peer could end us with it. */
static void a_memfd_shorter_than_it_claims_is_refused(void **state)
{
	struct msg msg;

	assert_int_equal(receive_with_fd(*state, 8192, sealed_memfd(8192, ALL_SEALS), &msg), 0);
	msg_done(&msg);
	if (receive_with_fd(*state, 8192, sealed_memfd(4096, ALL_SEALS), &msg) == 0) {
		msg_done(&msg);
		fail_msg("8192 bytes claimed, 4096 there");
	}
	if (receive_with_fd(*state, 8192, sealed_memfd(0, ALL_SEALS), &msg) == 0) {
		msg_done(&msg);
		fail_msg("8192 bytes claimed, none there");
	}
}

/* What can still shrink is as good as short; what can be written changes after it was checked. */
static void a_memfd_that_can_still_change_is_refused(void **state)
{
	static const int seals[] = { 0, F_SEAL_SEAL, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SHRINK };

	for (size_t i = 0; i < N_ELEMENTS(seals); i++) {
		struct msg msg;

		if (receive_with_fd(*state, 4096, sealed_memfd(4096, seals[i]), &msg) == 0) {
			msg_done(&msg);
			fail_msg("accepted with seals %#x", (unsigned)seals[i]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PAIR_TEST(garbage_is_refused_and_the_next_message_still_arrives),
		PAIR_TEST(a_packet_longer_than_the_space_is_refused),
		PAIR_TEST(the_descriptors_of_garbage_are_closed),
		PAIR_TEST(more_descriptors_than_fit_are_not_leaked),
		PAIR_TEST(a_memfd_that_is_missing_or_none_is_refused),
		PAIR_TEST(a_memfd_shorter_than_it_claims_is_refused),
		PAIR_TEST(a_memfd_that_can_still_change_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

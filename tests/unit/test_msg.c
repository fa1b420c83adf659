#include "msg_pair.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#define INLINE_MAX (MSG_INLINE_BYTES - sizeof(struct msg_head))

static void a_message_arrives_with_type_number_and_body(void **state)
{
	struct msg msg;

	assert_int_equal(send_body(*state, "hello", 6), 0);
	assert_int_equal(receive(*state, &msg), 0);
	assert_int_equal(msg.type, 7);
	assert_int_equal(msg.seq, 99);
	assert_int_equal(msg.body_bytes, 6);
	assert_string_equal(msg.body, "hello");
	assert_int_equal(msg.n_fds, 0);
	((char *)msg.body)[0] = 'j';
	msg_done(&msg);
}

static void messages_keep_their_order_and_bounds(void **state)
{
	struct msg msg;

	for (int i = 0; i < 10; i++)
		assert_int_equal(send_body(*state, "0123456789", (size_t)i), 0);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(receive(*state, &msg), 0);
		assert_int_equal(msg.body_bytes, i);
		assert_memory_equal(msg.body, "0123456789", i);
		msg_done(&msg);
	}
}

static void check_long_body(struct pair *pair, size_t n_bytes, bool in_memfd)
{
	AUTO_FREE unsigned char *body = malloc(n_bytes);
	struct msg msg;

	assert_non_null(body);
	for (size_t i = 0; i < n_bytes; i++)
		body[i] = (unsigned char)(i * 31 + i / 251);
	assert_int_equal(send_body(pair, body, n_bytes), 0);
	assert_int_equal(receive(pair, &msg), 0);
	assert_int_equal(msg.body_bytes, n_bytes);
	assert_memory_equal(msg.body, body, n_bytes);
	assert_int_equal(msg.map != NULL, in_memfd);
	assert_int_equal(msg.n_fds, 0);
	memset(msg.body, 0, n_bytes);
	msg_done(&msg);
	assert_null(msg.map);
}

static void a_long_body_travels_in_a_memfd(void **state)
{
	check_long_body(*state, INLINE_MAX - 1, false);
	check_long_body(*state, INLINE_MAX, false);
	check_long_body(*state, INLINE_MAX + 1, true);
	check_long_body(*state, MSG_INLINE_BYTES, true);
	check_long_body(*state, 1000000, true);
	check_long_body(*state, MSG_BODY_MAX, true);
}

static void what_is_too_large_is_refused_before_it_is_sent(void **state)
{
	struct pair *pair = *state;
	struct msg msg = { .body = pair, .body_bytes = MSG_BODY_MAX + 1 };

	assert_int_equal(msg_send(pair->fds[0], &msg), -EMSGSIZE);
	msg.body_bytes = SIZE_MAX;
	assert_int_equal(msg_send(pair->fds[0], &msg), -EMSGSIZE);
	msg.body_bytes = 0;
	msg.n_fds = MSG_MAX_FDS + 1;
	assert_int_equal(msg_send(pair->fds[0], &msg), -EMSGSIZE);
	assert_int_equal(receive(pair, &msg), -EAGAIN);
}

static void check_fds(struct pair *pair, size_t body_bytes)
{
	AUTO_FREE char *body = calloc(1, body_bytes);
	struct msg msg = { .body = body, .body_bytes = body_bytes, .n_fds = MSG_MAX_FDS };
	struct stat was[MSG_MAX_FDS], is;

	for (int i = 0; i < MSG_MAX_FDS; i++) {
		msg.fds[i] = sealed_memfd(0, F_SEAL_SEAL);
		assert_int_equal(fstat(msg.fds[i], &was[i]), 0);
	}
	assert_int_equal(msg_send(pair->fds[0], &msg), 0);
	for (int i = 0; i < MSG_MAX_FDS; i++)
		auto_fd(&msg.fds[i]);
	assert_int_equal(receive(pair, &msg), 0);
	assert_int_equal(msg.n_fds, MSG_MAX_FDS);
	assert_int_equal(msg.body_bytes, body_bytes);
	for (int i = 0; i < MSG_MAX_FDS; i++) {
		assert_int_equal(fstat(msg.fds[i], &is), 0);
		assert_int_equal(is.st_ino, was[i].st_ino);
		assert_int_equal(fcntl(msg.fds[i], F_GETFD), FD_CLOEXEC);
	}
	msg_done(&msg);
}

static void descriptors_arrive_in_order_and_close_on_exec(void **state)
{
	check_fds(*state, 10);
	check_fds(*state, MSG_INLINE_BYTES + 1);
}

static void sending_leaves_the_descriptors_to_the_sender(void **state)
{
	struct pair *pair = *state;
	struct msg msg = { .fds = { sealed_memfd(0, 0) }, .n_fds = 1 };
	int fd = msg.fds[0];

	assert_int_equal(msg_send(pair->fds[0], &msg), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	auto_fd(&fd);
	assert_int_equal(receive(pair, &msg), 0);
	msg_done(&msg);
}

static void a_taken_descriptor_survives_the_message(void **state)
{
	struct pair *pair = *state;
	struct msg msg = { .fds = { pair->fds[0], pair->fds[0] }, .n_fds = 2 };
	int taken;

	assert_int_equal(msg_send(pair->fds[0], &msg), 0);
	assert_int_equal(receive(pair, &msg), 0);
	taken = TAKE_FD(msg.fds[1]);
	msg_done(&msg);
	assert_true(fcntl(taken, F_GETFD) >= 0);
	auto_fd(&taken);
	msg_done(&msg);
}

static void a_closed_descriptor_cannot_be_sent(void **state)
{
	struct pair *pair = *state;
	struct msg msg = { .fds = { -1 }, .n_fds = 1 };

	assert_int_equal(msg_send(pair->fds[0], &msg), -EBADF);
}

static void nothing_to_receive_is_eagain_when_told_not_to_wait(void **state)
{
	struct msg msg;

	assert_int_equal(receive(*state, &msg), -EAGAIN);
}

static void a_peer_that_is_gone_is_no_data_and_a_broken_pipe(void **state)
{
	struct pair *pair = *state;
	struct msg msg;

	assert_int_equal(send_body(pair, "last", 5), 0);
	auto_fd(&pair->fds[0]);
	assert_int_equal(receive(pair, &msg), 0);
	assert_string_equal(msg.body, "last");
	msg_done(&msg);
	assert_int_equal(receive(pair, &msg), -ENODATA);
	assert_int_equal(receive(pair, &msg), -ENODATA);
	msg = (struct msg){ 0 };
	assert_int_equal(msg_send(pair->fds[1], &msg), -EPIPE);
}

static void what_a_peer_said_before_it_went_with_our_message_unread_arrives(void **state)
{
	struct pair *pair = *state;
	struct msg msg = { 0 };

	assert_int_equal(send_body(pair, "last", 5), 0);
	assert_int_equal(msg_send(pair->fds[1], &msg), 0);
	auto_fd(&pair->fds[0]);
	assert_int_equal(receive(pair, &msg), 0);
	assert_string_equal(msg.body, "last");
	msg_done(&msg);
	assert_int_equal(receive(pair, &msg), -ENODATA);
}

static void errors_of_the_socket_are_passed_on(void **state)
{
	struct pair *pair = *state;
	AUTO_FD int file = sealed_memfd(0, 0);
	struct msg msg = { 0 };

	assert_int_equal(msg_send(-1, &msg), -EBADF);
	assert_int_equal(msg_send(file, &msg), -ENOTSOCK);
	assert_int_equal(msg_recv(-1, &msg, pair->space, 0), -EBADF);
	assert_int_equal(msg_recv(file, &msg, pair->space, 0), -ENOTSOCK);
}

static void a_full_socket_blocks_no_more_than_asked(void **state)
{
	struct pair *pair = *state;
	struct msg msg = { .body = pair->space, .body_bytes = INLINE_MAX };
	int n_sent = 0, r;

	assert_int_equal(fcntl(pair->fds[0], F_SETFL, O_NONBLOCK), 0);
	while ((r = msg_send(pair->fds[0], &msg)) == 0)
		n_sent++;
	assert_int_equal(r, -EAGAIN);
	for (; n_sent; n_sent--) {
		assert_int_equal(receive(pair, &msg), 0);
		msg_done(&msg);
	}
}

static void a_shorter_body_of_an_older_peer_is_filled_with_zero(void **state)
{
	struct {
		uint32_t old, new;
	} body = { 1, 1 }, shorter = { 5, 5 };
	struct msg msg;

	assert_int_equal(send_body(*state, &shorter, sizeof(shorter.old)), 0);
	assert_int_equal(receive(*state, &msg), 0);
	msg_body(&msg, &body, sizeof(body));
	assert_int_equal(body.old, 5);
	assert_int_equal(body.new, 0);
	msg_done(&msg);
}

static void a_longer_body_of_a_newer_peer_is_cut(void **state)
{
	struct {
		uint32_t known, behind;
	} body = { 1, 1 };
	const uint32_t longer[] = { 5, 6, 7 };
	struct msg msg;

	assert_int_equal(send_body(*state, longer, sizeof(longer)), 0);
	assert_int_equal(receive(*state, &msg), 0);
	msg_body(&msg, &body, sizeof(body.known));
	assert_int_equal(body.known, 5);
	assert_int_equal(body.behind, 1);
	msg_body(&msg, &body, 0);
	assert_int_equal(body.known, 5);
	msg_done(&msg);
}

static void an_empty_body_is_all_zero(void **state)
{
	uint64_t body = UINT64_MAX;
	struct msg msg;

	assert_int_equal(send_body(*state, NULL, 0), 0);
	assert_int_equal(receive(*state, &msg), 0);
	msg_body(&msg, &body, sizeof(body));
	assert_int_equal(body, 0);
	msg_done(&msg);
}

static void ignore_signal(int number UNUSED)
{
}

struct interrupter {
	struct pair *pair;
	pthread_t target;
};

static void *interrupt_then_send(void *arg)
{
	struct interrupter *job = arg;

	for (int i = 0; i < 1000; i++)
		pthread_kill(job->target, SIGUSR1);
	send_body(job->pair, "done", 5);
	return NULL;
}

static void a_signal_does_not_disturb_a_wait(void **state)
{
	struct sigaction action = { .sa_handler = ignore_signal }, old;
	struct interrupter job = { *state, pthread_self() };
	struct msg msg;
	pthread_t thread;

	assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_then_send, &job), 0);
	assert_int_equal(msg_recv(job.pair->fds[1], &msg, job.pair->space, 0), 0);
	assert_string_equal(msg.body, "done");
	msg_done(&msg);
	pthread_join(thread, NULL);
	sigaction(SIGUSR1, &old, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PAIR_TEST(a_message_arrives_with_type_number_and_body),
		PAIR_TEST(messages_keep_their_order_and_bounds),
		PAIR_TEST(a_long_body_travels_in_a_memfd),
		PAIR_TEST(what_is_too_large_is_refused_before_it_is_sent),
		PAIR_TEST(descriptors_arrive_in_order_and_close_on_exec),
		PAIR_TEST(sending_leaves_the_descriptors_to_the_sender),
		PAIR_TEST(a_taken_descriptor_survives_the_message),
		PAIR_TEST(a_closed_descriptor_cannot_be_sent),
		PAIR_TEST(nothing_to_receive_is_eagain_when_told_not_to_wait),
		PAIR_TEST(a_peer_that_is_gone_is_no_data_and_a_broken_pipe),
		PAIR_TEST(what_a_peer_said_before_it_went_with_our_message_unread_arrives),
		PAIR_TEST(errors_of_the_socket_are_passed_on),
		PAIR_TEST(a_full_socket_blocks_no_more_than_asked),
		PAIR_TEST(a_shorter_body_of_an_older_peer_is_filled_with_zero),
		PAIR_TEST(a_longer_body_of_a_newer_peer_is_cut),
		PAIR_TEST(an_empty_body_is_all_zero),
		PAIR_TEST(a_signal_does_not_disturb_a_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The server's ends of its sockets to shims; the test itself plays the shim. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "base/err.h"
#include "link.h"
#include "shim/protocol.h"

struct stage {
	int n_fds_before, shim_fd, exited_fd, dead_fd;
	struct links *links;
	struct link *link;
	struct msg_exited exited; /* the last one */
	struct msg_hit hit;
	bool dead_had_message;
	char space[MSG_INLINE_BYTES];
};

static void signal_event(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void wait_event(int fd)
{
	struct pollfd event = { .fd = fd, .events = POLLIN };
	uint64_t count;

	assert_int_equal(poll(&event, 1, GUARD_SECONDS * 1000), 1);
	assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
}

static void on_exited(void *owner, const struct msg *msg)
{
	struct stage *stage = owner;

	msg_body(msg, &stage->exited, sizeof(stage->exited));
	signal_event(stage->exited_fd);
}

static void on_dead(void *owner, const struct msg *msg)
{
	struct stage *stage = owner;

	stage->dead_had_message = msg;
	signal_event(stage->dead_fd);
}

static void on_hit(void *owner, const struct msg *msg)
{
	struct stage *stage = owner;

	msg_body(msg, &stage->hit, sizeof(stage->hit));
	signal_event(stage->exited_fd);
}

static const struct link_events events = { .exited = on_exited, .dead = on_dead, .hit = on_hit };

static int set_up(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	int pair[2];

	*state = stage;
	stage->n_fds_before = unit_count_fds();
	stage->exited_fd = eventfd(0, EFD_CLOEXEC);
	stage->dead_fd = eventfd(0, EFD_CLOEXEC);
	if (links_open(&events, &stage->links, NULL) ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ||
		link_open(stage->links, pair[0], stage, &stage->link, NULL))
		return -1;
	stage->shim_fd = pair[1];
	return 0;
}

/* Every test ends with as many descriptors as it began with. */
static int tear_down(void **state)
{
	struct stage *stage = *state;
	int n_more;

	link_close(stage->link);
	links_close(stage->links);
	auto_fd(&stage->shim_fd);
	auto_fd(&stage->exited_fd);
	auto_fd(&stage->dead_fd);
	n_more = unit_count_fds() - stage->n_fds_before;
	if (n_more)
		print_error("%d descriptors more than before\n", n_more);
	free(stage);
	return n_more;
}

static uint32_t receive_request(struct stage *stage, uint16_t type)
{
	struct msg msg;

	assert_int_equal(msg_recv(stage->shim_fd, &msg, stage->space, 0), 0);
	assert_int_equal(msg.type, type);
	msg_done(&msg);
	return msg.seq;
}

static void answer(struct stage *stage, uint32_t seq, uint64_t value, int fd)
{
	struct msg_reply body = { .value = value };
	struct msg msg = { .type = MSG_REPLY,
		.seq = seq,
		.body = &body,
		.body_bytes = sizeof(body),
		.fds = { fd },
		.n_fds = fd >= 0 };

	assert_int_equal(msg_send(stage->shim_fd, &msg), 0);
}

static uint64_t value_of(const struct answer *answer)
{
	struct msg_reply body;

	answer_body(answer, &body, sizeof(body));
	return body.value;
}

static int64_t send_request(struct stage *stage, uint16_t type)
{
	int64_t seq = link_send(stage->link, &(struct msg){ .type = type });

	assert_true(seq > 0);
	return seq;
}

static void a_call_gets_its_answer_and_descriptors(void **state)
{
	struct stage *stage = *state;
	int64_t seq = send_request(stage, MSG_HELLO);
	struct answer got = { 0 };

	answer(stage, receive_request(stage, MSG_HELLO), 42, stage->shim_fd);
	assert_int_equal(link_wait(stage->link, seq, GUARD_SECONDS * 1000, &got, NULL), 0);
	assert_int_equal(value_of(&got), 42);
	assert_int_equal(got.n_fds, 1);
	assert_int_equal(fcntl(got.fds[0], F_GETFD), FD_CLOEXEC);
	answer_done(&got);
}

static void an_answer_that_nobody_wants_is_freed(void **state)
{
	struct stage *stage = *state;
	int64_t seq = send_request(stage, MSG_HELLO);

	answer(stage, receive_request(stage, MSG_HELLO), 42, stage->shim_fd);
	assert_int_equal(link_wait(stage->link, seq, GUARD_SECONDS * 1000, NULL, NULL), 0);
}

static void answers_find_their_calls_in_any_order(void **state)
{
	struct stage *stage = *state;
	int64_t seqs[10];
	uint32_t requests[10];

	for (int i = 0; i < 10; i++)
		seqs[i] = send_request(stage, MSG_HELLO);
	for (int i = 0; i < 10; i++)
		requests[i] = receive_request(stage, MSG_HELLO);
	for (int i = 9; i >= 0; i--)
		answer(stage, requests[i], (uint64_t)i, -1);
	for (int i = 0; i < 10; i++) {
		struct answer got = { 0 };

		assert_int_equal(
			link_wait(stage->link, seqs[i], GUARD_SECONDS * 1000, &got, NULL), 0);
		assert_int_equal(value_of(&got), i);
		answer_done(&got);
	}
}

/* An event behind the others: when it is here, they have been dealt with. */
static void wait_until_read(struct stage *stage)
{
	struct msg_exited body = { 0 };

	assert_int_equal(
		msg_send(stage->shim_fd,
			&(struct msg){
				.type = MSG_EXITED, .body = &body, .body_bytes = sizeof(body) }),
		0);
	wait_event(stage->exited_fd);
}

static void a_call_that_is_not_answered_in_time_says_so_and_the_late_answer_is_dropped(void **state)
{
	struct stage *stage = *state;
	int64_t seq = send_request(stage, MSG_HELLO);
	struct answer got = { 0 };
	struct err err = { 0 };

	assert_int_equal(link_wait(stage->link, seq, 1, &got, &err), -ETIMEDOUT);
	assert_int_equal(err.kind, ERR_TIMEOUT);
	assert_int_equal(got.n_fds, 0);
	answer(stage, receive_request(stage, MSG_HELLO), 42, stage->shim_fd);
	wait_until_read(stage);
	assert_true(link_wait(stage->link, seq, 1, &got, &err) < 0);
}

static void answers_to_questions_that_nobody_asked_are_dropped(void **state)
{
	struct stage *stage = *state;

	answer(stage, 0, 1, stage->shim_fd);
	answer(stage, UINT32_MAX, 1, stage->shim_fd);
	assert_int_equal(
		msg_send(stage->shim_fd,
			&(struct msg){ .type = 12345, .n_fds = 1, .fds = { stage->shim_fd } }),
		0);
	wait_until_read(stage);
}

static void events_reach_their_owner(void **state)
{
	struct stage *stage = *state;
	struct msg_exited body = { .token = 7, .exit_status = 137 };
	struct msg_dead dead = { 0 };

	assert_int_equal(
		msg_send(stage->shim_fd,
			&(struct msg){
				.type = MSG_EXITED, .body = &body, .body_bytes = sizeof(body) }),
		0);
	wait_event(stage->exited_fd);
	assert_int_equal(stage->exited.token, 7);
	assert_int_equal(stage->exited.exit_status, 137);
	assert_int_equal(
		msg_send(stage->shim_fd,
			&(struct msg){
				.type = MSG_DEAD, .body = &dead, .body_bytes = sizeof(dead) }),
		0);
	wait_event(stage->dead_fd);
	assert_true(stage->dead_had_message);
}

static void a_shim_that_goes_ends_its_calls_and_its_owner_hears_of_it_once(void **state)
{
	struct stage *stage = *state;
	struct pollfd again = { .fd = stage->dead_fd, .events = POLLIN };
	int64_t seq = send_request(stage, MSG_HELLO);
	struct err err = { 0 };

	auto_fd(&stage->shim_fd);
	assert_int_equal(link_wait(stage->link, seq, GUARD_SECONDS * 1000, NULL, &err), -ESRCH);
	wait_event(stage->dead_fd);
	assert_false(stage->dead_had_message);
	assert_true(link_call(stage->link, &(struct msg){ .type = MSG_HELLO }, NULL, &err) < 0);
	link_post(stage->link, &(struct msg){ .type = MSG_BYE });
	assert_int_equal(poll(&again, 1, 0), 0);
}

static void a_shim_that_talks_nonsense_is_as_good_as_gone(void **state)
{
	struct stage *stage = *state;
	int64_t seq = send_request(stage, MSG_HELLO);

	assert_int_equal(send(stage->shim_fd, "nonsense", 8, 0), 8);
	wait_event(stage->dead_fd);
	assert_false(stage->dead_had_message);
	assert_int_equal(link_wait(stage->link, seq, GUARD_SECONDS * 1000, NULL, NULL), -ESRCH);
}

static void a_post_does_not_wait_for_a_shim_that_does_not_read(void **state)
{
	struct stage *stage = *state;

	for (int i = 0; i < 10000; i++)
		link_post(stage->link, &(struct msg){ .type = MSG_FORGET });
	assert_int_equal(receive_request(stage, MSG_FORGET), 0);
}

static void a_link_may_be_closed_with_calls_open(void **state)
{
	struct stage *stage = *state;

	send_request(stage, MSG_HELLO);
	answer(stage, receive_request(stage, MSG_HELLO), 42, stage->shim_fd);
	send_request(stage, MSG_HELLO);
	wait_until_read(stage);
}

static void a_container_without_a_link_has_no_shim(void **state UNUSED)
{
	struct answer got = { 0 };

	assert_int_equal(
		link_call(NULL, &(struct msg){ .type = MSG_KILL_ALL }, &got, NULL), -ESRCH);
	assert_int_equal(link_tell(NULL, &(struct msg){ .type = MSG_KILL_ALL }), -ESRCH);
	link_post(NULL, &(struct msg){ .type = MSG_KILL_ALL });
}

static void closing_nothing_is_allowed(void **state UNUSED)
{
	link_close(NULL);
	links_close(NULL);
}

/* ---- many at once ---------------------------------------------------------------------------- */

#define N_THREADS 4
#define N_EACH 200

static void *call_often(void *arg)
{
	struct stage *stage = arg;
	long n_wrong = 0;

	for (uint32_t i = 0; i < N_EACH; i++) {
		struct msg_token body = { .token = i };
		struct answer got = { 0 };
		int r = link_call(stage->link,
			&(struct msg){
				.type = MSG_FORGET, .body = &body, .body_bytes = sizeof(body) },
			&got, NULL);

		n_wrong += r != 0 || value_of(&got) != i;
		answer_done(&got);
	}
	return (void *)n_wrong;
}

static void calls_of_many_threads_are_not_mixed_up(void **state)
{
	struct stage *stage = *state;
	pthread_t threads[N_THREADS];

	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, stage), 0);
	for (int i = 0; i < N_THREADS * N_EACH; i++) {
		struct msg_token body;
		struct msg msg;

		assert_int_equal(msg_recv(stage->shim_fd, &msg, stage->space, 0), 0);
		msg_body(&msg, &body, sizeof(body));
		answer(stage, msg.seq, body.token, -1);
		msg_done(&msg);
	}
	for (int i = 0; i < N_THREADS; i++) {
		void *n_wrong;

		assert_int_equal(pthread_join(threads[i], &n_wrong), 0);
		assert_null(n_wrong);
	}
}

#define STAGE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAGE_TEST(a_call_gets_its_answer_and_descriptors),
		STAGE_TEST(an_answer_that_nobody_wants_is_freed),
		STAGE_TEST(answers_find_their_calls_in_any_order),
		STAGE_TEST(
			a_call_that_is_not_answered_in_time_says_so_and_the_late_answer_is_dropped),
		STAGE_TEST(answers_to_questions_that_nobody_asked_are_dropped),
		STAGE_TEST(events_reach_their_owner),
		STAGE_TEST(a_shim_that_goes_ends_its_calls_and_its_owner_hears_of_it_once),
		STAGE_TEST(a_shim_that_talks_nonsense_is_as_good_as_gone),
		STAGE_TEST(a_post_does_not_wait_for_a_shim_that_does_not_read),
		STAGE_TEST(a_link_may_be_closed_with_calls_open),
		cmocka_unit_test(a_container_without_a_link_has_no_shim),
		cmocka_unit_test(closing_nothing_is_allowed),
		STAGE_TEST(calls_of_many_threads_are_not_mixed_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What clients of a server before still have coming: settled only when the shim says so. The test plays the shim. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/registry.h"
#include "container.h"
#include "link.h"
#include "process.h"

struct stage {
	struct container container;
	struct links *links;
	struct process *process;
	pthread_t shim;
	int shim_fd;
	struct msg_reply answers[4]; /* the last one is given to whoever asks more often */
	unsigned n_answers, n_asked;
};

/* Without an answer it dies of the question. */
static int answer(struct stage *stage, const struct msg *question)
{
	unsigned i = stage->n_asked++;

	if (stage->n_answers == 0)
		return -EPIPE;
	return msg_send(stage->shim_fd,
		&(struct msg){ .type = MSG_REPLY,
			.seq = question->seq,
			.body = &stage->answers[i < stage->n_answers ? i : stage->n_answers - 1],
			.body_bytes = sizeof(stage->answers[0]) });
}

static void *play_shim(void *arg)
{
	char space[MSG_INLINE_BYTES];
	struct stage *stage = arg;
	struct msg msg;

	while (msg_recv(stage->shim_fd, &msg, space, 0) == 0) {
		if (answer(stage, &msg) < 0)
			shutdown(stage->shim_fd, SHUT_RDWR);
		msg_done(&msg);
	}
	return NULL;
}

static int set_up(void **state)
{
	static const struct link_events events = { container_on_exited, container_on_dead, NULL };
	struct stage *stage = calloc(1, sizeof(*stage));
	int pair[2];

	*state = stage;
	pthread_mutex_init(&stage->container.table_lock, NULL);
	clock_cond_init(&stage->container.died);
	stage->container.kick_fd = -1;
	stage->container.processes = registry_new();
	if (links_open(&events, &stage->links, NULL) ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ||
		link_open(stage->links, pair[0], &stage->container, &stage->container.link, NULL))
		return -1;
	stage->shim_fd = pair[1];
	stage->process = process_new(&stage->container, "p", 1, false, -1, -1, -1);
	stage->process->is_unsettled = true;
	return 0;
}

static int tear_down(void **state)
{
	struct stage *stage = *state;

	link_close(stage->container.link);
	pthread_join(stage->shim, NULL);
	links_close(stage->links);
	close(stage->shim_fd);
	process_put(stage->process);
	registry_free(stage->container.processes);
	free(stage);
	return 0;
}

static int settle_with(struct stage *stage, struct err *err)
{
	assert_int_equal(pthread_create(&stage->shim, NULL, play_shim, stage), 0);
	return process_settle(stage->process, err);
}

static void the_shim_is_asked_until_nobody_has_anything_coming(void **state)
{
	struct stage *stage = *state;

	stage->n_answers = 3;
	stage->answers[0].value = 2;
	stage->answers[1].value = 1;
	assert_int_equal(settle_with(stage, NULL), 0);
	assert_int_equal(stage->n_asked, 3);
	assert_false(stage->process->is_unsettled);
}

static void an_older_shim_holds_nothing(void **state)
{
	struct stage *stage = *state;

	stage->n_answers = 1;
	stage->answers[0].code = -ENOSYS;
	assert_int_equal(settle_with(stage, NULL), 0);
	assert_false(stage->process->is_unsettled);
}

static void a_shim_that_cannot_say_leaves_it_unsettled(void **state)
{
	struct stage *stage = *state;
	struct err err = { 0 };

	stage->n_answers = 1;
	stage->answers[0].code = -EACCES;
	assert_int_equal(settle_with(stage, &err), -EACCES);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_true(stage->process->is_unsettled);
}

static void a_shim_that_is_gone_holds_nothing(void **state)
{
	struct stage *stage = *state;
	int r = settle_with(stage, NULL);

	pthread_mutex_lock(&stage->container.table_lock);
	while (!stage->container.is_shim_gone)
		pthread_cond_wait(&stage->container.died, &stage->container.table_lock);
	pthread_mutex_unlock(&stage->container.table_lock);
	assert_true(r == 0 || stage->process->is_unsettled);
	assert_int_equal(process_settle(stage->process, NULL), 0);
	assert_false(stage->process->is_unsettled);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_shim_is_asked_until_nobody_has_anything_coming),
		TEST(an_older_shim_holds_nothing),
		TEST(a_shim_that_cannot_say_leaves_it_unsettled),
		TEST(a_shim_that_is_gone_holds_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

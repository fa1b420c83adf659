#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "server/sock.h"

struct pair {
	int server_fd, client_fd, stop_fd;
};

/* TCP, since the difference between FIN and RST matters. */
static int make_pair(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	AUTO_FD int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct pair *pair = calloc(1, sizeof(*pair));
	socklen_t len = sizeof(address);

	*state = pair;
	pair->client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listen_fd, (struct sockaddr *)&address, len) || listen(listen_fd, 1) ||
		getsockname(listen_fd, (struct sockaddr *)&address, &len) ||
		connect(pair->client_fd, (struct sockaddr *)&address, len))
		return -1;
	pair->server_fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	pair->stop_fd = eventfd(0, EFD_CLOEXEC);
	return pair->server_fd < 0 || pair->stop_fd < 0 ? -1 : 0;
}

static int free_pair(void **state)
{
	struct pair *pair = *state;

	auto_fd(&pair->server_fd);
	auto_fd(&pair->client_fd);
	auto_fd(&pair->stop_fd);
	free(pair);
	return 0;
}

/* As the server does; splice(2) has no flag for it. */
static void signal_ignore_pipe(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigaction(SIGPIPE, &ignore, NULL);
}

static void *read_to_the_end(void *arg)
{
	struct pair *pair = arg;
	char data[65536];
	size_t n_bytes = 0;
	ssize_t n;

	while ((n = read(pair->client_fd, data, sizeof(data))) > 0)
		n_bytes += (size_t)n;
	return (void *)(n < 0 ? SIZE_MAX : n_bytes);
}

static void a_long_write_waits_for_its_reader(void **state)
{
	struct pair *pair = *state;
	const size_t n_bytes = 32 << 20;
	AUTO_FREE char *data = calloc(1, n_bytes);
	pthread_t thread;
	void *n_read;

	assert_int_equal(pthread_create(&thread, NULL, read_to_the_end, pair), 0);
	assert_int_equal(sock_write(pair->server_fd, data, n_bytes, pair->stop_fd), 0);
	shutdown(pair->server_fd, SHUT_WR);
	assert_int_equal(pthread_join(thread, &n_read), 0);
	assert_int_equal((size_t)n_read, n_bytes);
}

static void a_stop_ends_a_write_that_waits(void **state)
{
	struct pair *pair = *state;
	const size_t n_bytes = 64 << 20;
	AUTO_FREE char *data = calloc(1, n_bytes);
	uint64_t one = 1;

	assert_int_equal(write(pair->stop_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(sock_write(pair->server_fd, data, n_bytes, pair->stop_fd), -ECANCELED);
}

static void a_peer_that_is_gone_is_an_error_and_no_signal(void **state)
{
	struct pair *pair = *state;
	char data[4096] = "";
	int r;

	auto_fd(&pair->client_fd);
	while ((r = sock_write(pair->server_fd, data, sizeof(data), -1)) == 0)
		;
	assert_true(r == -EPIPE || r == -ECONNRESET);
	assert_int_equal(sock_write(-1, data, 1, -1), -EBADF);
}

static void text_is_formatted_or_refused_whole(void **state)
{
	struct pair *pair = *state;
	char data[100] = "", text[2000];

	assert_int_equal(sock_printf(pair->server_fd, -1, "%s %d\n", "exit", 7), 0);
	assert_int_equal(read(pair->client_fd, data, sizeof(data)), 7);
	assert_string_equal(data, "exit 7\n");
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(sock_printf(pair->server_fd, -1, "%s", text), -E2BIG);
	shutdown(pair->server_fd, SHUT_WR);
	assert_int_equal(read(pair->client_fd, data, sizeof(data)), 0);
}

/* Data that nobody reads would make the kernel send a RST on close; the peer must see a clean end. */
static void a_connection_ends_cleanly_although_the_peer_has_sent_more(void **state)
{
	struct pair *pair = *state;
	char data[100000] = "";
	pthread_t thread;
	void *n_read;

	assert_int_equal(write(pair->client_fd, data, sizeof(data)), sizeof(data));
	assert_int_equal(sock_write(pair->server_fd, "bye", 3, -1), 0);
	assert_int_equal(shutdown(pair->client_fd, SHUT_WR), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_to_the_end, pair), 0);
	sock_finish(pair->server_fd, GUARD_SECONDS * 1000, pair->stop_fd);
	auto_fd(&pair->server_fd);
	assert_int_equal(pthread_join(thread, &n_read), 0);
	assert_int_equal((size_t)n_read, 3);
}

static void a_peer_that_stays_is_left_when_the_time_is_over_or_at_a_stop(void **state)
{
	struct pair *pair = *state;
	uint64_t one = 1;

	sock_finish(pair->server_fd, 1, -1);
	assert_int_equal(write(pair->stop_fd, &one, sizeof(one)), sizeof(one));
	sock_finish(pair->server_fd, 10 * GUARD_SECONDS * 1000, pair->stop_fd);
}

/* A pipe with so many bytes in it, and nobody who writes more. */
static int full_pipe(size_t n_bytes)
{
	AUTO_FREE char *data = calloc(1, n_bytes);
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_true(fcntl(ends[1], F_SETPIPE_SZ, (int)n_bytes) >= (int)n_bytes);
	assert_int_equal(write(ends[1], data, n_bytes), n_bytes);
	close(ends[1]);
	return ends[0];
}

static void a_pipe_is_moved_while_its_reader_takes_it(void **state)
{
	struct pair *pair = *state;
	pthread_t thread;
	void *n_read;

	assert_int_equal(pthread_create(&thread, NULL, read_to_the_end, pair), 0);
	for (int i = 0; i < 16; i++) {
		AUTO_FD int pipe_fd = full_pipe(1 << 20);

		assert_int_equal(sock_write_more(pair->server_fd, "head", 4, pair->stop_fd), 0);
		assert_int_equal(sock_splice(pair->server_fd, pipe_fd, 1 << 20, pair->stop_fd), 0);
	}
	shutdown(pair->server_fd, SHUT_WR);
	assert_int_equal(pthread_join(thread, &n_read), 0);
	assert_int_equal((size_t)n_read, 16 * ((1 << 20) + 4));
}

static void a_pipe_that_ends_early_is_an_error(void **state)
{
	struct pair *pair = *state;
	AUTO_FD int pipe_fd = full_pipe(4096);

	assert_int_equal(sock_splice(pair->server_fd, pipe_fd, 5000, pair->stop_fd), -EPIPE);
}

static void a_stop_ends_a_move_that_waits(void **state)
{
	struct pair *pair = *state;
	uint64_t one = 1;
	int r = 0;

	assert_int_equal(write(pair->stop_fd, &one, sizeof(one)), sizeof(one));
	for (int i = 0; i < 64 && r == 0; i++) { /* more than the connection takes unread */
		AUTO_FD int pipe_fd = full_pipe(1 << 20);

		r = sock_splice(pair->server_fd, pipe_fd, 1 << 20, pair->stop_fd);
	}
	assert_int_equal(r, -ECANCELED);
}

static void a_move_to_who_has_gone_is_an_error(void **state)
{
	struct pair *pair = *state;
	AUTO_FD int pipe_fd = full_pipe(1 << 20);
	struct linger none = { .l_onoff = 1 };

	signal_ignore_pipe();
	setsockopt(pair->client_fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	auto_fd(&pair->client_fd);
	assert_true(sock_splice(pair->server_fd, pipe_fd, 1 << 20, pair->stop_fd) < 0);
}

#define PAIR_TEST(name) cmocka_unit_test_setup_teardown(name, make_pair, free_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PAIR_TEST(a_pipe_is_moved_while_its_reader_takes_it),
		PAIR_TEST(a_pipe_that_ends_early_is_an_error),
		PAIR_TEST(a_stop_ends_a_move_that_waits),
		PAIR_TEST(a_move_to_who_has_gone_is_an_error),
		PAIR_TEST(a_long_write_waits_for_its_reader),
		PAIR_TEST(a_stop_ends_a_write_that_waits),
		PAIR_TEST(a_peer_that_is_gone_is_an_error_and_no_signal),
		PAIR_TEST(text_is_formatted_or_refused_whole),
		PAIR_TEST(a_connection_ends_cleanly_although_the_peer_has_sent_more),
		PAIR_TEST(a_peer_that_stays_is_left_when_the_time_is_over_or_at_a_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

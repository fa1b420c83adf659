/* What counts as delivered: what the peer's TCP has acknowledged. */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "output_stage.h"

static void connect_tcp(int *ret_server_fd, int *ret_client_fd)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	AUTO_FD int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(address);
	int few = 4096;

	assert_int_equal(setsockopt(listen_fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few)), 0);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(listen_fd, 1), 0);
	assert_int_equal(getsockname(listen_fd, (struct sockaddr *)&address, &len), 0);
	*ret_client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(*ret_client_fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few)), 0);
	assert_int_equal(connect(*ret_client_fd, (struct sockaddr *)&address, len), 0);
	*ret_server_fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(*ret_server_fd >= 0);
}

static void send_all_that_fits(struct reader *reader, int sock_fd)
{
	const unsigned char *data;
	size_t n_bytes;

	while (reader_peek(reader, &data, &n_bytes) == 1) {
		ssize_t n = send(sock_fd, data, n_bytes, MSG_NOSIGNAL);

		if (n < 0)
			break;
		reader_sent(reader, (size_t)n);
	}
}

static int n_queued(int fd, unsigned long request)
{
	int n = -1;

	assert_int_equal(ioctl(fd, request, &n), 0);
	return n;
}

static bool time_is_up(time_t since)
{
	return time(NULL) > since + GUARD_SECONDS;
}

static void only_what_the_peer_has_acknowledged_counts_as_delivered(void **state)
{
	static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
	struct stage *stage = *state;
	struct reader reader, *readers[] = { &reader };
	time_t since = time(NULL);
	int server_fd, client_fd, few = 4096, n_head = sizeof(head) - 1;
	struct pin pin;

	connect_tcp(&server_fd, &client_fd);
	assert_int_equal(setsockopt(server_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few)), 0);
	assert_int_equal(send(server_fd, head, n_head, 0), n_head);
	produce(stage, STREAM_OUT, 0, CAPACITY);
	assert_int_equal(reader_open(&reader, &stage->output, STREAM_OUT, 0, server_fd, NULL), 0);
	do { /* until nothing moves: the client reads nothing, so both buffers fill up */
		send_all_that_fits(&reader, server_fd);
		readers_wait(readers, 1, false, 10);
	} while (!time_is_up(since) &&
		(reader.acked + n_head != (unsigned)n_queued(client_fd, FIONREAD) ||
			reader.acked + (unsigned)n_queued(server_fd, SIOCOUTQ) != reader.cursor));
	assert_int_equal(reader.acked + n_head, n_queued(client_fd, FIONREAD));
	assert_true(reader.acked < reader.cursor);
	reader_close(&reader);
	assert_int_equal(output_pin(&stage->output, STREAM_OUT, &pin), reader.acked);
	output_unpin(&stage->output, STREAM_OUT, &pin);
	auto_fd(&server_fd);
	auto_fd(&client_fd);
}

/* From now on data for this socket are dropped before TCP looks at them, as if they were still on their way. */
static void hold_back(int fd)
{
	struct sock_filter none[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog program = { N_ELEMENTS(none), none };

	assert_int_equal(
		setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

static void *let_through_soon(void *arg)
{
	int *fd = arg, none = 0;

	poll(NULL, 0, 50);
	assert_int_equal(setsockopt(*fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof(none)), 0);
	return NULL;
}

/* A reader that has been sent all of the stream, and whose client has acknowledged nothing yet. */
static void send_into_the_dark(
	struct stage *stage, struct reader *reader, int *ret_server_fd, int *ret_client_fd)
{
	connect_tcp(ret_server_fd, ret_client_fd);
	hold_back(*ret_client_fd);
	produce(stage, STREAM_OUT, 0, 100);
	assert_int_equal(
		reader_open(reader, &stage->output, STREAM_OUT, 0, *ret_server_fd, NULL), 0);
	send_all_that_fits(reader, *ret_server_fd);
	assert_int_equal(reader->cursor, 100);
}

static void what_an_ending_reader_is_about_to_acknowledge_is_waited_for(void **state)
{
	struct stage *stage = *state;
	struct reader reader;
	int server_fd, client_fd;
	pthread_t thread;
	struct pin pin;

	send_into_the_dark(stage, &reader, &server_fd, &client_fd);
	output_settle(&stage->output, GUARD_SECONDS * 1000); /* nobody ends: at once */
	reader_will_end(&reader);
	output_settle(&stage->output, 20); /* in vain */
	assert_int_equal(output_pin(&stage->output, STREAM_OUT, &pin), 0);
	output_unpin(&stage->output, STREAM_OUT, &pin);
	pthread_create(&thread, NULL, let_through_soon, &client_fd);
	output_settle(&stage->output, GUARD_SECONDS * 1000);
	assert_int_equal(output_pin(&stage->output, STREAM_OUT, &pin), 100);
	output_unpin(&stage->output, STREAM_OUT, &pin);
	pthread_join(thread, NULL);
	reader_close(&reader);
	auto_fd(&server_fd);
	auto_fd(&client_fd);
}

#define STALL_MS 1500

/* Takes more than STALL_MS for all of it, and never pauses for so long. */
static void *read_slowly(void *arg)
{
	char few[CAPACITY / 40];
	ssize_t n;

	do {
		poll(NULL, 0, STALL_MS / 30);
		n = recv(*(int *)arg, few, sizeof(few), 0);
	} while (n > 0);
	return NULL;
}

static void who_reads_slowly_is_waited_for(void **state)
{
	struct stage *stage = *state;
	struct reader reader;
	int server_fd, client_fd;
	pthread_t thread;

	connect_tcp(&server_fd, &client_fd);
	produce(stage, STREAM_OUT, 0, CAPACITY);
	assert_int_equal(reader_open(&reader, &stage->output, STREAM_OUT, 0, server_fd, NULL), 0);
	send_all_that_fits(&reader, server_fd);
	assert_int_equal(reader.cursor, CAPACITY);
	reader_will_end(&reader);
	assert_int_equal(shutdown(server_fd, SHUT_WR), 0);
	assert_false(reader_await_acks(&reader, 10, -1)); /* nobody reads */
	pthread_create(&thread, NULL, read_slowly, &client_fd);
	assert_true(reader_await_acks(&reader, STALL_MS, -1));
	pthread_join(thread, NULL);
	reader_close(&reader);
	auto_fd(&server_fd);
	auto_fd(&client_fd);
}

static void who_can_acknowledge_no_more_is_not_waited_for(void **state)
{
	struct linger none = { .l_onoff = 1 };
	struct stage *stage = *state;
	struct reader reader;
	int server_fd, client_fd;
	struct pin pin;

	send_into_the_dark(stage, &reader, &server_fd, &client_fd);
	reader_will_end(&reader);
	assert_int_equal(setsockopt(client_fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
	auto_fd(&client_fd); /* a reset */
	output_settle(&stage->output, GUARD_SECONDS * 1000);
	assert_false(reader_await_acks(&reader, GUARD_SECONDS * 1000, -1));
	assert_int_equal(output_pin(&stage->output, STREAM_OUT, &pin), 0);
	output_unpin(&stage->output, STREAM_OUT, &pin);
	reader_close(&reader);
	auto_fd(&server_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAGE_TEST(only_what_the_peer_has_acknowledged_counts_as_delivered),
		STAGE_TEST(what_an_ending_reader_is_about_to_acknowledge_is_waited_for),
		STAGE_TEST(who_reads_slowly_is_waited_for),
		STAGE_TEST(who_can_acknowledge_no_more_is_not_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

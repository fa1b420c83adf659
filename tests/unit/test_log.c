/* sqlite's JSON functions, seen through db.h, are the judge of whether a line is JSON. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "base/log.h"

struct sink {
	int read_fd, write_fd;
	struct db *json;
	char line[1 << 17];
};

static int open_sink(void **state)
{
	struct sink *sink = calloc(1, sizeof(*sink));
	int fds[2];

	if (!sink || pipe2(fds, O_CLOEXEC) < 0 || db_open(":memory:", "", &sink->json, NULL))
		return -1;
	sink->read_fd = fds[0];
	sink->write_fd = fds[1];
	log_open("unit", LOG_DEBUG, sink->write_fd);
	*state = sink;
	return 0;
}

static int close_sink(void **state)
{
	struct sink *sink = *state;

	log_open("unit", LOG_DEBUG, 2);
	auto_fd(&sink->read_fd);
	auto_fd(&sink->write_fd);
	db_close(sink->json);
	free(sink);
	return 0;
}

static int n_waiting(const struct sink *sink)
{
	int n = -1;

	assert_int_equal(ioctl(sink->read_fd, FIONREAD, &n), 0);
	return n;
}

/* The one line that is waiting, without its newline. */
static const char *read_line(struct sink *sink)
{
	ssize_t n = n_waiting(sink) ? read(sink->read_fd, sink->line, sizeof(sink->line) - 1) : 0;

	assert_true(n > 0);
	sink->line[n] = '\0';
	assert_ptr_equal(strchr(sink->line, '\n'), &sink->line[n - 1]);
	sink->line[n - 1] = '\0';
	return sink->line;
}

static int copy_text(const struct db_row *row, void *arg)
{
	const char *text = db_row_text(row, 0);

	*(char **)arg = text ? strdup(text) : NULL;
	return 0;
}

/* What is at path in the line, as text; NULL if nothing. The caller frees. */
static char *json_at(struct sink *sink, const char *line, const char *path)
{
	struct err err = { 0 };
	char *text = NULL;

	if (db_each(sink->json, copy_text, &text, &err, "SELECT json_extract(?, ?)", "ss", line,
		    path))
		fail_msg("%s: %s", err.msg, line);
	return text;
}

static void assert_json(struct sink *sink, const char *line, const char *path, const char *want)
{
	AUTO_FREE char *text = json_at(sink, line, path);

	if (!text || strcmp(text, want))
		fail_msg("%s is '%s', not '%s'", path, text ? text : "absent", want);
}

static void a_line_has_the_shape_of_lager(void **state)
{
	struct sink *sink = *state;
	const char *line;

	LOG(LOG_INFO, "container-created", KV_STR("handle", "c1"), KV_INT("ms", 12));
	line = read_line(sink);
	assert_json(sink, line, "$.level", "info");
	assert_json(sink, line, "$.source", "unit");
	assert_json(sink, line, "$.message", "unit.container-created");
	assert_json(sink, line, "$.data.handle", "c1");
	assert_json(sink, line, "$.data.ms", "12");
}

/* Not time(2), which lags by up to a tick behind the clock that the log asks. */
static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec;
}

static void the_time_is_universal_with_nanoseconds(void **state)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddddddddZ";
	struct sink *sink = *state;
	AUTO_FREE char *text = NULL;
	time_t before = seconds_now(), at;
	struct tm tm = { 0 };

	LOG(LOG_INFO, "event");
	text = json_at(sink, read_line(sink), "$.timestamp");
	assert_int_equal(strlen(text), strlen(form));
	for (size_t i = 0; form[i]; i++)
		assert_true(form[i] == 'd' ? text[i] >= '0' && text[i] <= '9' : text[i] == form[i]);
	assert_non_null(strptime(text, "%Y-%m-%dT%H:%M:%S", &tm));
	at = timegm(&tm);
	assert_true(at >= before && at <= seconds_now());
}

static void an_event_without_facts_has_an_empty_data(void **state)
{
	struct sink *sink = *state;

	LOG(LOG_ERROR, "event");
	assert_json(sink, read_line(sink), "$.data", "{}");
	assert_json(sink, sink->line, "$.level", "error");
}

static void numbers_are_exact(void **state)
{
	struct sink *sink = *state;

	LOG(LOG_WARN, "event", KV_INT("a", INT64_MIN), KV_INT("b", INT64_MAX), KV_INT("c", 0));
	assert_json(sink, read_line(sink), "$.data.a", "-9223372036854775808");
	assert_json(sink, sink->line, "$.data.b", "9223372036854775807");
	assert_json(sink, sink->line, "$.data.c", "0");
	assert_json(sink, sink->line, "$.level", "warn");
}

static void text_cannot_break_out_of_its_line(void **state)
{
	struct sink *sink = *state;
	char all[256];

	for (int c = 1; c < 256; c++)
		all[c - 1] = (char)c;
	all[255] = '\0';
	LOG(LOG_INFO, "event", KV_STR("all", all), KV_STR("q", "\"},\"level\":\"x\\"),
		KV_STR("\"k\"\n", "v"), KV_STR("none", NULL));
	assert_json(sink, read_line(sink), "$.data.q", "\"},\"level\":\"x\\");
	assert_json(sink, sink->line, "$.data.none", "");
	assert_json(sink, sink->line, "$.level", "info");
	for (char *p = sink->line; *p; p++)
		assert_in_range(*p, 0x20, 0x7e);
}

static void lines_below_the_level_are_left_out(void **state)
{
	struct sink *sink = *state;

	for (enum log_level lowest = LOG_DEBUG; lowest <= LOG_ERROR; lowest++) {
		log_open("unit", lowest, sink->write_fd);
		for (enum log_level level = LOG_DEBUG; level <= LOG_ERROR; level++) {
			LOG(level, "event", KV_INT("level", level));
			if (level >= lowest)
				assert_json(sink, read_line(sink), "$.message", "unit.event");
			assert_int_equal(n_waiting(sink), 0);
		}
	}
}

static void levels_are_known_by_name(void **state UNUSED)
{
	static const struct {
		const char *name;
		enum log_level level;
	} good[] = { { "debug", LOG_DEBUG }, { "info", LOG_INFO }, { "warn", LOG_WARN },
		{ "error", LOG_ERROR }, { "fatal", LOG_ERROR } };
	static const char *const bad[] = { "", "INFO", "inf", "info ", " info", "warning", "0",
		"trace" };
	enum log_level level;

	for (size_t i = 0; i < N_ELEMENTS(good); i++) {
		level = good[i].level == LOG_DEBUG ? LOG_ERROR : LOG_DEBUG;
		assert_int_equal(log_level_parse(good[i].name, &level), 0);
		assert_int_equal(level, good[i].level);
	}
	level = LOG_WARN;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_int_equal(log_level_parse(bad[i], &level), -EINVAL);
	assert_int_equal(level, LOG_WARN);
}

/* Fills the pipe and then makes room for n_free_bytes, a multiple of the page size. */
static void leave_room(struct sink *sink, int n_free_bytes)
{
	static char page[4096];

	fcntl(sink->write_fd, F_SETFL, O_NONBLOCK);
	while (write(sink->write_fd, page, sizeof(page)) > 0)
		;
	fcntl(sink->write_fd, F_SETFL, 0);
	for (; n_free_bytes > 0; n_free_bytes -= (int)sizeof(page))
		assert_int_equal(read(sink->read_fd, page, sizeof(page)), sizeof(page));
}

static void drain(struct sink *sink)
{
	while (n_waiting(sink))
		assert_true(read(sink->read_fd, sink->line, sizeof(sink->line)) > 0);
}

static void a_full_pipe_drops_lines_and_says_how_many(void **state)
{
	struct sink *sink = *state;

	leave_room(sink, 0);
	for (int i = 0; i < 5; i++)
		LOG(LOG_INFO, "lost");
	drain(sink);
	LOG(LOG_INFO, "after");
	assert_json(sink, read_line(sink), "$.message", "unit.after");
	assert_json(sink, sink->line, "$.data.lines_dropped", "5");
	LOG(LOG_INFO, "later", KV_INT("n", 1));
	assert_json(sink, read_line(sink), "$.data", "{\"n\":1}");
}

static void the_count_of_dropped_lines_stands_beside_other_facts(void **state)
{
	struct sink *sink = *state;

	leave_room(sink, 0);
	LOG(LOG_INFO, "lost");
	drain(sink);
	LOG(LOG_INFO, "after", KV_STR("handle", "c1"));
	assert_json(sink, read_line(sink), "$.data.lines_dropped", "1");
	assert_json(sink, sink->line, "$.data.handle", "c1");
}

static void a_reader_that_is_gone_drops_lines(void **state)
{
	struct sink *sink = *state;
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	auto_fd(&sink->read_fd);
	LOG(LOG_INFO, "lost");
	auto_fd(&sink->write_fd);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	sink->read_fd = fds[0];
	sink->write_fd = fds[1];
	log_open("unit", LOG_DEBUG, sink->write_fd);
	LOG(LOG_INFO, "after");
	assert_json(sink, read_line(sink), "$.data.lines_dropped", "1");
}

static void a_line_over_the_cap_is_dropped_and_counted(void **state)
{
	struct sink *sink = *state;
	AUTO_FREE char *text = malloc(100001);

	memset(text, 'x', 100000);
	text[100000] = '\0';
	LOG(LOG_INFO, "long", KV_STR("text", text));
	assert_int_equal(n_waiting(sink), 0);
	LOG(LOG_INFO, "after");
	assert_json(sink, read_line(sink), "$.data.lines_dropped", "1");
}

static void *log_a_long_line(void *text)
{
	LOG(LOG_INFO, "long", KV_STR("text", text));
	return NULL;
}

/* One free page makes a pipe look writable, although a longer write would wait in it. */
static void a_line_longer_than_the_room_in_the_pipe_does_not_wait(void **state)
{
	struct sink *sink = *state;
	struct timespec until;
	char text[10001];
	pthread_t thread;
	int r;

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	leave_room(sink, 4096);
	assert_int_equal(pthread_create(&thread, NULL, log_a_long_line, text), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += GUARD_SECONDS / 2;
	r = pthread_timedjoin_np(thread, NULL, &until);
	drain(sink);
	if (r) {
		pthread_join(thread, NULL);
		fail_msg("a stalled reader held up the writer");
	}
}

#define N_THREADS 4
#define N_EACH 100

static void *log_many(void *name)
{
	for (int i = 0; i < N_EACH; i++)
		LOG(LOG_INFO, name, KV_INT("i", i), KV_STR("text", "some text that is not short"));
	return NULL;
}

static void lines_of_many_threads_stay_whole(void **state)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	struct sink *sink = *state;
	AUTO_FREE char *line = NULL;
	pthread_t threads[N_THREADS];
	size_t size = 0;
	int n_lines = 0;
	FILE *file;

	/* room for all of them: none has a reason to be dropped */
	assert_true(fcntl(sink->write_fd, F_SETPIPE_SZ, 1 << 20) >= N_THREADS * N_EACH * 512);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_many, (void *)names[i]), 0);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	auto_fd(&sink->write_fd);
	file = fdopen(TAKE_FD(sink->read_fd), "r");
	for (; getline(&line, &size, file) > 0; n_lines++)
		assert_json(sink, line, "$.level", "info");
	fclose(file);
	assert_int_equal(n_lines, N_THREADS * N_EACH);
}

#define SINK_TEST(name) cmocka_unit_test_setup_teardown(name, open_sink, close_sink)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SINK_TEST(a_line_has_the_shape_of_lager),
		SINK_TEST(the_time_is_universal_with_nanoseconds),
		SINK_TEST(an_event_without_facts_has_an_empty_data),
		SINK_TEST(numbers_are_exact),
		SINK_TEST(text_cannot_break_out_of_its_line),
		SINK_TEST(lines_below_the_level_are_left_out),
		SINK_TEST(levels_are_known_by_name),
		SINK_TEST(a_full_pipe_drops_lines_and_says_how_many),
		SINK_TEST(the_count_of_dropped_lines_stands_beside_other_facts),
		SINK_TEST(a_reader_that_is_gone_drops_lines),
		SINK_TEST(a_line_over_the_cap_is_dropped_and_counted),
		SINK_TEST(a_line_longer_than_the_room_in_the_pipe_does_not_wait),
		SINK_TEST(lines_of_many_threads_stay_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Owns the only variables of the program that change after start: where lines go, the drop count.
 */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/parse.h"

static const char *log_name = "cloche";
static enum log_level log_lowest = LOG_INFO;
static int log_fd = 2;
static atomic_uint_fast64_t n_dropped;

static const char *const level_names[] = {
	[LOG_DEBUG] = "debug",
	[LOG_INFO] = "info",
	[LOG_WARN] = "warn",
	[LOG_ERROR] = "error",
};

void log_open(const char *name, enum log_level lowest, int fd)
{
	log_name = name;
	log_lowest = lowest;
	log_fd = fd;
}

int log_level_parse(const char *text, enum log_level *ret)
{
	for (int i = 0; i < (int)N_ELEMENTS(level_names); i++)
		if (!strcmp(text, level_names[i])) {
			*ret = i;
			return 0;
		}
	if (strcmp(text, "fatal"))
		return -EINVAL;
	*ret = LOG_ERROR;
	return 0;
}

static void add_json_text(struct buf *line, const char *text)
{
	bool is_utf8 = utf8_is_valid(text);

	buf_adds(line, "\"");
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '"' || *p == '\\')
			buf_addf(line, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && !is_utf8))
			buf_addf(line, "\\u%04x", *p);
		else
			buf_add(line, p, 1);
	}
	buf_adds(line, "\"");
}

static void add_time(struct buf *line)
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	buf_addf(line, "{\"timestamp\":\"%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ\"", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec);
}

static void add_data(struct buf *line, const struct kv *kvs, int n_kvs, uint64_t dropped)
{
	buf_adds(line, ",\"data\":{");
	for (int i = 0; i < n_kvs; i++) {
		if (i)
			buf_adds(line, ",");
		add_json_text(line, kvs[i].key);
		buf_adds(line, ":");
		if (kvs[i].type == KV_TYPE_INT)
			buf_addf(line, "%lld", (long long)kvs[i].number);
		else
			add_json_text(line, kvs[i].str ? kvs[i].str : "");
	}
	if (dropped)
		buf_addf(line, "%s\"lines_dropped\":%llu", n_kvs ? "," : "",
			(unsigned long long)dropped);
	buf_adds(line, "}}\n");
}

/* A line of PIPE_BUF bytes at most goes in one piece or not at all, and poll says so (pipe(7)).
 * A pipe whose reader sleeps must not hold up the server, and O_NONBLOCK would change the file
 * description for the others who share it: so ask first. */
static bool write_line(const struct buf *line)
{
	struct pollfd ready = { .fd = log_fd, .events = POLLOUT };

	return poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT &&
		write(log_fd, line->data, line->len) > 0;
}

void log_event(enum log_level level, const char *event, const struct kv *kvs, int n_kvs)
{
	AUTO_BUF struct buf line;

	uint64_t dropped;

	buf_init(&line, PIPE_BUF);
	if (level < log_lowest)
		return;
	dropped = atomic_exchange(&n_dropped, 0);
	add_time(&line);
	buf_addf(&line, ",\"level\":\"%s\",\"source\":\"%s\",\"message\":\"%s.%s\"",
		level_names[level], log_name, log_name, event);
	add_data(&line, kvs, n_kvs, dropped);
	if (buf_failed(&line) || !write_line(&line))
		atomic_fetch_add(&n_dropped, dropped + 1);
}

/* log.h - one JSON line per event in lager's shape, one write(2) per line, to standard error.
 * The event is a constant; the facts are typed pairs. Never a property, an environment value, an
 * argument or stdin. Threads: any. A reader that stalls costs lines, never time: what does not fit
 * into a full pipe is dropped and counted, and the count is logged with the next line that fits. */
#pragma once
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct kv {
	enum { KV_TYPE_STR, KV_TYPE_INT } type;
	const char *key, *str;
	int64_t number;
};
#define KV_STR(k, v) ((struct kv){ .type = KV_TYPE_STR, .key = (k), .str = (v) })
#define KV_INT(k, v) ((struct kv){ .type = KV_TYPE_INT, .key = (k), .number = (v) })

/* Before the first thread. name appears as source and in front of each message. */
void log_open(const char *name, enum log_level lowest, int fd);
/* 0, or -EINVAL: the level is one of debug, info, warn, error (and fatal, which is error). */
int log_level_parse(const char *text, enum log_level *ret);

/* More room for kv pairs than eight is not needed by anybody. */
void log_event(enum log_level level, const char *event, const struct kv *kvs, int n_kvs);
#define LOG(level, event, ...)                                                                     \
	log_event(level, event, (struct kv[]){ __VA_ARGS__ },                                      \
		sizeof((struct kv[]){ __VA_ARGS__ }) / sizeof(struct kv))

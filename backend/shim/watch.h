/* watch.h - the shim looks at the limits of its container, or of a process with limits of its own: files
 * of the groups that the server has opened (MSG_WATCH). Without them nothing is known, and nothing is
 * said. */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "shim/protocol.h"

enum watch_poll { WATCH_POLL_MEMORY, WATCH_POLL_PIDS, N_WATCH_POLLS };

struct watch {
	int fds[N_WATCH_FILES]; /* in the order of enum watch_file; -1: none */
	uint64_t memory_limit_bytes;
	bool explains;
	uint64_t n_oom_kills, n_pids_hits; /* as they were last seen, by whatever look */
	uint64_t n_oom_told, n_pids_told; /* as the server knows them */
	bool wants_memory; /* v1 has said so, and nobody has been told */
	uint64_t n_explained; /* OOM kills that an exit was put down to */
};

/* What the groups had counted when a process began. */
struct watch_mark {
	int64_t at_ms;
	uint64_t n_oom_kills, n_pids_hits;
};

void watch_init(struct watch *watch);
void watch_done(struct watch *watch);
/* Takes the descriptors, of which there are n_fds. 0 or -EPROTO. */
int watch_take(struct watch *watch, const struct msg_watch *body, int fds[], unsigned n_fds);

/* For a server that comes back: what it need not look at or give again. */
void watch_describe(struct watch *watch, struct msg_watched *ret);

void watch_fill_polls(const struct watch *watch, struct pollfd polls[N_WATCH_POLLS]);
/* One of them is ready: looks at it. */
void watch_hear(struct watch *watch, enum watch_poll which);
/* True, and *ret_hit is to be told to the server: a limit was hit since the last time. */
bool watch_news(struct watch *watch, struct msg_hit *ret_hit);

struct watch_mark watch_begin(struct watch *watch);
/* A process has ended: adds to its usage what the groups know, and the reason if it was the kernel's want
 * of memory. ret_words: a line for its standard error, "" for none. */
#define WATCH_WORDS_BYTES 256
void watch_end(struct watch *watch, const struct watch_mark *mark, struct msg_end *end,
	char ret_words[WATCH_WORDS_BYTES]);

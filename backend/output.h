/* output.h - the two output streams of one process as the server sees them: rings shared with the
 * shim, readers with a cursor each, and the point up to which somebody's TCP has acknowledged. See
 * design.md 3. Threads: any; one lock per process's output, held for moments, never across a wait.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "linux/ring.h"

struct err;

/* An attach that has not opened its stream yet keeps the bytes behind its start for this long. */
#define PIN_MS 10000

struct reader {
	TAILQ_ENTRY(reader) entry;
	struct output *output;
	int stream, sock_fd;
	uint64_t cursor; /* next byte to send */
	uint64_t acked; /* bytes below it have arrived at the peer's TCP */
	uint64_t start; /* the cursor when it began */
	uint64_t tcp_base; /* what the socket had been given before the first byte of ours */
	bool is_tcp, is_closed; /* is_closed: no acknowledgement can come any more */
	bool is_ending; /* gets no more bytes; its client may be back before the last acknowledgement is */
	int64_t progress_ms; /* when acked last moved, or there was nothing to send */
	int wait_fd; /* epoll: data (edge-triggered) and the socket */
};

struct pin {
	TAILQ_ENTRY(pin) entry;
	uint64_t at;
	int64_t until_ms;
};

TAILQ_HEAD(reader_list, reader);
TAILQ_HEAD(pin_list, pin);

struct output {
	pthread_mutex_t lock;
	int ring_fd, data_fd, kick_fd; /* kick_fd is borrowed from the container */
	struct ring rings[N_STREAMS]; /* mapped while n_users > 0 */
	int n_users;
	bool is_released; /* everything was delivered and given up */
	struct {
		uint64_t resume, trimmed;
		struct reader_list readers;
		struct pin_list pins;
	} streams[N_STREAMS];
};

/* take_*: owned from now on, even on failure. */
void output_init(struct output *output, int take_ring_fd, int take_data_fd, int kick_fd);
void output_done(struct output *output);

/* The shim has noted what the readers of a server before us still got. */
void output_look_again(struct output *output);

/* Waits until those who read no more have acknowledged all that they were sent, or cannot, at most for
 * timeout_ms: a client that has read the end of its stream knows more than our side of TCP. */
void output_settle(struct output *output, int timeout_ms);

/* Where a new attach begins: what nobody has acknowledged. The pin keeps it until the stream is
 * opened. */
uint64_t output_pin(struct output *output, int stream, struct pin *pin);
void output_unpin(struct output *output, int stream, struct pin *pin);

/* A reader from start on (not below what is still there). sock_fd is where its bytes will go: -1
 * for none that can be asked for acknowledgements. 0, or -errno. */
int reader_open(struct reader *reader, struct output *output, int stream, uint64_t start,
	int sock_fd, struct err *err);
/* readers_wait returns EPOLLHUP once fd has one of the events (epoll(7)). */
int reader_watch(struct reader *reader, int fd, uint32_t events);
/* Notes what has arrived in the end, frees room. */
void reader_close(struct reader *reader);

/* 1: *ret_data, *ret_bytes; 0: nothing yet; -ENODATA: the stream has ended. Valid until
 * reader_sent. */
int reader_peek(struct reader *reader, const unsigned char **ret_data, size_t *ret_bytes);
void reader_sent(struct reader *reader, size_t n_bytes);
/* Before the connection's FIN. */
void reader_will_end(struct reader *reader);
/* Sleeps until one of the readers (of one process and one socket) may have more, the socket has
 * room (if want_room), hangs up, or timeout_ms (-1: none). Returns epoll events of the socket (0:
 * none). */
unsigned readers_wait(
	struct reader *const readers[], int n_readers, bool want_room, int timeout_ms);
/* True when other readers wait because this one has not moved for stall_ms. */
bool reader_is_stalled(struct reader *reader, bool is_blocked, int64_t stall_ms);

/* After the connection's FIN, as long as acknowledgements come. False: none came for stall_ms, or stop_fd became
 * readable, and something is owed. It will be sent again, so the kernel must not deliver it any more. */
bool reader_await_acks(struct reader *reader, int stall_ms, int stop_fd);

/* True once: the process has exited, both streams ended and delivered: the shim may forget them. */
bool output_try_release(struct output *output);

/* ring.h - the output of one process, shared by its shim (writer) and the server (readers): a memfd
 * with one page of heads and two data areas, standard output and standard error. Offsets are
 * absolute and never wrap (2^64 bytes); byte n lies at n modulo capacity. Memory is taken when
 * written and given back by ring_trim.
 *
 * head: only the shim moves it. tail: bytes below it are gone; the server moves it, except that the
 * shim may while nobody has ever opened the stream (see opened). Wake-ups: the shim signals the
 * process's data eventfd after moving head when readers are waiting; the server signals the shim's
 * kick eventfd after moving tail when the shim waits for space. Both sides set their flag, then
 * look again. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A drained stream that has taken less is left alone. */
#define TRIM_BYTES 65536

enum { STREAM_OUT, STREAM_ERR, N_STREAMS };

struct ring_head {
	_Atomic uint64_t head, tail, dropped_bytes;
	_Atomic uint32_t n_waiting, writer_waits, closed, opened;
};

struct ring {
	struct ring_head *shared;
	_Atomic uint64_t *resume; /* shared: the highest offset that any reader has acknowledged */
	unsigned char *data;
	uint64_t capacity_bytes; /* a power of two, whole pages */
};

/* The descriptor of a new memfd for two rings, or -errno. */
int ring_create(uint64_t capacity_bytes);

/* Maps both; capacity comes from the file's size. 0 or -errno. */
int ring_map(int fd, struct ring rings[N_STREAMS]);
void ring_unmap(struct ring rings[N_STREAMS]);

/* Writer. Reads once from from_fd into the free space: the count, 0 at its end, -EAGAIN when there
 * is nothing to read, -ENOBUFS when the ring is full (writer_waits is then set), or -errno. */
ssize_t ring_fill(struct ring *ring, int from_fd);
/* Writer. True if a reader waits: signal it. */
bool ring_wants_wake(struct ring *ring);
/* Writer. The bytes go in whole; false if there is no room for them. */
bool ring_put(struct ring *ring, const void *data, size_t n_bytes);
/* Writer, only while opened is 0: forgets the oldest n bytes. */
void ring_drop(struct ring *ring, uint64_t n_bytes);

/* Reader. The bytes at offset that lie in one piece; 0 when there are none yet. */
size_t ring_peek(const struct ring *ring, uint64_t offset, const unsigned char **ret_data);
/* Reader. Moves tail up to offset; true if the writer waits for space: kick it. */
bool ring_release(struct ring *ring, uint64_t offset);
/* Writer: nobody else may touch free space, where the next bytes go. If everything has been read,
 * gives the stream's pages back to the system; false if something is still there. */
bool ring_trim(int fd, const struct ring *ring, int stream);

/* tar_head.h - what stands in front of a file's bytes in a tar archive: a ustar header, and in front
 * of that a pax one for what a ustar header cannot hold (long names, large numbers, times finer than
 * seconds, attributes, holes). Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/buf.h"

#define TAR_BLOCK_BYTES 512
#define TAR_RECORD_BYTES 10240

/* The types that a header tells. */
enum tar_type {
	TAR_FILE = '0',
	TAR_HARD_LINK = '1',
	TAR_SYMLINK = '2',
	TAR_CHAR = '3',
	TAR_BLOCK = '4',
	TAR_DIR = '5',
	TAR_FIFO = '6'
};

/* All is borrowed. Names are any bytes. */
struct tar_head {
	enum tar_type type;
	const char *path; /* of a directory: with '/' at its end */
	const char *target; /* of a link, else "" */
	mode_t mode; /* permissions alone count */
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
	dev_t device;
	uint64_t size; /* of what follows the header */
	uint64_t sparse_size; /* not 0: what follows is a map of this many bytes with holes, and its
				 data (pax format 1.0) */
	const struct buf *records; /* more pax records, by tar_record_add; NULL: none */
};

/* Appends the header blocks. -E2BIG or -ENOMEM: see buf.h. */
int tar_head_add(struct buf *out, const struct tar_head *head);

/* Appends "LENGTH KEY=VALUE\n". A key with '=' in it cannot be said: -EINVAL. */
int tar_record_add(struct buf *records, const char *key, const void *value, size_t n_bytes);

/* How many zeros come behind n_bytes of data. */
static inline size_t tar_padding(uint64_t n_bytes)
{
	return -n_bytes % TAR_BLOCK_BYTES;
}

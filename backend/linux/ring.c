#include "linux/ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/auto.h"

#define PAGE_BYTES 4096
#define RESUME_AT 2048 /* the heads keep their place and size: older shims and servers know them */
static_assert(sizeof(struct ring_head) * N_STREAMS <= RESUME_AT, "the heads share one page");

int ring_create(uint64_t capacity_bytes)
{
	AUTO_FD int fd = memfd_create("cloche-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, PAGE_BYTES + N_STREAMS * capacity_bytes) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int ring_map(int fd, struct ring rings[N_STREAMS])
{
	struct stat st;
	uint64_t capacity;
	unsigned char *map;

	if (fstat(fd, &st) < 0)
		return -errno;
	capacity = (st.st_size - PAGE_BYTES) / N_STREAMS;
	if (capacity < PAGE_BYTES || (capacity & (capacity - 1)))
		return -EINVAL;
	map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	for (int i = 0; i < N_STREAMS; i++)
		rings[i] = (struct ring){ .shared = (struct ring_head *)map + i,
			.resume = (_Atomic uint64_t *)(map + RESUME_AT) + i,
			.data = map + PAGE_BYTES + i * capacity,
			.capacity_bytes = capacity };
	return 0;
}

void ring_unmap(struct ring rings[N_STREAMS])
{
	if (rings[0].shared)
		munmap(rings[0].shared, PAGE_BYTES + N_STREAMS * rings[0].capacity_bytes);
	for (int i = 0; i < N_STREAMS; i++)
		rings[i] = (struct ring){ 0 };
}

static uint64_t free_bytes(const struct ring *ring, uint64_t head)
{
	return ring->capacity_bytes - (head - atomic_load(&ring->shared->tail));
}

ssize_t ring_fill(struct ring *ring, int from_fd)
{
	uint64_t head = atomic_load(&ring->shared->head);
	uint64_t at = head & (ring->capacity_bytes - 1);
	uint64_t room = free_bytes(ring, head);
	struct iovec iov[2];
	ssize_t n;

	if (room == 0) {
		atomic_store(&ring->shared->writer_waits, 1);
		room = free_bytes(ring, head);
		if (room == 0)
			return -ENOBUFS;
	}
	atomic_store(&ring->shared->writer_waits, 0);
	iov[0].iov_base = ring->data + at;
	iov[0].iov_len = room < ring->capacity_bytes - at ? room : ring->capacity_bytes - at;
	iov[1].iov_base = ring->data;
	iov[1].iov_len = room - iov[0].iov_len;
	n = readv(from_fd, iov, iov[1].iov_len ? 2 : 1);
	if (n < 0)
		return -errno;
	atomic_store(&ring->shared->head, head + n);
	return n;
}

bool ring_put(struct ring *ring, const void *data, size_t n_bytes)
{
	uint64_t head = atomic_load(&ring->shared->head);
	uint64_t at = head & (ring->capacity_bytes - 1);
	uint64_t first = ring->capacity_bytes - at;

	if (n_bytes > free_bytes(ring, head))
		return false;
	if (first > n_bytes)
		first = n_bytes;
	memcpy(ring->data + at, data, first);
	memcpy(ring->data, (const char *)data + first, n_bytes - first);
	atomic_store(&ring->shared->head, head + n_bytes);
	return true;
}

bool ring_wants_wake(struct ring *ring)
{
	return atomic_load(&ring->shared->n_waiting) > 0;
}

void ring_drop(struct ring *ring, uint64_t n_bytes)
{
	atomic_fetch_add(&ring->shared->tail, n_bytes);
	atomic_fetch_add(&ring->shared->dropped_bytes, n_bytes);
}

size_t ring_peek(const struct ring *ring, uint64_t offset, const unsigned char **ret_data)
{
	uint64_t there = atomic_load(&ring->shared->head) - offset;
	uint64_t at = offset & (ring->capacity_bytes - 1);
	uint64_t piece = ring->capacity_bytes - at;

	*ret_data = ring->data + at;
	return there < piece ? there : piece;
}

bool ring_release(struct ring *ring, uint64_t offset)
{
	if (offset > atomic_load(&ring->shared->tail))
		atomic_store(&ring->shared->tail, offset);
	return atomic_load(&ring->shared->writer_waits) != 0;
}

bool ring_trim(int fd, const struct ring *ring, int stream)
{
	if (atomic_load(&ring->shared->tail) != atomic_load(&ring->shared->head))
		return false;
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		PAGE_BYTES + stream * ring->capacity_bytes, ring->capacity_bytes);
	return true;
}

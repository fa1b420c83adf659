#include "volumes/sparse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "volumes/tar_head.h"

/* More than that, and the last one goes to the end of the file. */
#define N_PIECES_MAX 65536
#define TEXT_CAP_BYTES (64 * N_PIECES_MAX)

void sparse_map_init(struct sparse_map *map)
{
	*map = (struct sparse_map){ 0 };
	buf_init(&map->text, TEXT_CAP_BYTES);
}

void sparse_map_done(struct sparse_map *map)
{
	buf_done(&map->text);
	free(map->pieces);
	sparse_map_init(map);
}

static int add_piece(struct sparse_map *map, uint64_t start, uint64_t end)
{
	if (map->n_pieces == map->n_space) {
		size_t n = map->n_space ? 2 * map->n_space : 64;
		void *space = reallocarray(map->pieces, n, sizeof(*map->pieces));

		if (!space)
			return -ENOMEM;
		map->pieces = space;
		map->n_space = n;
	}
	map->pieces[map->n_pieces++] = (struct sparse_piece){ start, end - start };
	map->data_bytes += end - start;
	return 0;
}

/* 1: *ret_start to *ret_end is data; 0: there is none from `at` on. */
static int next_data(int fd, uint64_t at, uint64_t size, uint64_t *ret_start, uint64_t *ret_end)
{
	off_t start = lseek(fd, at, SEEK_DATA), end;

	if (start < 0)
		return errno == ENXIO ? 0 : -errno;
	end = lseek(fd, start, SEEK_HOLE);
	if (end < 0)
		return errno == ENXIO ? 0 : -errno; /* it has shrunk */
	*ret_start = start;
	*ret_end = (uint64_t)end < size ? (uint64_t)end : size;
	return (uint64_t)start < size;
}

static int write_text(struct sparse_map *map)
{
	static const char zeros[TAR_BLOCK_BYTES];

	buf_clear(&map->text);
	buf_addf(&map->text, "%zu\n", map->n_pieces);
	for (size_t i = 0; i < map->n_pieces; i++)
		buf_addf(&map->text, "%" PRIu64 "\n%" PRIu64 "\n", map->pieces[i].offset,
			map->pieces[i].n_bytes);
	return buf_add(&map->text, zeros, tar_padding(map->text.len));
}

int sparse_map_read(struct sparse_map *map, int fd, uint64_t size)
{
	uint64_t at = 0, start = 0, end = 0;
	int r;

	map->n_pieces = 0;
	map->data_bytes = 0;
	while (at < size && (r = next_data(fd, at, size, &start, &end)) != 0) {
		if (r < 0)
			return r;
		at = map->n_pieces == N_PIECES_MAX - 2 ? size : end;
		r = add_piece(map, start, at);
		if (r < 0)
			return r;
	}
	map->has_holes = map->data_bytes < size;
	/* a hole at the end is told by an empty piece behind it */
	r = at < size || !map->n_pieces ? add_piece(map, size, size) : 0;
	return r < 0 ? r : write_text(map);
}

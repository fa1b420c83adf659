/* sparse.h - where a file has data, and how the pax format 1.0 for sparse files says it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct sparse_piece {
	uint64_t offset, n_bytes;
};

struct sparse_map {
	bool has_holes;
	struct sparse_piece *pieces;
	size_t n_pieces, n_space;
	uint64_t data_bytes; /* sum of the pieces */
	struct buf text; /* padded to whole blocks */
};

void sparse_map_init(struct sparse_map *map);
void sparse_map_done(struct sparse_map *map);

/* Takes the place of what is in it. size: how much of the file counts. Moves the file's position.
 * 0 or -errno. */
int sparse_map_read(struct sparse_map *map, int fd, uint64_t size);

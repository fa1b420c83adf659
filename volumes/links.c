#include "volumes/links.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PATHS_CAP_BYTES (1024 * 1024 * 1024)
#define FIRST_SLOTS 1024
#define FORGOTTEN SIZE_MAX

struct links_slot {
	dev_t dev;
	ino_t ino;
	size_t path; /* where in paths, and 1; 0: free; or FORGOTTEN */
};

void links_init(struct links *links)
{
	*links = (struct links){ 0 };
	buf_init(&links->paths, PATHS_CAP_BYTES);
}

void links_done(struct links *links)
{
	free(links->slots);
	buf_done(&links->paths);
	*links = (struct links){ 0 };
}

/* The file's slot, or the free one where it belongs. At least half of them are free. */
static struct links_slot *find_slot(const struct links *links, dev_t dev, ino_t ino)
{
	uint64_t hash = (ino ^ (uint64_t)dev << 32) * UINT64_C(0x9e3779b97f4a7c15);
	size_t at = hash >> 20 & (links->n_slots - 1);

	while (links->slots[at].path &&
		(links->slots[at].ino != ino || links->slots[at].dev != dev))
		at = (at + 1) & (links->n_slots - 1);
	return &links->slots[at];
}

static int grow(struct links *links)
{
	struct links old = *links;

	links->n_slots = old.n_slots ? 2 * old.n_slots : FIRST_SLOTS;
	links->slots = calloc(links->n_slots, sizeof(*links->slots));
	if (!links->slots) {
		*links = old;
		return -ENOMEM;
	}
	for (size_t i = 0; i < old.n_slots; i++)
		if (old.slots[i].path)
			*find_slot(links, old.slots[i].dev, old.slots[i].ino) = old.slots[i];
	free(old.slots);
	return 0;
}

int links_meet(struct links *links, const struct stat *st, const char *path, const char **ret_path)
{
	struct links_slot *slot;
	size_t at = links->paths.len;
	int r = 2 * links->n_used >= links->n_slots ? grow(links) : 0;

	if (r < 0)
		return r;
	slot = find_slot(links, st->st_dev, st->st_ino);
	*ret_path = NULL;
	if (slot->path && slot->path != FORGOTTEN) {
		*ret_path = links->paths.data + slot->path - 1;
		return 0;
	}
	r = buf_add(&links->paths, path, strlen(path) + 1);
	if (r < 0)
		return r;
	links->n_used += !slot->path;
	*slot = (struct links_slot){ st->st_dev, st->st_ino, at + 1 };
	return 0;
}

void links_forget(struct links *links, const struct stat *st)
{
	struct links_slot *slot;

	if (!links->n_slots)
		return;
	slot = find_slot(links, st->st_dev, st->st_ino);
	if (slot->path)
		slot->path = FORGOTTEN;
}

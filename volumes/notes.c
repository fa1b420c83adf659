/* What the record is to hear when there is time. One change for many is cheaper, and nobody waits
 * for it; whoever starts without it looks at the disk and finds the same. */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "volumes/volumes_internal.h"

void notes_done(struct notes *notes)
{
	free(notes->ids);
	*notes = (struct notes){ 0 };
}

/* Lock held. Without memory the note is lost: see above. */
static void add(struct volumes *volumes, struct notes *notes, int64_t id)
{
	size_t n_space = notes->n_space ? 2 * notes->n_space : 16;
	int64_t *more = notes->ids;

	if (notes->n == notes->n_space)
		more = realloc(notes->ids, n_space * sizeof(*more));
	if (!more)
		return;
	if (notes->n == notes->n_space)
		notes->n_space = n_space;
	notes->ids = more;
	notes->ids[notes->n++] = id;
	if (volumes->made.n + volumes->moved.n == 1)
		pthread_cond_signal(&volumes->to_sweep);
}

static void note(struct volumes *volumes, struct notes *notes, int64_t id)
{
	pthread_mutex_lock(&volumes->lock);
	add(volumes, notes, id);
	pthread_mutex_unlock(&volumes->lock);
}

void note_made(struct volume *volume)
{
	note(volume->owner, &volume->owner->made, volume->id);
}

void note_moved(struct volumes *volumes, int64_t layer)
{
	note(volumes, &volumes->moved, layer);
}

/* Lock held. What has come meanwhile goes behind. */
static void put_back(struct volumes *volumes, struct notes *notes, struct notes *old)
{
	struct notes newer = *notes;

	*notes = *old;
	for (size_t i = 0; i < newer.n; i++)
		add(volumes, notes, newer.ids[i]);
	notes_done(&newer);
}

int notes_write(struct volumes *volumes)
{
	struct notes made = volumes->made, moved = volumes->moved;
	struct err err;
	int r;

	if (!made.n && !moved.n)
		return 0;
	volumes->made = volumes->moved = (struct notes){ 0 };
	pthread_mutex_unlock(&volumes->lock);
	r = record_notes(volumes, &made, &moved, &err);
	pthread_mutex_lock(&volumes->lock);
	if (r < 0) {
		put_back(volumes, &volumes->made, &made);
		put_back(volumes, &volumes->moved, &moved);
		return r;
	}
	notes_done(&made);
	notes_done(&moved);
	return 0;
}

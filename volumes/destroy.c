/* The end of volumes, as far as anybody waits for it: sweep.c does the rest. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/registry.h"
#include "volumes/volumes_internal.h"

/* Its name is free from here on. Lock held. */
static void strike_off(struct volume *volume)
{
	registry_remove(volume->owner->by_handle, volume->handle);
	volume->is_ready = false;
	volume->is_dead = true;
}

/* What cannot be moved stays, and must not be dead at the next start. top_lock held. */
static int move_away(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	struct err ignored;
	int r;

	pthread_mutex_lock(&volumes->lock);
	r = volume_set_dir(volume, "doomed");
	if (r == 0 || r == -ENOENT)
		strike_off(volume);
	pthread_mutex_unlock(&volumes->lock);
	(void)FAULT(volume_doomed, NULL);
	if (r == 0 || r == -ENOENT)
		return 0;
	record_set_state(volume, RECORD_LIVE, &ignored);
	return err_system(err, r, "move %s to doomed/", volume->dir);
}

/* top_lock, at a moment when no container is on its way to mount the volume by its name. One that is
 * may need the lock itself. */
static int lock_when_mounted(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	bool is_pending = true;
	int r = 0;

	while (r == 0 && is_pending) {
		r = volume_lock_top(volume, err);
		pthread_mutex_lock(&volumes->lock);
		is_pending = r == 0 && attach_is_pending(volume);
		if (is_pending) {
			pthread_mutex_unlock(&volume->top_lock);
			pthread_cond_wait(&volumes->changed, &volumes->lock);
		}
		pthread_mutex_unlock(&volumes->lock);
	}
	return r;
}

static int take_away(struct volume *volume, struct err *err)
{
	int r = lock_when_mounted(volume, err);

	if (r < 0)
		return r;
	r = move_away(volume, err);
	pthread_mutex_unlock(&volume->top_lock);
	if (r == 0)
		volume_put(volume); /* the table's */
	return r;
}

/* The state is recorded first: whatever comes then, it is finished at the next start. Only a full
 * disk may not keep anybody from making room: then the move alone must tell. */
static int destroy_all(
	struct volumes *volumes, struct volume *const list[], size_t n, struct err *err)
{
	struct err each = { 0 };
	int r = record_set_dead(volumes, list, n, err);

	if (r < 0 && err->code != ENOSPC)
		return r;
	r = 0;
	(void)FAULT(volume_dead, NULL);
	for (size_t i = 0; i < n; i++) {
		int r_each = take_away(list[i], &each);

		if (r_each < 0 && (r == 0 || r == -ENOENT)) {
			r = r_each;
			*err = each;
		}
	}
	return r;
}

int volume_destroy_this(struct volume *volume, struct err *err)
{
	return destroy_all(volume->owner, &volume, 1, err);
}

int volume_destroy(struct volumes *volumes, const char *handle, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	int r;

	if (!volume)
		return -ENOENT;
	r = volume_destroy_this(volume, err);
	volume_put(volume);
	return r;
}

int volumes_destroy(struct volumes *volumes, const struct strv *handles, struct err *err)
{
	AUTO_FREE struct volume **list = calloc(handles->n_items + 1, sizeof(struct volume *));
	struct err unknown;
	size_t n = 0;
	int r;

	if (!list)
		return err_system(err, -ENOMEM, "destroy");
	for (size_t i = 0; i < handles->n_items; i++) {
		list[n] = volume_get(volumes, handles->items[i], &unknown);
		n += list[n] != NULL;
	}
	r = destroy_all(volumes, list, n, err);
	for (size_t i = 0; i < n; i++)
		volume_put(list[i]);
	return r == -ENOENT ? 0 : r;
}

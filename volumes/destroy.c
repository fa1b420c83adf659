/* The end of volumes, as far as anybody waits for it: sweep.c does the rest. */
#include <errno.h>
#include <pthread.h>

#include "base/err.h"
#include "base/registry.h"
#include "volumes/volumes_internal.h"

/* Its name is free from here on. Lock held. */
static void strike_off(struct volume *volume)
{
	registry_remove(volume->owner->by_handle, volume->handle);
	volume->is_ready = false;
	volume->is_dead = true;
}

/* The state is recorded first: whatever comes then, it is finished at the next start. Only a full
 * disk may not keep anybody from making room: then the move alone must tell. top_lock held. */
static int destroy(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	int r = record_set_state(volume, RECORD_DEAD, err);

	if (r < 0 && err->code != ENOSPC)
		return r;
	pthread_mutex_lock(&volumes->lock);
	r = volume_set_dir(volume, "doomed");
	if (r == 0 || r == -ENOENT)
		strike_off(volume);
	pthread_mutex_unlock(&volumes->lock);
	return r == 0 || r == -ENOENT ? 0 : err_system(err, r, "move %s to doomed/", volume->dir);
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

int volume_destroy(struct volumes *volumes, const char *handle, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	int r;

	if (!volume)
		return -ENOENT;
	r = lock_when_mounted(volume, err);
	if (r == 0) {
		r = destroy(volume, err);
		pthread_mutex_unlock(&volume->top_lock);
	}
	if (r == 0)
		volume_put(volume); /* the table's */
	volume_put(volume);
	return r;
}

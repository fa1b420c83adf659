/* Deleting: a thread that empties dead/, and takes apart the volumes that nobody uses any more. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/registry.h"
#include "linux/sys.h"
#include "linux/tree.h"
#include "volumes/volumes_internal.h"

#define NOTES_MS 1000
#define GATHER_MS 50 /* who has destroyed one often goes on, and should not meet us at every lock */
#define RETRY_MS 200
#define RETRY_MAX_MS 5000
#define N_AT_ONCE 256 /* volumes in one change of the record */

int store_bury(struct volumes *volumes, const char *path)
{
	char to[64] = "dead/";

	if (random_hex(to + strlen(to), 16) < 0)
		return -EIO;
	return renameat(volumes->dir_fd, path, volumes->dir_fd, to) < 0 && errno != ENOENT ? -errno
											   : 0;
}

/* True: it is forgotten on disk and on record. What is not has no user at the next start either. */
static bool drop_layer(struct volumes *volumes, const struct layer *layer)
{
	char path[PATH_BYTES];
	struct err err;

	snprintf(path, sizeof(path), "layers/%lld", (long long)layer->id);
	if (store_bury(volumes, path) == 0 && record_remove_layer(volumes, layer->id, &err) == 0)
		return true;
	LOG(LOG_WARN, "layer-not-removed", KV_STR("path", path));
	return false;
}

/* Those of its layers that lose their last user, which nobody finds any more. Lock held. */
static size_t release_layers(struct volume *volume, struct layer *free_ones[MAX_LAYERS])
{
	size_t n = 0;

	for (unsigned i = 0; i < volume->n_layers; i++)
		if (--volume->layers[i]->n_refs == 0)
			free_ones[n++] = volume->layers[i];
	volume->n_layers = 0;
	return n;
}

/* Its layers lose a user; those without one go to dead/. */
static void drop_layers(struct volume *volume)
{
	struct volumes *volumes = volume->owner;
	struct layer *free_ones[MAX_LAYERS];
	size_t n;

	pthread_mutex_lock(&volumes->lock);
	n = release_layers(volume, free_ones);
	pthread_mutex_unlock(&volumes->lock);
	for (size_t i = 0; i < n; i++) {
		if (!drop_layer(volumes, free_ones[i]))
			continue;
		pthread_mutex_lock(&volumes->lock);
		layer_forget(volumes, free_ones[i]);
		pthread_mutex_unlock(&volumes->lock);
	}
}

/* The trees first, then the rows: a row without a tree is no loss, and on a full disk it is the
 * trees that make room for the change of the record. */
static int take_apart(
	struct volumes *volumes, struct volume *const list[], size_t n, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		r = store_bury(volumes, list[i]->dir);
		if (r < 0)
			err_system(err, r, "move %s to dead/", list[i]->dir);
	}
	(void)FAULT(volume_buried, NULL);
	if (r == 0)
		r = record_remove(volumes, list, n, err);
	(void)FAULT(volume_forgotten, NULL);
	if (r < 0) {
		LOG(LOG_WARN, "volumes-not-removed", KV_STR("first", list[0]->handle),
			KV_INT("count", n), KV_STR("error", err->msg));
		return r;
	}
	for (size_t i = 0; i < n; i++)
		drop_layers(list[i]);
	return 0;
}

void volume_discard(struct volume *volume)
{
	struct volumes *volumes = volume->owner;
	struct err err;

	take_apart(volumes, &volume, 1, &err);
	pthread_mutex_lock(&volumes->lock);
	registry_remove(volumes->by_handle, volume->handle);
	pthread_mutex_unlock(&volumes->lock);
	volume_free(volume);
	sweeper_has_dead(volumes);
}

/* Lock held on entry and exit. */
static void empty_graves(struct volumes *volumes)
{
	struct volume_list later = TAILQ_HEAD_INITIALIZER(later);

	while (!TAILQ_EMPTY(&volumes->graves)) {
		struct volume *list[N_AT_ONCE], *volume;
		struct err err;
		size_t n = 0;
		int r;

		while (n < N_AT_ONCE && (volume = TAILQ_FIRST(&volumes->graves))) {
			TAILQ_REMOVE(&volumes->graves, volume, grave);
			list[n++] = volume;
		}
		pthread_mutex_unlock(&volumes->lock);
		r = take_apart(volumes, list, n, &err);
		pthread_mutex_lock(&volumes->lock);
		for (size_t i = 0; i < n; i++)
			if (r < 0 && !volumes->is_ending)
				TAILQ_INSERT_TAIL(&later, list[i], grave);
			else
				volume_free(list[i]);
	}
	TAILQ_CONCAT(&volumes->graves, &later, grave);
}

/* Logged once, however often it is tried again. */
static int delete_dead(struct volumes *volumes, int last)
{
	int r = tree_empty(volumes->dead_fd, volumes->halt_fd);

	if (r < 0 && r != last && r != -ECANCELED)
		LOG(LOG_WARN, "dead-not-deleted", KV_STR("dir", volumes->dir), KV_INT("errno", -r));
	return r;
}

/* The disk was full, or descriptors ran short. Lock held. Returns the next pause. */
static int try_again_later(struct volumes *volumes, int pause_ms)
{
	struct timespec at = clock_deadline(pause_ms);

	if (!volumes->has_dead)
		pthread_cond_timedwait(&volumes->to_sweep, &volumes->lock, &at);
	volumes->has_dead = true;
	return 2 * pause_ms < RETRY_MAX_MS ? 2 * pause_ms : RETRY_MAX_MS;
}

/* Lock held. Notes wait a second for others. */
static void wait_for_work(struct volumes *volumes)
{
	struct timespec at = clock_deadline(NOTES_MS);
	int r = 0;

	if (!volumes->made.n && !volumes->moved.n)
		pthread_cond_wait(&volumes->to_sweep, &volumes->lock);
	else
		while (r == 0 && !volumes->has_dead && !volumes->is_ending)
			r = pthread_cond_timedwait(&volumes->to_sweep, &volumes->lock, &at);
	volumes->has_dead |= r != 0;
}

/* Lock held. */
static void gather(struct volumes *volumes)
{
	struct timespec at = clock_deadline(GATHER_MS);
	int r = 0;

	while (r == 0 && !volumes->is_ending)
		r = pthread_cond_timedwait(&volumes->to_sweep, &volumes->lock, &at);
}

static void *sweep(void *arg)
{
	struct volumes *volumes = arg;
	const struct sched_param none = { 0 };
	int pause_ms = RETRY_MS, r = 0;

	sched_setscheduler(0, SCHED_BATCH, &none); /* it does not come before whoever wakes it */
	pthread_mutex_lock(&volumes->lock);
	while (!volumes->is_ending) {
		if (!volumes->has_dead) {
			wait_for_work(volumes);
			continue;
		}
		gather(volumes);
		volumes->has_dead = false;
		empty_graves(volumes);
		pthread_mutex_unlock(&volumes->lock);
		r = delete_dead(volumes, r);
		pthread_mutex_lock(&volumes->lock);
		if (notes_write(volumes) == 0 && r == 0 && TAILQ_EMPTY(&volumes->graves))
			pause_ms = RETRY_MS;
		else if (!volumes->is_ending)
			pause_ms = try_again_later(volumes, pause_ms);
	}
	empty_graves(volumes);
	notes_write(volumes);
	pthread_mutex_unlock(&volumes->lock);
	return NULL;
}

void sweeper_has_dead(struct volumes *volumes)
{
	pthread_mutex_lock(&volumes->lock);
	if (!volumes->has_dead)
		pthread_cond_signal(&volumes->to_sweep);
	volumes->has_dead = true;
	pthread_mutex_unlock(&volumes->lock);
}

int sweeper_start(struct volumes *volumes, struct err *err)
{
	int r = pthread_create(&volumes->sweeper, NULL, sweep, volumes);

	return r ? err_system(err, -r, "sweeper thread") : 0;
}

void sweeper_stop(struct volumes *volumes)
{
	pthread_mutex_lock(&volumes->lock);
	volumes->is_ending = true;
	pthread_cond_broadcast(&volumes->changed);
	pthread_cond_signal(&volumes->to_sweep);
	while (volumes->n_at_work)
		pthread_cond_wait(&volumes->changed, &volumes->lock);
	pthread_mutex_unlock(&volumes->lock);
	pthread_join(volumes->sweeper, NULL);
}

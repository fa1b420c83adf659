/* Creations that somebody will ask for later. One thread for each that cannot be had at once, a few
 * at work at a time. What is finished is kept for an hour, in case nobody asks. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/registry.h"
#include "volumes/volumes_internal.h"

#define KEEP_MS (60 * 60 * 1000)
#define LOOK_MS 100 /* how often a waiting client's thread looks whether the server stops */
#define MAX_MAKING 8
#define STACK_BYTES (256 * 1024)

struct future {
	struct volumes *volumes;
	struct volume_spec spec;
	bool is_done, is_cancelled; /* cancelled: in no table any more, its thread frees it */
	int result;
	struct err err;
	int64_t done_ms;
};

static void future_free(struct future *future)
{
	volume_spec_done(&future->spec);
	free(future);
}

static int free_one(const char *handle, void *value, void *arg)
{
	(void)handle;
	(void)arg;
	future_free(value);
	return 0;
}

void futures_free(struct volumes *volumes)
{
	if (volumes->futures)
		registry_each(volumes->futures, free_one, NULL);
	registry_free(volumes->futures);
}

static int find_old(const char *handle, void *value, void *arg)
{
	const struct future *future = value;
	const char **ret_handle = arg;

	if (!future->is_done || clock_ms() - future->done_ms < KEEP_MS)
		return 0;
	*ret_handle = handle;
	return 1;
}

/* Lock held. */
static void forget_old(struct volumes *volumes)
{
	const char *handle;

	while (registry_each(volumes->futures, find_old, &handle) == 1)
		future_free(registry_remove(volumes->futures, handle));
}

/* ---- at work --------------------------------------------------------------------------------- */

static void finish(struct future *future)
{
	struct volumes *volumes = future->volumes;
	bool is_cancelled;

	future->result = volume_create(volumes, &future->spec, &future->err);
	pthread_mutex_lock(&volumes->lock);
	future->is_done = true;
	future->done_ms = clock_ms();
	is_cancelled = future->is_cancelled;
	pthread_cond_broadcast(&volumes->changed);
	pthread_mutex_unlock(&volumes->lock);
	if (!is_cancelled)
		return;
	if (future->result == 0)
		volume_destroy(volumes, future->spec.handle, &future->err);
	future_free(future);
}

static void *work(void *arg)
{
	struct future *future = arg;
	struct volumes *volumes = future->volumes;
	bool is_ending;

	pthread_mutex_lock(&volumes->lock);
	while (volumes->n_making >= MAX_MAKING && !volumes->is_ending)
		pthread_cond_wait(&volumes->changed, &volumes->lock);
	is_ending = volumes->is_ending;
	volumes->n_making++;
	pthread_mutex_unlock(&volumes->lock);
	if (!is_ending)
		finish(future);
	pthread_mutex_lock(&volumes->lock);
	if (is_ending && future->is_cancelled)
		future_free(future);
	volumes->n_making--;
	volumes->n_at_work--;
	pthread_cond_broadcast(&volumes->changed);
	pthread_mutex_unlock(&volumes->lock);
	return NULL;
}

static int start(struct future *future, struct err *err)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_mutex_lock(&future->volumes->lock);
	future->volumes->n_at_work++;
	pthread_mutex_unlock(&future->volumes->lock);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	r = pthread_create(&thread, &attr, work, future);
	pthread_attr_destroy(&attr);
	if (r == 0)
		return 0;
	pthread_mutex_lock(&future->volumes->lock);
	future->volumes->n_at_work--;
	pthread_mutex_unlock(&future->volumes->lock);
	return err_system(err, -r, "thread for a volume");
}

/* A walk over the tree, a copy of what is being written to and an import take time. */
static bool is_quick(struct volumes *volumes, const struct volume_spec *spec)
{
	const struct volume *parent;
	bool is_quick;

	if (spec->strategy == VOLUME_EMPTY)
		return true;
	if (spec->strategy != VOLUME_COW || !spec->source || volume_wants_owner(spec))
		return false;
	pthread_mutex_lock(&volumes->lock);
	parent = registry_find(volumes->by_handle, spec->source);
	is_quick = parent && parent->n_writers == 0 && parent->n_layers < MAX_LAYERS - 1;
	pthread_mutex_unlock(&volumes->lock);
	return is_quick;
}

/* ---- what clients ask ------------------------------------------------------------------------ */

static int add(struct volumes *volumes, struct future *future, struct err *err)
{
	int r = volume_choose_handle(&future->spec, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&volumes->lock);
	forget_old(volumes);
	r = registry_add(volumes->futures, future->spec.handle, future);
	pthread_mutex_unlock(&volumes->lock);
	if (r == -EEXIST)
		return err_set(err, ERR_EXISTS, EALREADY, "promise already exists in list");
	return r < 0 ? err_system(err, r, "future") : 0;
}

int volume_create_later(struct volumes *volumes, struct volume_spec *take_spec,
	char ret_handle[VOLUME_HANDLE_SIZE], struct err *err)
{
	struct future *future = calloc(1, sizeof(*future));
	int r;

	if (!future) {
		volume_spec_done(take_spec);
		return err_system(err, -ENOMEM, "future");
	}
	future->volumes = volumes;
	future->spec = *take_spec;
	*take_spec = (struct volume_spec){ 0 };
	r = add(volumes, future, err);
	if (r < 0) {
		future_free(future);
		return r;
	}
	memcpy(ret_handle, future->spec.handle, strlen(future->spec.handle) + 1);
	if (is_quick(volumes, &future->spec)) {
		finish(future);
		return 0;
	}
	r = start(future, err);
	if (r < 0) {
		pthread_mutex_lock(&volumes->lock);
		if (!future->is_cancelled) /* else the name may be another one's by now */
			registry_remove(volumes->futures, ret_handle);
		pthread_mutex_unlock(&volumes->lock);
		future_free(future);
	}
	return r;
}

static int copy_spec(struct volume_spec *to, const struct volume_spec *from)
{
	*to = *from;
	to->source = NULL;
	to->keys = to->values = (struct strv){ 0 };
	to->handle = strdup(from->handle);
	if (!to->handle || strv_copy(&to->keys, &from->keys) < 0 ||
		strv_copy(&to->values, &from->values) < 0) {
		volume_spec_done(to);
		return -ENOMEM;
	}
	return 0;
}

/* Lock held on entry and exit. */
static void wait_a_little(struct volumes *volumes, int64_t left_ms)
{
	struct timespec at = clock_deadline(left_ms < LOOK_MS ? left_ms : LOOK_MS);

	pthread_cond_timedwait(&volumes->changed, &volumes->lock, &at);
}

int volume_future_wait(struct volumes *volumes, const char *handle, int timeout_ms, int stop_fd,
	struct volume_spec *ret_spec, struct err *err)
{
	struct pollfd stop = { .fd = stop_fd, .events = POLLIN };
	int64_t end_ms = clock_ms() + timeout_ms, left_ms;
	struct future *future;
	int r;

	pthread_mutex_lock(&volumes->lock);
	while ((future = registry_find(volumes->futures, handle)) && !future->is_done &&
		(left_ms = end_ms - clock_ms()) > 0 && poll(&stop, 1, 0) == 0)
		wait_a_little(volumes, left_ms);
	if (!future) {
		r = -ESRCH;
	} else if (!future->is_done) {
		r = -EAGAIN;
	} else if (future->result < 0) {
		*err = future->err;
		r = future->result;
	} else {
		r = copy_spec(ret_spec, &future->spec);
		if (r < 0)
			err_system(err, r, "future");
	}
	pthread_mutex_unlock(&volumes->lock);
	return r;
}

int volume_future_drop(struct volumes *volumes, const char *handle)
{
	struct future *future;
	bool is_done = false;

	pthread_mutex_lock(&volumes->lock);
	future = registry_remove(volumes->futures, handle);
	if (future) {
		is_done = future->is_done;
		future->is_cancelled = true;
	}
	pthread_cond_broadcast(&volumes->changed);
	pthread_mutex_unlock(&volumes->lock);
	if (is_done)
		future_free(future);
	return future ? 0 : -ESRCH;
}

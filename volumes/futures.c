/* Creations that somebody will ask for later. One thread for each that cannot be had at once, a few
 * at work at a time. What is finished is kept for an hour, in case nobody asks; they are on record,
 * so that the answer does not depend on whether it is still the same server that is asked. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
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
	bool is_old; /* an earlier server has begun it */
	bool is_quick; /* goes on record with its volume, while nobody drops it */
	int64_t id; /* on record */
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

/* What stays on record is forgotten an hour after the next start. */
static void forget(struct future *future)
{
	struct err err;

	if (future->id && record_remove_future(future->volumes, future->id, &err) < 0)
		LOG(LOG_WARN, "future-stays-on-record", KV_STR("handle", future->spec.handle),
			KV_STR("error", err.msg));
	future_free(future);
}

/* Lock held. */
static void forget_old(struct volumes *volumes)
{
	const char *handle;

	while (registry_each(volumes->futures, find_old, &handle) == 1)
		forget(registry_remove(volumes->futures, handle));
}

/* ---- at work --------------------------------------------------------------------------------- */

/* Lock held. */
static void set_done(struct future *future)
{
	future->is_done = true;
	future->done_ms = clock_ms();
	pthread_cond_broadcast(&future->volumes->changed);
}

/* The volume and the answer are there at one moment, and from then on the future may be dropped. */
static bool is_wanted(void *arg)
{
	struct future *future = arg;

	if (!future->is_cancelled)
		set_done(future);
	return !future->is_cancelled;
}

static void set_failed(struct future *future, int r, const struct err *failure)
{
	struct volumes *volumes = future->volumes;
	bool is_cancelled;

	pthread_mutex_lock(&volumes->lock);
	future->result = r;
	future->err = *failure;
	is_cancelled = future->is_cancelled;
	set_done(future);
	pthread_mutex_unlock(&volumes->lock);
	if (is_cancelled)
		forget(future);
}

static void finish(struct future *future)
{
	struct volumes *volumes = future->volumes;
	struct volume_client client = { .is_wanted = is_wanted, .arg = future };
	struct err failure, err;
	int r = volume_create_for(volumes, &future->spec, &client, &failure);

	if (r == 0)
		return;
	if (record_future_failed(volumes, future->id, &failure, &err) < 0)
		LOG(LOG_WARN, "future-not-recorded", KV_STR("handle", future->spec.handle),
			KV_STR("error", err.msg));
	set_failed(future, r, &failure);
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
	if (spec->strategy != VOLUME_COW || !spec->source || volume_wants_owner(spec) ||
		volumes->driver->copy)
		return false;
	pthread_mutex_lock(&volumes->lock);
	parent = registry_find(volumes->by_handle, spec->source);
	is_quick = parent && parent->n_writers == 0 && parent->n_layers < MAX_LAYERS - 1;
	pthread_mutex_unlock(&volumes->lock);
	return is_quick;
}

/* ---- what clients ask ------------------------------------------------------------------------ */

/* Whoever asks anew for what was lost with an earlier server wants it made. Lock held. */
static void forget_lost(struct volumes *volumes, const char *handle)
{
	struct future *future = registry_find(volumes->futures, handle);

	if (future && future->is_old && future->result < 0)
		forget(registry_remove(volumes->futures, handle));
}

static int enter(struct volumes *volumes, struct future *future, struct err *err)
{
	int r = volume_choose_handle(&future->spec, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&volumes->lock);
	forget_old(volumes);
	forget_lost(volumes, future->spec.handle);
	r = registry_add(volumes->futures, future->spec.handle, future);
	pthread_mutex_unlock(&volumes->lock);
	if (r == -EEXIST)
		return err_set(err, ERR_EXISTS, EALREADY, "promise already exists in list");
	return r < 0 ? err_system(err, r, "future") : 0;
}

/* It is not to be: nobody was told of it. */
static void leave(struct future *future)
{
	struct volumes *volumes = future->volumes;

	pthread_mutex_lock(&volumes->lock);
	if (!future->is_cancelled) /* else the name may be another one's by now */
		registry_remove(volumes->futures, future->spec.handle);
	pthread_cond_broadcast(&volumes->changed);
	pthread_mutex_unlock(&volumes->lock);
	forget(future);
}

static int begin_slow(struct volumes *volumes, struct future *future, struct err *err)
{
	int64_t id = 0;
	int r = record_add_future(volumes, &future->spec, &id, err);

	pthread_mutex_lock(&volumes->lock);
	future->id = id;
	if (r == 0 && future->is_cancelled) /* before it was on record */
		r = err_set(err, ERR_SYSTEM, ECANCELED, "it was cancelled");
	pthread_mutex_unlock(&volumes->lock);
	if (r == 0)
		r = start(future, err);
	if (r < 0)
		leave(future);
	return r;
}

static int record_with_volume(void *arg, struct err *err)
{
	struct future *future = arg;

	return record_add_future(future->volumes, &future->spec, &future->id, err);
}

/* It goes on record with its volume, or with what became of that. */
static int begin_quick(struct volumes *volumes, struct future *future, struct err *err)
{
	struct volume_client client = {
		.is_wanted = is_wanted, .record = record_with_volume, .arg = future
	};
	struct err failure;
	int result = volume_create_for(volumes, &future->spec, &client, &failure), r = 0;

	if (result == 0)
		return 0;
	if (!client.is_recorded) {
		future->id = 0;
		r = record_add_future(volumes, &future->spec, &future->id, err);
	}
	if (r == 0)
		r = record_future_failed(volumes, future->id, &failure, err);
	if (r < 0)
		leave(future);
	else
		set_failed(future, result, &failure);
	return r;
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
	future->is_quick = is_quick(volumes, &future->spec);
	*take_spec = (struct volume_spec){ 0 };
	r = enter(volumes, future, err);
	if (r < 0) {
		future_free(future);
		return r;
	}
	memcpy(ret_handle, future->spec.handle, strlen(future->spec.handle) + 1);
	return future->is_quick ? begin_quick(volumes, future, err)
				: begin_slow(volumes, future, err);
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

/* The record first: what was cancelled does not come back with the next server. */
int volume_future_drop(struct volumes *volumes, const char *handle)
{
	struct future *future;
	struct err err;
	bool is_done = false;

	pthread_mutex_lock(&volumes->lock);
	while ((future = registry_find(volumes->futures, handle)) && future->is_quick &&
		!future->is_done)
		pthread_cond_wait(&volumes->changed, &volumes->lock);
	future = registry_remove(volumes->futures, handle);
	if (future) {
		is_done = future->is_done;
		future->is_cancelled = true;
	}
	if (future && !is_done && future->id &&
		record_future_cancelled(volumes, future->id, &err) < 0)
		LOG(LOG_WARN, "future-not-recorded", KV_STR("handle", handle),
			KV_STR("error", err.msg));
	pthread_cond_broadcast(&volumes->changed);
	pthread_mutex_unlock(&volumes->lock);
	if (is_done)
		forget(future);
	return future ? 0 : -ESRCH;
}

/* ---- at start -------------------------------------------------------------------------------- */

/* Rows are copied first: what is done to them would change what is being read. */
struct loaded {
	struct future *future;
	enum future_state state;
	int64_t after;
};

struct loading {
	struct volumes *volumes;
	struct loaded *rows;
	size_t n_rows;
};

static struct future *old_future(struct volumes *volumes, const struct future_row *row)
{
	struct future *future = calloc(1, sizeof(*future));

	if (!future)
		return NULL;
	*future = (struct future){ .volumes = volumes,
		.is_old = true,
		.is_done = true,
		.done_ms = clock_ms(),
		.id = row->id,
		.spec = { .handle = strdup(row->handle ? row->handle : ""),
			.has_uid = row->has_uid,
			.has_gid = row->has_gid,
			.uid = row->uid,
			.gid = row->gid },
		.err = row->failure,
		.result = row->state == FUTURE_FAILED ? -row->failure.code : 0 };
	if (future->spec.handle)
		return future;
	free(future);
	return NULL;
}

static int copy_row(const struct future_row *row, void *arg)
{
	struct loading *loading = arg;
	struct loaded *more = realloc(loading->rows, (loading->n_rows + 1) * sizeof(*more));
	struct future *future = more ? old_future(loading->volumes, row) : NULL;

	if (more)
		loading->rows = more;
	if (!future)
		return -ENOMEM;
	more[loading->n_rows++] = (struct loaded){ future, row->state, row->after };
	return 0;
}

/* NULL: it was not completed, or has been destroyed since. */
static struct volume *made_by(const struct loaded *row)
{
	struct volume *volume =
		registry_find(row->future->volumes->by_handle, row->future->spec.handle);

	return volume && volume->is_ready && volume->id > row->after ? volume : NULL;
}

static void withdraw(struct future *future, struct volume *volume)
{
	struct err err;

	if (volume && volume_destroy_this(volume, &err) < 0)
		LOG(LOG_WARN, "cancelled-volume-stays", KV_STR("handle", volume->handle),
			KV_STR("error", err.msg));
	forget(future);
}

static void settle(const struct loaded *row)
{
	struct future *future = row->future;
	struct volume *volume = made_by(row);
	struct err err;

	if (row->state == FUTURE_CANCELLED || !volume_handle_is_valid(future->spec.handle)) {
		withdraw(future, row->state == FUTURE_CANCELLED ? volume : NULL);
		return;
	}
	if (row->state == FUTURE_PENDING && !volume) {
		future->result = err_set(&future->err, ERR_SYSTEM, ECANCELED,
			"the server was restarted before it was made");
		record_future_failed(future->volumes, future->id, &future->err, &err);
	}
	if (registry_add(future->volumes->futures, future->spec.handle, future) < 0)
		forget(future);
}

void futures_load(struct volumes *volumes)
{
	struct loading loading = { .volumes = volumes };
	struct err err;

	if (record_each_future(volumes, copy_row, &loading, &err) < 0)
		LOG(LOG_WARN, "futures-lost", KV_STR("dir", volumes->dir));
	for (size_t i = 0; i < loading.n_rows; i++)
		settle(&loading.rows[i]);
	free(loading.rows);
}

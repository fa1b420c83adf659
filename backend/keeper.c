/* Two threads: the keeper destroys containers whose grace time is over, the sweeper deletes what
 * lies in dead/. Neither has a timer when there is nothing to wait for. */
#include <errno.h>
#include <limits.h>

#include "backend_internal.h"
#include "base/err.h"
#include "base/log.h"
#include "base/registry.h"
#include "base/strv.h"
#include "container.h"
#include "linux/tree.h"

/* ---- grace times ----------------------------------------------------------------------------- */

struct round {
	struct strv due;
	int64_t now_ms, next_ms; /* next_ms: INT64_MAX if no clock runs */
};

/* A grace time may be longer than any clock runs. */
static int64_t due_at(int64_t since_ms, int64_t grace_ns)
{
	int64_t at_ms;

	if (__builtin_add_overflow(
		    since_ms, grace_ns / 1000000 + (grace_ns % 1000000 != 0), &at_ms))
		return INT64_MAX;
	return at_ms;
}

static int look_at(const char *handle, void *value, void *arg)
{
	struct container *container = value;
	struct round *round = arg;
	int64_t at_ms = INT64_MAX;

	pthread_mutex_lock(&container->lock);
	if (container->state != CONTAINER_CREATING && container->grace_ns > 0 &&
		!container->n_busy && !container->is_destroying)
		at_ms = due_at(container->idle_since_ms, container->grace_ns);
	pthread_mutex_unlock(&container->lock);
	if (at_ms <= round->now_ms)
		return strv_add(&round->due, handle);
	if (at_ms < round->next_ms)
		round->next_ms = at_ms;
	return 0;
}

static void destroy_due(struct backend *backend, const struct strv *due)
{
	for (size_t i = 0; i < due->n_items; i++) {
		struct err err = { 0 };

		LOG(LOG_INFO, "grace-time-over", KV_STR("handle", due->items[i]));
		if (container_destroy(backend, due->items[i], &err) < 0 &&
			err.kind != ERR_NO_CONTAINER)
			LOG(LOG_WARN, "reap-failed", KV_STR("handle", due->items[i]),
				KV_STR("error", err.msg));
	}
}

/* CLOCK_MONOTONIC and BOOTTIME differ by time asleep: then we come a little late. Lock held. */
static void wait_until(struct backend *backend, int64_t at_ms)
{
	struct timespec at;
	int64_t in_ms = at_ms - clock_ms();

	if (at_ms == INT64_MAX) {
		pthread_cond_wait(&backend->changed, &backend->lock);
		return;
	}
	if (in_ms <= 0)
		return;
	at = clock_deadline(in_ms);
	pthread_cond_timedwait(&backend->changed, &backend->lock, &at);
}

static void *keep(void *arg)
{
	struct backend *backend = arg;

	pthread_mutex_lock(&backend->lock);
	while (!backend->is_ending) {
		struct round round = { .now_ms = clock_ms(), .next_ms = INT64_MAX };

		registry_each(backend->containers, look_at, &round);
		if (round.due.n_items == 0) {
			wait_until(backend, round.next_ms);
			continue;
		}
		pthread_mutex_unlock(&backend->lock);
		destroy_due(backend, &round.due);
		strv_done(&round.due);
		pthread_mutex_lock(&backend->lock);
	}
	pthread_mutex_unlock(&backend->lock);
	return NULL;
}

/* ---- the dead -------------------------------------------------------------------------------- */

/* Lock held on entry and exit. */
static void put_graves(struct backend *backend)
{
	struct container *container;

	while ((container = TAILQ_FIRST(&backend->graves))) {
		TAILQ_REMOVE(&backend->graves, container, entry);
		pthread_mutex_unlock(&backend->lock);
		container_unref(container);
		pthread_mutex_lock(&backend->lock);
	}
}

static void delete_dead(struct backend *backend)
{
	int r = tree_empty(backend->dead_fd, -1);

	if (r < 0)
		LOG(LOG_WARN, "dead-not-deleted", KV_STR("dir", backend->dead_dir),
			KV_INT("errno", -r));
}

static void *sweep(void *arg)
{
	struct backend *backend = arg;

	pthread_mutex_lock(&backend->lock);
	while (!backend->is_ending) {
		put_graves(backend);
		if (!backend->has_dead) {
			pthread_cond_wait(&backend->died, &backend->lock);
			continue;
		}
		backend->has_dead = false;
		pthread_mutex_unlock(&backend->lock);
		delete_dead(backend);
		pthread_mutex_lock(&backend->lock);
	}
	put_graves(backend);
	pthread_mutex_unlock(&backend->lock);
	return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

int keeper_start(struct backend *backend, struct err *err)
{
	int r = pthread_create(&backend->keeper, NULL, keep, backend);

	if (r == 0)
		r = pthread_create(&backend->sweeper, NULL, sweep, backend);
	return r ? err_system(err, -r, "keeper thread") : 0;
}

void keeper_stop(struct backend *backend)
{
	pthread_mutex_lock(&backend->lock);
	backend->is_ending = true;
	pthread_cond_signal(&backend->changed);
	pthread_cond_signal(&backend->died);
	pthread_mutex_unlock(&backend->lock);
	pthread_join(backend->keeper, NULL);
	pthread_join(backend->sweeper, NULL);
}

void keeper_notice(struct backend *backend)
{
	pthread_mutex_lock(&backend->lock);
	pthread_cond_signal(&backend->changed);
	pthread_mutex_unlock(&backend->lock);
}

void keeper_has_dead(struct backend *backend)
{
	pthread_mutex_lock(&backend->lock);
	backend->has_dead = true;
	pthread_cond_signal(&backend->died);
	pthread_mutex_unlock(&backend->lock);
}

void keeper_bury(struct backend *backend, struct container *take_container)
{
	pthread_mutex_lock(&backend->lock);
	TAILQ_INSERT_TAIL(&backend->graves, take_container, entry);
	pthread_mutex_unlock(&backend->lock);
	keeper_has_dead(backend);
}

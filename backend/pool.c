/* Containers that are not born yet: shim, init in its namespaces, ids, groups and the skeleton of
 * its mounts, all that can be made before a request says what it wants. A create takes one and adds
 * the rest; a thread makes the next. Each is recorded before it is made, under a name that no handle
 * can have. Its shim ends with the server, so the next start has nothing to adopt: it removes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "container.h"
#include "network.h"
#include "store.h"

/* Without a request, after which the pool makes what it lacks: the next steps of a build come sooner. One
 * that was found empty does not wait. */
#define CALM_MS 20

/* "unborn/<id>": no handle has a slash. */
static int record_unborn(struct container *container, struct err *err)
{
	struct record record = { .id = container->id,
		.nonce = container->nonce,
		.boot_id = container->backend->boot_id,
		.id_base = container->id_range < 0 ? -1 : (int64_t)container->map.root,
		.state = CONTAINER_UNBORN };
	char *name;

	if (asprintf(&name, "unborn/%s", container->id) < 0)
		return err_system(err, -ENOMEM, "container");
	free(container->handle);
	record.handle = container->handle = name;
	return store_add(container->backend->db, &record, &(struct strv){ 0 }, NULL, 0, err);
}

/* What cannot be undone now is left to the next start, which finds it in the record. */
static void discard(struct container *container)
{
	struct backend *backend = container->backend;
	struct err err = { 0 };

	if (container_teardown(container, &err) == 0)
		return;
	LOG(LOG_ERROR, "unborn-container-not-removed", KV_STR("id", container->id),
		KV_STR("error", err.msg));
	keeper_bury(backend, container);
}

static struct container *make(struct backend *backend, struct err *err)
{
	struct container *container;
	int r;

	pthread_mutex_lock(&backend->lock);
	container = container_new_with_ids(backend, "unborn", PRIVILEGE_NONE, err);
	pthread_mutex_unlock(&backend->lock);
	if (!container)
		return NULL;
	container->state = CONTAINER_UNBORN;
	r = record_unborn(container, err);
	if (r == 0)
		r = network_reserve(backend->network, container->id, NULL, &container->lease, err);
	if (r == 0)
		r = container_prepare(container, err);
	if (r == 0)
		return container;
	discard(container);
	return NULL;
}

/* The first whose init is alive, or dead. Lock held. */
static struct container *find(struct pool *pool, bool alive)
{
	struct container *container;

	TAILQ_FOREACH (container, &pool->ready, entry)
		if ((container_check_alive(container, NULL) == 0) == alive)
			return container;
	return NULL;
}

/* Lock held. */
static void leave(struct pool *pool, struct container *container)
{
	TAILQ_REMOVE(&pool->ready, container, entry);
	pool->n_ready--;
}

void pool_put(struct backend *backend, struct container *container)
{
	TAILQ_INSERT_TAIL(&backend->pool.ready, container, entry);
	backend->pool.n_ready++;
}

static void add(struct backend *backend)
{
	struct pool *pool = &backend->pool;
	struct container *container;
	struct err err = { 0 };

	pool->is_making = true;
	pthread_mutex_unlock(&backend->lock);
	container = make(backend, &err);
	pthread_mutex_lock(&backend->lock);
	pool->is_making = false;
	pthread_cond_broadcast(&pool->made);
	if (!container) {
		pool->is_due = false; /* until the next create */
		LOG(err.kind == ERR_EXHAUSTED ? LOG_DEBUG : LOG_WARN, "unborn-container-not-made",
			KV_STR("error", err.msg));
		return;
	}
	pool_put(backend, container);
	if (pool->n_ready >= backend->config.n_unborn)
		pool->is_short = false;
}

/* In so many ms one is to be made; -1: not before something changes. */
static int64_t due_in_ms(const struct backend *backend)
{
	const struct pool *pool = &backend->pool;
	int64_t left_ms = pool->calm_at_ms - clock_ms();

	if (!pool->is_due || pool->n_busy || pool->n_ready >= backend->config.n_unborn)
		return -1;
	return pool->is_short || left_ms < 0 ? 0 : left_ms;
}

static void wait_until_due(struct backend *backend)
{
	struct pool *pool = &backend->pool;
	int64_t in_ms = due_in_ms(backend);
	struct timespec deadline = clock_deadline(in_ms);

	pool->is_dozing = in_ms >= 0;
	if (pool->is_dozing)
		pthread_cond_timedwait(&pool->changed, &backend->lock, &deadline);
	else
		pthread_cond_wait(&pool->changed, &backend->lock);
	pool->is_dozing = false;
}

static void *fill(void *arg)
{
	struct backend *backend = arg;
	struct pool *pool = &backend->pool;
	struct container *dead;

	pthread_mutex_lock(&backend->lock);
	while (!pool->is_ending) {
		dead = find(pool, false);
		if (dead) {
			leave(pool, dead);
			pthread_mutex_unlock(&backend->lock);
			discard(dead);
			pthread_mutex_lock(&backend->lock);
		} else if (due_in_ms(backend) == 0) {
			add(backend);
		} else {
			wait_until_due(backend);
		}
	}
	pthread_mutex_unlock(&backend->lock);
	return NULL;
}

struct container *pool_take(struct backend *backend)
{
	struct pool *pool = &backend->pool;
	struct container *container = find(pool, true);

	pool->is_due = true;
	if (container)
		leave(pool, container);
	else
		pool->is_short = true;
	if (find(pool, false))
		pthread_cond_signal(&pool->changed);
	return container;
}

void pool_begin_work(struct backend *backend)
{
	pthread_mutex_lock(&backend->lock);
	backend->pool.n_busy++;
	pthread_mutex_unlock(&backend->lock);
}

void pool_end_work(struct backend *backend)
{
	struct pool *pool = &backend->pool;

	pthread_mutex_lock(&backend->lock);
	pool->n_busy--;
	pool->calm_at_ms = clock_ms() + CALM_MS;
	if (due_in_ms(backend) >= 0 && (pool->is_short || !pool->is_dozing))
		pthread_cond_signal(&pool->changed);
	pthread_mutex_unlock(&backend->lock);
}

void pool_drain(struct backend *backend)
{
	struct pool *pool = &backend->pool;
	struct container *container;

	pthread_mutex_lock(&backend->lock);
	while (pool->is_making)
		pthread_cond_wait(&pool->made, &backend->lock);
	pool->n_draining++;
	while ((container = TAILQ_FIRST(&pool->ready))) {
		leave(pool, container);
		pthread_mutex_unlock(&backend->lock);
		discard(container);
		pthread_mutex_lock(&backend->lock);
	}
	pool->n_draining--;
	pthread_cond_broadcast(&pool->made);
	while (pool->n_draining) /* somebody else still gives back what we are after */
		pthread_cond_wait(&pool->made, &backend->lock);
	pthread_mutex_unlock(&backend->lock);
}

int pool_start(struct backend *backend, struct err *err)
{
	struct pool *pool = &backend->pool;
	int r;

	TAILQ_INIT(&pool->ready);
	clock_cond_init(&pool->changed);
	pthread_cond_init(&pool->made, NULL);
	pool->is_due = true;
	r = pthread_create(&pool->filler, NULL, fill, backend);
	return r ? err_system(err, -r, "thread of the container pool") : 0;
}

void pool_stop(struct backend *backend)
{
	struct pool *pool = &backend->pool;

	pthread_mutex_lock(&backend->lock);
	pool->is_ending = true;
	pthread_cond_signal(&pool->changed);
	pthread_mutex_unlock(&backend->lock);
	pthread_join(pool->filler, NULL);
	pool_drain(backend);
	pthread_cond_destroy(&pool->changed);
	pthread_cond_destroy(&pool->made);
}

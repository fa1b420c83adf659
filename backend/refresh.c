/* Containers whose volumes were copied. While nothing runs in a container it can be held, and what
 * it has mounted becomes a layer that others share; before something runs in it again, that is
 * covered by the volume as it is now: the same layers, and a fresh place for what will be written. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/registry.h"
#include "binds.h"
#include "container.h"
#include "link.h"
#include "shim/protocol.h"
#include "spec.h"
#include "volumes/volumes.h"

/* ---- holding ----- */

void container_begin_run(struct container *container)
{
	pthread_mutex_lock(&container->lock);
	while (container->is_held)
		pthread_cond_wait(&container->released, &container->lock);
	container->n_starting++;
	pthread_mutex_unlock(&container->lock);
}

void container_end_run(struct container *container)
{
	pthread_mutex_lock(&container->lock);
	container->n_starting--;
	pthread_mutex_unlock(&container->lock);
}

struct search {
	const char *id;
	struct container *found;
};

static int match_id(const char *handle, void *value, void *arg)
{
	struct container *container = value;
	struct search *search = arg;

	(void)handle;
	if (strcmp(container->id, search->id) != 0)
		return 0;
	search->found = container;
	return 1;
}

/* With one more reference, or NULL. */
static struct container *find_by_id(struct backend *backend, const char *id)
{
	struct search search = { .id = id };

	pthread_mutex_lock(&backend->lock);
	registry_each(backend->containers, match_id, &search);
	if (search.found) {
		pthread_mutex_lock(&search.found->lock);
		search.found->n_refs++;
		pthread_mutex_unlock(&search.found->lock);
	}
	pthread_mutex_unlock(&backend->lock);
	return search.found;
}

static void let_go(struct container *container)
{
	pthread_mutex_lock(&container->lock);
	container->is_held = false;
	pthread_cond_broadcast(&container->released);
	pthread_mutex_unlock(&container->lock);
}

/* One that is being made has perhaps not mounted yet what it was promised. */
static bool try_hold(struct container *container)
{
	bool can_hold;

	pthread_mutex_lock(&container->lock);
	can_hold = container->state != CONTAINER_CREATING && !container->n_starting &&
		!container->is_held;
	container->is_held |= can_hold;
	pthread_mutex_unlock(&container->lock);
	if (can_hold && container_check_alive(container, NULL) == 0 &&
		container_is_idle(container) != 1) {
		let_go(container);
		return false;
	}
	return can_hold;
}

static bool hold(void *arg, const char *id)
{
	struct container *container = find_by_id(arg, id);
	bool is_held = container && try_hold(container);

	if (container && !is_held)
		container_unref(container); /* else its reference stays until it is released */
	return is_held;
}

static void release(void *arg, const char *id)
{
	struct container *container = find_by_id(arg, id);

	if (!container)
		return;
	let_go(container);
	container_unref(container);
	container_unref(container);
}

struct volume_users refresh_users(struct backend *backend)
{
	return (struct volume_users){ .hold = hold, .release = release, .arg = backend };
}

/* ---- refreshing ------------------------------------------------------------------------------ */

static int send_plan(struct container *container, const void *plan, size_t n_bytes, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	AUTO_BUF struct buf text = { 0 };
	struct msg_reply reply;
	int r = link_call(container->link,
		&(struct msg){ .type = MSG_REFRESH,
			.body = (void *)plan,
			.body_bytes = n_bytes,
			.fds = { container->backend->proc_fd },
			.n_fds = 1 },
		&answer, err);

	if (r < 0)
		return r;
	answer_body(&answer, &reply, sizeof(reply));
	if (reply.code == 0)
		return 0;
	buf_init(&text, 4096);
	plan_describe(plan, reply.step, &text);
	return err_system(err, reply.code, "renew a volume: %.300s", buf_str(&text));
}

static int refresh(struct container *container, struct volume_mount *mounts, struct err *err)
{
	struct backend *backend = container->backend;
	struct plan_input input = { .map = container->map,
		.skeleton_dir = backend->skeleton_dir,
		.binds = container->binds,
		.n_binds = container->n_binds,
		.bind_volumes = mounts };
	AUTO_FREE void *plan = NULL;
	size_t n_bytes;
	int r = 0;

	for (size_t i = 0; i < container->n_binds && r >= 0; i++)
		if (!container->binds[i].from_container)
			r = volume_attach(backend->volumes, container->binds[i].src, container->id,
				container->binds[i].read_write ? ATTACH_WRITABLE : 0, &mounts[i],
				err);
	if (r < 0)
		return r;
	r = plan_refresh(&input, &plan, &n_bytes);
	return r < 0 ? err_system(err, r, "plan") : send_plan(container, plan, n_bytes, err);
}

int container_refresh(struct container *container, struct err *err)
{
	struct volumes *volumes = container->backend->volumes;
	struct volume_mount *mounts;
	int r = 0;

	if (!volume_has_stale(volumes, container->id))
		return 0;
	pthread_mutex_lock(&container->refresh_lock); /* once for all that run at the same time */
	if (volume_has_stale(volumes, container->id)) {
		mounts = calloc(container->n_binds + 1, sizeof(*mounts));
		r = mounts ? refresh(container, mounts, err) : err_system(err, -ENOMEM, "run");
		binds_done(mounts, container->n_binds);
		volume_mounted(volumes, container->id);
		volume_refreshed(volumes, container->id, r == 0);
		if (r == 0)
			LOG(LOG_INFO, "volumes-renewed", KV_STR("handle", container->handle));
	}
	pthread_mutex_unlock(&container->refresh_lock);
	return r;
}

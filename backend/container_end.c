/* How containers and what runs in them come to an end: stop, destroy, and the undoing of a failed
 * create. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/registry.h"
#include "container.h"
#include "disk_quota.h"
#include "link.h"
#include "linux/cgroup.h"
#include "network.h"
#include "pea.h"
#include "shim/protocol.h"
#include "shim_process.h"
#include "store.h"
#include "volumes/volumes.h"

#define STOP_TRIES 10
#define STOP_INTERVAL_MS 1000

/* ---- destroy --------------------------------------------------------------------------------- */

/* Its process has ended, and everybody who waited for one of the container's has been told. */
static bool await_end(struct container *container)
{
	struct timespec at = clock_deadline(LINK_TIMEOUT_MS);
	bool is_gone;
	int r = 0;

	pthread_mutex_lock(&container->table_lock);
	while (!container->is_shim_gone && r == 0)
		r = pthread_cond_timedwait(&container->died, &container->table_lock, &at);
	is_gone = container->is_shim_gone;
	pthread_mutex_unlock(&container->table_lock);
	return is_gone;
}

/* One that hangs, or that we have no word from. */
static void kill_shim(struct container *container)
{
	cgroup_kill(&container->backend->cgroups, container->id);
	if (container->shim_pid > 0)
		kill(container->shim_pid, SIGKILL);
	else
		shim_process_kill(container->id);
	if (container->link)
		await_end(container);
}

/* BYE kills process 1 and with it the pid namespace. A shim that does not obey is killed itself. */
static void end_shim(struct container *container)
{
	bool is_told = link_tell(container->link, &(struct msg){ .type = MSG_BYE }) == 0;
	int status;

	if (!is_told || !await_end(container))
		kill_shim(container);
	if (container->shim_pid > 0) {
		kill(container->shim_pid, SIGKILL); /* in case the link ended, and not it */
		while (waitpid(container->shim_pid, &status, 0) < 0 && errno == EINTR)
			continue;
	}
	container->shim_pid = 0;
}

static int bury_dir(struct container *container, struct err *err)
{
	struct backend *backend = container->backend;
	AUTO_FREE char *from = NULL, *to = NULL;

	if (asprintf(&from, "%s/%s", backend->live_dir, container->id) < 0 ||
		asprintf(&to, "%s/%s", backend->dead_dir, container->id) < 0)
		return err_system(err, -ENOMEM, "destroy");
	disk_quota_end(backend, container->id);
	if (rename(from, to) < 0 && errno != ENOENT)
		return err_system(err, -errno, "move %s to %s", from, to);
	unlinkat(backend->run_fd, container->id, 0);
	return 0;
}

/* Its link goes with its namespace, by itself. */
static int give_lease(struct container *container, struct err *err)
{
	struct lease *lease;
	int r;

	pthread_mutex_lock(&container->net_lock);
	pthread_mutex_lock(&container->lock);
	lease = container->lease;
	container->lease = NULL; /* nobody looks at it while it goes */
	pthread_mutex_unlock(&container->lock);
	r = lease ? network_release(lease, err) : 0;
	if (r < 0) {
		pthread_mutex_lock(&container->lock);
		container->lease = lease;
		pthread_mutex_unlock(&container->lock);
	}
	pthread_mutex_unlock(&container->net_lock);
	return r;
}

/* Its records. */
static int forget(struct container *container, struct err *err)
{
	int r = give_lease(container, err);

	if (r == 0)
		r = FAULT(destroy_released, err);
	return r < 0 ? r : store_remove(container->backend->db, container->id, err);
}

void container_drop(struct container *container)
{
	struct backend *backend = container->backend;

	pthread_mutex_lock(&backend->lock);
	registry_remove(backend->containers, container->handle);
	idpool_give(&backend->ids, container->id_range);
	pthread_mutex_unlock(&backend->lock);
	keeper_bury(backend, container); /* with the registry's reference */
}

int container_teardown(struct container *container, struct err *err)
{
	struct backend *backend = container->backend;
	int r;

	(void)FAULT(destroy_begun, NULL);
	end_shim(container);
	container_cut_files(container);
	r = FAULT(destroy_ended, err);
	if (r < 0)
		return r;
	r = cgroup_destroy(&backend->cgroups, container->id);
	if (r < 0)
		return err_system(err, r, "remove cgroup %s", container->id);
	r = pea_end_all(container, err);
	if (r == 0)
		r = FAULT(destroy_ungrouped, err);
	if (r == 0)
		r = bury_dir(container, err);
	if (r < 0)
		return r;
	(void)FAULT(destroy_buried, NULL);
	volume_detach_all(backend->volumes, container->id);
	(void)FAULT(destroy_detached, NULL);
	keeper_has_dead(
		backend); /* also when the record cannot go: on a full disk that is what makes room */
	r = forget(container, err);
	if (r < 0 && container->root_fd >= 0)
		/* our hold on its root keeps what lies in dead/ alive; the number stays taken for
		 * others */
		dup3(backend->dead_fd, container->root_fd, O_CLOEXEC);
	for (int tries = 0; tries < 20 && r < 0; tries++) {
		usleep(50000);
		r = forget(container, err);
	}
	if (r < 0)
		return r;
	(void)FAULT(destroy_forgotten, NULL);
	container_drop(container);
	return 0;
}

int container_destroy(struct backend *backend, const char *handle, struct err *err)
{
	struct container *container = container_get(backend, handle, err);
	int64_t start_ms = clock_ms();
	bool is_ours;
	int r;

	if (!container)
		return -ESRCH;
	pthread_mutex_lock(&container->lock);
	is_ours = !container->is_destroying;
	container->is_destroying = true;
	pthread_mutex_unlock(&container->lock);
	if (!is_ours) {
		container_put(container);
		return err_set(err, ERR_BUSY, EBUSY, "container already being destroyed");
	}
	pool_begin_work(backend);
	r = container_teardown(container, err);
	pool_end_work(backend);
	if (r < 0) {
		pthread_mutex_lock(&container->lock);
		container->is_destroying = false;
		pthread_mutex_unlock(&container->lock);
	} else {
		count_one(&backend->counts, COUNT_DESTROYED);
		LOG(LOG_INFO, "container-destroyed", KV_STR("handle", handle),
			KV_INT("ms", clock_ms() - start_ms));
	}
	container_put(container);
	return r;
}

/* ---- stop ------------------------------------------------------------------------------------ */

/* 1 if processes are left, 0, or -errno. */
static int kill_all(struct container *container, int signo, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	struct msg_signal body = { .signo = signo };
	struct msg_reply reply;
	int r = link_call(container->link,
		&(struct msg){ .type = MSG_KILL_ALL, .body = &body, .body_bytes = sizeof(body) },
		&answer, err);

	if (r < 0)
		return r;
	answer_body(&answer, &reply, sizeof(reply));
	if (reply.code < 0)
		return err_system(err, reply.code, "stop");
	return reply.value != 0;
}

int container_is_idle(struct container *container)
{
	struct err err;
	int r = kill_all(container, 0, &err);

	return r < 0 ? r : !r;
}

/* Until none is left or the time is over; looks rarely when it takes long. */
static int await_none(struct container *container, int timeout_ms, struct err *err)
{
	int64_t end_ms = clock_ms() + timeout_ms;
	useconds_t pause_us = 500;
	int r;

	while ((r = kill_all(container, 0, err)) == 1 && clock_ms() < end_ms) {
		usleep(pause_us);
		pause_us = pause_us < 50000 ? pause_us * 2 : 50000;
	}
	return r;
}

int container_stop(struct container *container, bool kill_now, struct err *err)
{
	int r = 1;

	if (container_check_alive(container, NULL) == 0) {
		for (int tries = 0; tries < STOP_TRIES && !kill_now && r == 1; tries++) {
			r = kill_all(container, SIGTERM, err);
			if (r == 1)
				r = await_none(container, STOP_INTERVAL_MS, err);
		}
		if (r == 1)
			r = kill_all(container, SIGKILL, err);
		if (r == 1)
			r = await_none(container, STOP_INTERVAL_MS, err);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&container->lock);
	container->state = CONTAINER_STOPPED;
	pthread_mutex_unlock(&container->lock);
	return store_set_state(container->backend->db, container->id, CONTAINER_STOPPED, err);
}

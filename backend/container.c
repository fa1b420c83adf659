#include "container.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/msg.h"
#include "base/parse.h"
#include "base/registry.h"
#include "link.h"
#include "network.h"
#include "process.h"

/* ---- life of the struct ---------------------------------------------------------------------- */

static void init_sync(struct container *container)
{
	pthread_mutex_init(&container->lock, NULL);
	pthread_mutex_init(&container->table_lock, NULL);
	pthread_mutex_init(&container->disk.lock, NULL);
	clock_cond_init(&container->died);
	clock_cond_init(&container->released);
	pthread_mutex_init(&container->refresh_lock, NULL);
	pthread_mutex_init(&container->net_lock, NULL);
}

struct container *container_new(struct backend *backend, const char *handle,
	enum privilege privilege, int64_t id_range, struct err *err)
{
	struct container *container = calloc(1, sizeof(*container));

	if (!container) {
		err_system(err, -ENOMEM, "container");
		return NULL;
	}
	*container = (struct container){ .backend = backend,
		.privilege = privilege,
		.n_refs = 1,
		.id_range = id_range,
		.root_fd = -1,
		.kick_fd = -1,
		.next_token = 1 };
	init_sync(container);
	container->handle = strdup(handle);
	container->properties = registry_new();
	container->processes = registry_new();
	if (!container->handle || !container->properties || !container->processes ||
		random_hex(container->id, 8) < 0 || random_hex(container->nonce, 16) < 0) {
		container_unref(container);
		err_system(err, -ENOMEM, "container");
		return NULL;
	}
	if (!privilege_rights(privilege)->has_userns)
		id_map_none(&container->map);
	else if (backend->config.idmap_maximal)
		id_map_maximal(&container->map);
	else
		id_map_range(&container->map, idpool_base(&backend->ids, id_range));
	return container;
}

static int free_property(const char *key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	free(value);
	return 0;
}

static int put_process(const char *key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	process_put(value);
	return 0;
}

static void container_free(struct container *container)
{
	link_close(container->link);
	network_forget(container->lease);
	if (container->processes)
		registry_each(container->processes, put_process, NULL);
	registry_free(container->processes);
	if (container->properties)
		registry_each(container->properties, free_property, NULL);
	registry_free(container->properties);
	strv_done(&container->env);
	strv_done(&container->image_env);
	auto_fd(&container->root_fd);
	auto_fd(&container->kick_fd);
	pthread_cond_destroy(&container->died);
	pthread_cond_destroy(&container->released);
	pthread_mutex_destroy(&container->refresh_lock);
	pthread_mutex_destroy(&container->net_lock);
	free(container->ports);
	binds_free(container->binds, container->n_binds);
	pthread_mutex_destroy(&container->table_lock);
	pthread_mutex_destroy(&container->disk.lock);
	free(container->root_uri);
	free(container->lower);
	pthread_mutex_destroy(&container->lock);
	free(container->handle);
	free(container);
}

void container_unref(struct container *container)
{
	unsigned n_refs;

	pthread_mutex_lock(&container->lock);
	n_refs = --container->n_refs;
	pthread_mutex_unlock(&container->lock);
	if (n_refs == 0)
		container_free(container);
}

void container_hold(struct container *container)
{
	pthread_mutex_lock(&container->lock);
	container->n_refs++;
	container->n_busy++;
	pthread_mutex_unlock(&container->lock);
}

struct container *container_get(struct backend *backend, const char *handle, struct err *err)
{
	struct container *container;

	pthread_mutex_lock(&backend->lock);
	container = registry_find(backend->containers, handle);
	if (container) {
		pthread_mutex_lock(&container->lock);
		if (container->state == CONTAINER_CREATING) {
			pthread_mutex_unlock(&container->lock);
			container = NULL;
		} else {
			container->n_refs++;
			container->n_busy++;
			pthread_mutex_unlock(&container->lock);
		}
	}
	pthread_mutex_unlock(&backend->lock);
	if (!container)
		err_set(err, ERR_NO_CONTAINER, ESRCH, "unknown handle: %s", handle);
	return container;
}

void container_put(struct container *container)
{
	struct backend *backend;
	bool is_idle;

	if (!container)
		return;
	backend = container->backend;
	pthread_mutex_lock(&container->lock);
	is_idle = --container->n_busy == 0 && container->grace_ns > 0;
	if (container->n_busy == 0)
		container->idle_since_ms = clock_ms();
	pthread_mutex_unlock(&container->lock);
	container_unref(container);
	if (is_idle)
		keeper_notice(backend);
}

/* ---- what shims say -------------------------------------------------------------------------- */

struct exit_search {
	struct container *container;
	const struct msg_end *end;
};

static int set_exited_if_token(const char *key, void *value, void *arg)
{
	struct process *process = value;
	const struct exit_search *search = arg;

	(void)key;
	if (process->token != search->end->exited.token)
		return 0;
	container_report_end(search->container, process->id, search->end);
	process_set_exited(process, search->end);
	return 1;
}

void container_on_exited(void *owner, const struct msg *msg)
{
	struct container *container = owner;
	struct msg_end end;

	msg_body(msg, &end, sizeof(end));
	pthread_mutex_lock(&container->table_lock);
	registry_each(container->processes, set_exited_if_token,
		&(struct exit_search){ container, &end });
	pthread_mutex_unlock(&container->table_lock);
}

static int set_lost(const char *key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	process_set_lost(value);
	return 0;
}

void container_on_dead(void *owner, const struct msg *msg)
{
	struct container *container = owner;

	pthread_mutex_lock(&container->table_lock);
	container->is_dead = true;
	container->is_shim_gone |= !msg;
	registry_each(container->processes, set_lost, NULL);
	pthread_cond_broadcast(&container->died);
	pthread_mutex_unlock(&container->table_lock);
}

int container_check_alive(struct container *container, struct err *err)
{
	bool is_dead;

	pthread_mutex_lock(&container->table_lock);
	is_dead = container->is_dead;
	pthread_mutex_unlock(&container->table_lock);
	return is_dead ? err_set(err, ERR_INVALID, ESRCH,
				 "container %s is dead: its process 1 is gone", container->handle)
		       : 0;
}

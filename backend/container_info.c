/* What is known about containers: lists, info, properties, grace times. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/registry.h"
#include "container.h"
#include "linux/cgroup_limits.h"
#include "net_rule.h"
#include "process.h"
#include "store.h"

/* ---- list and info --------------------------------------------------------------------------- */

struct list_query {
	const struct property *filter;
	size_t n_filter;
	struct strv *handles;
};

/* "garden.state=all" means any state; without it only complete ones are listed, which they all are.
 */
static bool matches(struct container *container, const struct list_query *query)
{
	for (size_t i = 0; i < query->n_filter; i++) {
		const struct property *want = &query->filter[i];
		const char *have = registry_find(container->properties, want->key);

		if (!strcmp(want->key, "garden.state") && !strcmp(want->value, "all"))
			continue;
		if (!have || strcmp(have, want->value))
			return false;
	}
	return true;
}

static int list_one(const char *handle, void *value, void *arg)
{
	struct container *container = value;
	struct list_query *query = arg;
	bool is_listed;

	pthread_mutex_lock(&container->lock);
	is_listed = container->state != CONTAINER_CREATING && matches(container, query);
	pthread_mutex_unlock(&container->lock);
	return is_listed ? strv_add(query->handles, handle) : 0;
}

int container_list(struct backend *backend, const struct property *filter, size_t n_filter,
	struct strv *ret_handles, struct err *err)
{
	struct list_query query = { filter, n_filter, ret_handles };
	int r;

	pthread_mutex_lock(&backend->lock);
	r = registry_each(backend->containers, list_one, &query);
	pthread_mutex_unlock(&backend->lock);
	return r < 0 ? err_system(err, r, "list") : 0;
}

static int add_process_id(const char *key, void *value, void *arg)
{
	struct process *process = value;
	bool is_running;

	pthread_mutex_lock(&process->lock);
	is_running = process->is_started && !process->has_exited;
	pthread_mutex_unlock(&process->lock);
	return is_running ? strv_add(arg, key) : 0;
}

static int copy_network(struct container *container, struct container_info *info)
{
	info->n_ports = container->n_ports;
	network_facts(container->backend->network, container->lease, &info->network);
	info->ports = calloc(info->n_ports + 1, sizeof(*info->ports));
	if (!info->ports)
		return -ENOMEM;
	if (info->n_ports)
		memcpy(info->ports, container->ports, info->n_ports * sizeof(*info->ports));
	return 0;
}

int container_info(struct container *container, struct container_info *ret_info, struct err *err)
{
	int r;

	*ret_info = (struct container_info){ 0 };
	pthread_mutex_lock(&container->lock);
	ret_info->state = container->state == CONTAINER_STOPPED ? "stopped" : "active";
	r = copy_network(container, ret_info);
	pthread_mutex_unlock(&container->lock);
	if (r < 0)
		return err_system(err, r, "info");
	pthread_mutex_lock(&container->table_lock);
	r = registry_each(container->processes, add_process_id, &ret_info->process_ids);
	pthread_mutex_unlock(&container->table_lock);
	if (r == 0)
		r = container_events(container, &ret_info->events);
	if (r < 0 ||
		asprintf(&ret_info->path, "%s/%s", container->backend->live_dir, container->id) <
			0) {
		container_info_done(ret_info);
		return err_system(err, -ENOMEM, "info");
	}
	return 0;
}

void container_info_done(struct container_info *info)
{
	free(info->path);
	free(info->ports);
	strv_done(&info->events);
	strv_done(&info->process_ids);
	*info = (struct container_info){ 0 };
}

void container_limits(struct container *container, struct limits *ret_limits)
{
	*ret_limits = container->limits; /* does not change */
}

uint64_t container_cpu_weight(struct container *container)
{
	const struct hierarchy *hierarchy = cgroup_find(&container->backend->cgroups, "cpu");
	uint64_t shares = limits_cpu_shares(&container->limits);

	return hierarchy && hierarchy->is_v2 ? cgroup_cpu_weight(shares) : shares;
}

/* ---- properties and grace time --------------------------------------------------------------- */

struct property_visit {
	int (*visit)(const char *key, const char *value, void *arg);
	void *arg;
};

static int visit_property(const char *key, void *value, void *arg)
{
	const struct property_visit *visit = arg;

	return visit->visit(key, value, visit->arg);
}

int container_properties(struct container *container,
	int (*visit)(const char *key, const char *value, void *arg), void *arg)
{
	int r;

	pthread_mutex_lock(&container->lock);
	r = registry_each(
		container->properties, visit_property, &(struct property_visit){ visit, arg });
	pthread_mutex_unlock(&container->lock);
	for (int i = 0; container_made_properties[i] && r == 0; i++) {
		AUTO_FREE char *text = NULL;

		if (container_made_property(container, container_made_properties[i], &text))
			r = visit(container_made_properties[i], text, arg);
	}
	return r;
}

int property_get(struct container *container, const char *key, char **ret_value, struct err *err)
{
	const char *value;
	char *copy = NULL;

	if (container_made_property(container, key, ret_value))
		return 0;
	pthread_mutex_lock(&container->lock);
	value = registry_find(container->properties, key);
	if (value)
		copy = strdup(value);
	pthread_mutex_unlock(&container->lock);
	if (!value)
		return err_set(err, ERR_NOT_FOUND, ENOENT, "property does not exist: %.400s", key);
	if (!copy)
		return err_system(err, -ENOMEM, "property");
	*ret_value = copy;
	return 0;
}

/* In the record before anybody is told: the lock is held until both have it. */
static int store_property(
	struct container *container, const char *key, const char *value, struct err *err)
{
	char *copy = strdup(value);
	void *old = NULL;
	int r;

	pthread_mutex_lock(&container->lock);
	r = copy ? registry_set(container->properties, key, copy, &old) : -ENOMEM;
	if (r < 0) {
		old = copy;
		err_system(err, r, "property");
	} else {
		r = store_set_property(container->backend->db, container->id, key, value, err);
		if (r < 0)
			old = registry_reset(container->properties, key, old);
	}
	pthread_mutex_unlock(&container->lock);
	free(old);
	return r;
}

/* These say what the server has done; nobody else may. */
static int refuse_own(const char *key, struct err *err)
{
	return property_is_own(key)
		? err_set(err, ERR_INVALID, EPERM, "property %s is the server's own", key)
		: 0;
}

bool property_is_own(const char *key)
{
	for (int i = 0; container_made_properties[i]; i++)
		if (!strcmp(key, container_made_properties[i]))
			return true;
	return !strcmp(key, "garden.state") || !strcmp(key, "garden.grace-time") ||
		!strncmp(key, "garden.network.", strlen("garden.network."));
}

int property_set(struct container *container, const char *key, const char *value, struct err *err)
{
	int r = refuse_own(key, err);

	return r < 0 ? r : store_property(container, key, value, err);
}

int property_remove(struct container *container, const char *key, struct err *err)
{
	int r = refuse_own(key, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&container->lock);
	r = store_remove_property(container->backend->db, container->id, key, err);
	if (r == 0)
		free(registry_remove(container->properties, key));
	pthread_mutex_unlock(&container->lock);
	return r;
}

int container_set_grace(struct container *container, int64_t grace_ns, struct err *err)
{
	char text[32];
	int r = store_set_grace(container->backend->db, container->id, grace_ns, err);

	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "%lld", (long long)grace_ns);
	r = store_property(container, "garden.grace-time", text, err);
	pthread_mutex_lock(&container->lock);
	container->grace_ns = grace_ns;
	pthread_mutex_unlock(&container->lock);
	return r;
}

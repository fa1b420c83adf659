/* A create, from the request to the container that is listed; and how it is undone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/msg.h"
#include "base/parse.h"
#include "base/registry.h"
#include "container.h"
#include "disk_quota.h"
#include "network.h"
#include "profile.h"
#include "shim/protocol.h"
#include "store.h"
#include "volumes/volumes.h"

static int check_spec(
	const struct backend *backend, const struct container_spec *spec, struct err *err)
{
	int r;

	if (spec->handle && !handle_is_valid(spec->handle))
		return err_set(err, ERR_INVALID, EINVAL,
			"handle '%.64s': must be 1 to 255 of [A-Za-z0-9_.~:@+-], not begin with '-', "
			"and not be '.', '..', 'bulk_info' or 'bulk_metrics'",
			spec->handle);
	r = limits_check(&spec->limits, &backend->cgroups, err);
	return r < 0 ? r : disk_quota_check(backend, &spec->limits, err);
}

struct container *container_new_with_ids(
	struct backend *backend, const char *handle, enum privilege privilege, struct err *err)
{
	bool wants_range =
		privilege_rights(privilege)->has_userns && !backend->config.idmap_maximal;
	int64_t id_range = wants_range ? idpool_take(&backend->ids) : -1;
	struct container *container;

	if (wants_range && id_range < 0) {
		err_set(err, ERR_EXHAUSTED, EAGAIN, "the pool of id ranges is exhausted");
		return NULL;
	}
	container = container_new(backend, handle, privilege, id_range, err);
	if (!container)
		idpool_give(&backend->ids, id_range);
	return container;
}

/* Lock held. */
static void give_back(struct backend *backend, struct container *container)
{
	if (container->is_prepared) {
		pool_put(backend, container);
		return;
	}
	idpool_give(&backend->ids, container->id_range);
	container_unref(container);
}

/* Under its name in the table. Lock held. */
static int enter(struct backend *backend, struct container *container, const char *handle)
{
	char *name = strdup(handle);
	int r = name ? registry_add(backend->containers, handle, container) : -ENOMEM;

	if (r < 0) {
		free(name);
		return r;
	}
	free(container->handle);
	container->handle = name;
	container->state = CONTAINER_CREATING;
	return 0;
}

/* A range for the ids, and the handle, before anything is made. Backend lock held. */
static int reserve_locked(struct backend *backend, const char *handle, enum privilege privilege,
	const struct container_spec *spec, struct container **ret_container, struct err *err)
{
	bool is_usual = privilege == PRIVILEGE_NONE && container_has_default_network(backend, spec);
	uint32_t max = backend->config.max_containers;
	struct container *container = NULL;
	int r;

	if (registry_find(backend->containers, handle))
		return err_set(err, ERR_EXISTS, EEXIST, "Handle '%s' already in use", handle);
	if (max && registry_count(backend->containers) >= max)
		return err_set(err, ERR_INVALID, EAGAIN, "max containers reached");
	if (is_usual)
		container = pool_take(backend);
	if (!container)
		container = container_new_with_ids(backend, handle, privilege, err);
	if (!container)
		return -EAGAIN;
	r = enter(backend, container, handle);
	if (r < 0) {
		give_back(backend, container);
		return err_system(err, r, "container");
	}
	*ret_container = container;
	return 0;
}

/* The server's own properties: clients of the reference read them. */
static int put_own_properties(struct container *container, const struct container_spec *spec)
{
	char *state = strdup("created"), *grace = NULL;

	if (!state || registry_add(container->properties, "garden.state", state) < 0) {
		free(state);
		return -ENOMEM;
	}
	if (!spec->has_grace || spec->grace_ns <= 0)
		return 0;
	if (asprintf(&grace, "%lld", (long long)spec->grace_ns) < 0)
		return -ENOMEM;
	if (registry_add(container->properties, "garden.grace-time", grace) < 0)
		free(grace);
	return 0;
}

static int put_properties(
	struct container *container, const struct container_spec *spec, struct err *err)
{
	for (size_t i = 0; i < spec->n_properties; i++) {
		char *value = strdup(spec->properties[i].value);
		int r = value ? registry_add(container->properties, spec->properties[i].key, value)
			      : -ENOMEM;

		if (r < 0) {
			free(value);
			return err_system(err, r, "properties");
		}
	}
	if (put_own_properties(container, spec) < 0)
		return err_system(err, -ENOMEM, "properties");
	return 0;
}

static int record(struct container *container, const struct container_spec *spec, struct err *err)
{
	struct record record = { .id = container->id,
		.handle = container->handle,
		.nonce = container->nonce,
		.boot_id = container->backend->boot_id,
		.id_base = container->id_range < 0 ? -1 : (int64_t)container->map.root,
		.grace_ns = container->grace_ns,
		.state = CONTAINER_CREATING,
		.privileged = (int)container->privilege,
		.binds = spec->binds,
		.n_binds = spec->n_binds,
		.limits = &container->limits,
		.created_ms = container->created_ms,
		.root = container->root_uri };

	return store_add(container->backend->db, &record, &spec->env, spec->properties,
		spec->n_properties, err);
}

/* A volume is attached; everything else is looked up. */
static int resolve_root(
	struct container *container, const char *uri, struct rootfs *rootfs, struct err *err)
{
	struct backend *backend = container->backend;
	int r = strncmp(uri, "raw://", 6) != 0
		? 0
		: volume_attach(backend->volumes, uri + 6, container->id,
			  ATTACH_WRITABLE | ATTACH_FIXED, &rootfs->volume, err);

	if (r)
		return r < 0 ? r : 0;
	return rootfs_resolve(&backend->rootfs, uri, rootfs, err);
}

/* Before anything of it is mounted. */
static int use_image(struct container *container, const struct rootfs *rootfs, struct err *err)
{
	const struct store_image image = { rootfs->image, rootfs->lower, &rootfs->env };

	if (strv_copy(&container->image_env, &rootfs->env) < 0)
		return err_system(err, -ENOMEM, "env");
	container->lower = rootfs->lower ? strdup(rootfs->lower) : NULL;
	if (rootfs->lower && !container->lower)
		return err_system(err, -ENOMEM, "rootfs");
	return store_add_image(container->backend->db, container->id, 0, &image, err);
}

/* What the request says of the container, beside its name and rights. */
static int keep_spec(
	struct container *container, const struct container_spec *spec, struct err *err)
{
	struct backend *backend = container->backend;
	const char *uri =
		spec->rootfs && *spec->rootfs ? spec->rootfs : backend->config.default_rootfs;

	if (!uri)
		return err_set(err, ERR_INVALID, EINVAL,
			"rootfs must not be empty: there is no default (--default-rootfs)");
	container->limits = spec->limits;
	container->created_ms = clock_ms();
	container->grace_ns = spec->has_grace ? spec->grace_ns : backend->config.default_grace_ns;
	container->root_uri = strdup(uri);
	if (!container->root_uri)
		return err_system(err, -ENOMEM, "rootfs");
	if (strv_copy(&container->env, &spec->env) < 0)
		return err_system(err, -ENOMEM, "env");
	for (size_t i = 0; i < spec->n_binds; i++)
		if (bind_add(&container->binds, &container->n_binds, &spec->binds[i]) < 0)
			return err_system(err, -ENOMEM, "bind_mounts");
	return put_properties(container, spec, err);
}

static int bear(struct container *container, const struct container_spec *spec, struct err *err)
{
	struct backend *backend = container->backend;
	AUTO(rootfs_done) struct rootfs rootfs = { 0 };
	int r = keep_spec(container, spec, err);

	if (r == 0)
		r = FAULT(create_reserved, err);
	profile_mark(container->profile, PROFILE_REST);
	if (r == 0)
		r = record(container, spec, err);
	container->is_recorded = r == 0 || container->is_prepared;
	profile_mark(container->profile, PROFILE_DATABASE);
	if (r == 0)
		r = FAULT(create_recorded, err);
	if (r == 0)
		r = container_reserve_network(container, spec, err);
	if (r == 0)
		r = FAULT(create_addressed, err);
	profile_mark(container->profile, PROFILE_NETWORK);
	if (r == 0)
		r = resolve_root(container, container->root_uri, &rootfs, err);
	profile_mark(container->profile, PROFILE_ROOT);
	if (r == 0)
		r = use_image(container, &rootfs, err);
	profile_mark(container->profile, PROFILE_DATABASE);
	if (r == 0)
		r = FAULT(create_rooted, err);
	if (r == 0)
		r = container_bear(container, spec, &rootfs, err);
	volume_mounted(backend->volumes, container->id);
	profile_mark(container->profile, PROFILE_REST);
	if (r == 0)
		r = container_put_network_properties(container, err);
	profile_mark(container->profile, PROFILE_NETWORK);
	if (r == 0)
		r = FAULT(create_named, err);
	if (r == 0)
		r = store_set_state(backend->db, container->id, CONTAINER_ACTIVE, err);
	if (r == 0)
		r = FAULT(create_active, err);
	profile_mark(container->profile, PROFILE_DATABASE);
	return r;
}

/* Listed and reachable from here on. */
static void publish(struct container *container)
{
	struct backend *backend = container->backend;
	bool has_grace;

	pthread_mutex_lock(&container->lock);
	container->state = CONTAINER_ACTIVE;
	container->idle_since_ms = clock_ms();
	has_grace = container->grace_ns > 0;
	pthread_mutex_unlock(&container->lock);
	if (has_grace)
		keeper_notice(backend);
}

/* What cannot be undone now stays listed, dead, so that somebody can destroy it later. */
static void abandon(struct container *container)
{
	struct err err = { 0 };

	if (container_teardown(container, &err) == 0)
		return;
	if (!container->is_recorded) { /* then nothing else has been made */
		container_drop(container);
		return;
	}
	LOG(LOG_ERROR, "failed-create-not-undone", KV_STR("handle", container->handle),
		KV_STR("error", err.msg));
	container_on_dead(container, &(struct msg){ .type = MSG_DEAD });
	publish(container);
}

static int reserve(struct backend *backend, const char *handle, enum privilege privilege,
	const struct container_spec *spec, struct container **ret_container, struct err *err)
{
	int r;

	pthread_mutex_lock(&backend->lock);
	r = reserve_locked(backend, handle, privilege, spec, ret_container, err);
	pthread_mutex_unlock(&backend->lock);
	return r;
}

static int create(struct backend *backend, const struct container_spec *spec,
	char ret_handle[HANDLE_SIZE], struct err *err)
{
	char handle[HANDLE_SIZE];
	struct container *container = NULL;
	int64_t start_ms = clock_ms();
	struct profile profile, *wanted = backend->config.has_profile ? &profile : NULL;
	enum privilege privilege;
	bool from_pool;
	int r;

	profile_begin(wanted);
	r = check_spec(backend, spec, err);
	if (r == 0)
		r = privilege_decide(
			backend->config.privileged_mode, spec->privileged, &privilege, err);
	if (r < 0)
		return r;
	if (spec->handle)
		snprintf(handle, sizeof(handle), "%s", spec->handle);
	else if (random_uuid(handle) < 0)
		return err_system(err, -EIO, "handle");
	r = reserve(backend, handle, privilege, spec, &container, err);
	if (r < 0 && err->kind == ERR_EXHAUSTED) { /* what the pool holds does not count */
		pool_drain(backend);
		r = reserve(backend, handle, privilege, spec, &container, err);
	}
	if (r < 0)
		return r;
	from_pool = container->is_prepared;
	container->profile = wanted;
	r = bear(container, spec, err);
	container->profile = NULL;
	if (r < 0) {
		abandon(container);
		return r;
	}
	snprintf(ret_handle, HANDLE_SIZE, "%s", handle);
	LOG(LOG_INFO, "container-created", KV_STR("handle", handle), KV_STR("id", container->id),
		KV_INT("ms", clock_ms() - start_ms));
	profile_log(wanted, handle, from_pool);
	publish(container); /* from here on anybody may destroy it */
	return 0;
}

int container_create(struct backend *backend, const struct container_spec *spec,
	char ret_handle[HANDLE_SIZE], struct err *err)
{
	int r;

	pool_begin_work(backend);
	r = create(backend, spec, ret_handle, err);
	pool_end_work(backend);
	count_one(&backend->counts, r < 0 ? COUNT_CREATE_FAILED : COUNT_CREATED);
	return r;
}

/* Start of a server on a work directory that has a past: containers whose shims answer are adopted,
 * the others are ended. What no record names is leftovers.c's, and never a reason to fail. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "adopt.h"
#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/registry.h"
#include "container.h"
#include "binds.h"
#include "disk_quota.h"
#include "leftovers.h"
#include "link.h"
#include "network.h"
#include "resource_limits.h"
#include "store.h"

/* ---- a container from its record ------------------------------------------------------------- */

static int add_property(struct container *container, const char *key, const char *value)
{
	char *copy = strdup(value);
	int r = copy ? registry_add(container->properties, key, copy) : -ENOMEM;

	if (r < 0)
		free(copy);
	return r;
}

static int add_own_property(struct container *container, const char *key, const char *value)
{
	return registry_find(container->properties, key) ? 0 : add_property(container, key, value);
}

/* The range is the record's, even if it is none of the pool that we were started with. */
static void load_ids(struct container *container, const struct record *record)
{
	if (record->id_base < 0 && privilege_rights(container->privilege)->has_userns)
		id_map_maximal(&container->map);
	if (record->id_base < 0)
		return;
	container->id_range = idpool_find(&container->backend->ids, record->id_base);
	idpool_mark_overlap(&container->backend->ids, record->id_base);
	id_map_range(&container->map, (uint32_t)record->id_base);
}

static int take_detail(
	struct container *container, enum store_detail which, const struct detail *detail)
{
	struct bind_mount bind;

	switch (which) {
	case STORE_ENV:
		return strv_add(&container->env, detail->text);
	case STORE_IMAGE_ENV:
		return strv_add(&container->image_env, detail->text);
	case STORE_PROPERTIES:
		return add_property(container, detail->key, detail->text);
	case STORE_LIMITS:
		limits_take(&container->limits, detail->key, detail->number);
		return 0;
	case STORE_BINDS:
		bind = store_bind(detail);
		return bind_add(&container->binds, &container->n_binds, &bind);
	case STORE_LOWERS:
		container->lower = strdup(detail->text);
		return container->lower ? 0 : -ENOMEM;
	case STORE_PEAS:
		container->had_peas = true;
		return 0;
	case N_STORE_DETAILS:
		break;
	}
	return 0;
}

static int load(struct backend *backend, const struct record *record,
	struct container **ret_container, struct err *err)
{
	struct container *container =
		container_new(backend, record->handle, (enum privilege)record->privileged, 0, err);

	if (!container)
		return -ENOMEM;
	container->id_range = -1;
	snprintf(container->id, sizeof(container->id), "%s", record->id);
	snprintf(container->nonce, sizeof(container->nonce), "%s", record->nonce);
	container->grace_ns = record->grace_ns;
	container->state = record->state;
	container->created_ms = record->created_ms;
	if (record->root)
		container->root_uri = strdup(record->root); /* without it: only metrics miss it */
	load_ids(container, record);
	disk_quota_adopt(container);
	*ret_container = container;
	return 0;
}

/* With all that belongs to it, into the table. */
static int enter(struct container *container, struct err *err)
{
	char grace[32];
	int r = container->lease ? network_adopt(container->lease, err) : 0;

	snprintf(grace, sizeof(grace), "%lld", (long long)container->grace_ns);
	if (r == 0)
		r = container_put_network_properties(container, err);
	if (r == 0)
		r = add_own_property(container, "garden.state", "created");
	if (r == 0 && container->grace_ns > 0)
		r = add_own_property(container, "garden.grace-time", grace);
	if (r == 0)
		r = registry_add(container->backend->containers, container->handle, container);
	return r;
}

/* ---- each record ----------------------------------------------------------------------------- */

struct candidate {
	struct record record; /* a copy: teardown changes the table */
	struct container *container; /* NULL: it could not be loaded */
	int loaded; /* 0, or -errno */
	struct adoption *adoption; /* NULL: the same */
	int adopted; /* 0, or what stood in the way, in err */
	struct err err;
};

struct recovery {
	struct backend *backend;
	struct candidate *all;
	size_t n_all;
	struct registry *by_id; /* struct candidate * */
	enum store_detail which; /* that are read */
	struct adoptions adoptions;
};

/* Also to end it: its shim may have come further than its record. */
static int begin_adoption(struct recovery *recovery, struct err *err)
{
	struct adoptions *adoptions = &recovery->adoptions;

	adoptions->all = calloc(recovery->n_all + 1, sizeof(*adoptions->all));
	if (!adoptions->all)
		return err_system(err, -ENOMEM, "adopt");
	for (size_t i = 0; i < recovery->n_all; i++) {
		struct candidate *candidate = &recovery->all[i];

		if (!candidate->container)
			continue;
		candidate->adoption = &adoptions->all[adoptions->n_all++];
		candidate->adoption->id = candidate->record.id;
		candidate->adoption->nonce = candidate->record.nonce;
	}
	adoptions->backend = recovery->backend;
	adopt_begin(adoptions);
	return 0;
}

/* loaded: 0, or why nobody is taken. */
static void finish_adoption(struct recovery *recovery, int loaded)
{
	if (!recovery->adoptions.all)
		return;
	for (size_t i = 0; i < recovery->n_all; i++)
		if (recovery->all[i].adoption && loaded == 0)
			recovery->all[i].adoption->container = recovery->all[i].container;
	adopt_finish(&recovery->adoptions);
	for (size_t i = 0; i < recovery->n_all; i++) {
		struct candidate *candidate = &recovery->all[i];

		if (!candidate->container)
			continue;
		candidate->adopted = candidate->adoption->result;
		candidate->err = candidate->adoption->err;
	}
}

static void settle(struct backend *backend, struct candidate *candidate)
{
	const struct record *record = &candidate->record;
	struct container *container = candidate->container;
	struct err err = candidate->err;
	bool is_whole = record->state != CONTAINER_CREATING && record->state != CONTAINER_UNBORN &&
		!strcmp(record->boot_id, backend->boot_id);
	int r = candidate->adopted;

	if (!container) {
		LOG(LOG_ERROR, "container-not-loaded", KV_STR("handle", record->handle),
			KV_STR("error", err.msg));
		return;
	}
	if (r == 0 && is_whole && !backend->config.destroy_on_start) {
		container->idle_since_ms = clock_ms();
		LOG(LOG_INFO, "container-adopted", KV_STR("handle", record->handle));
		return;
	}
	LOG(record->state == CONTAINER_UNBORN ? LOG_DEBUG : LOG_INFO, "container-ended-at-start",
		KV_STR("handle", record->handle),
		KV_STR("reason",
			r < 0              ? err.msg
				: is_whole ? "asked for"
					   : "half-made, or of another boot"));
	if (r < 0) { /* it does not obey a stranger; the end of the link is all it hears */
		link_close(container->link);
		container->link = NULL;
	}
	if (container_teardown(container, &err) == 0)
		return;
	if (record->state == CONTAINER_UNBORN) /* nobody can name it: the next start tries again */
		registry_remove(backend->containers, container->handle);
	LOG(LOG_ERROR, "container-not-removed", KV_STR("handle", record->handle),
		KV_STR("error", err.msg));
}

static int copy_record(const struct record *record, void *arg)
{
	struct recovery *recovery = arg;
	struct candidate *more =
		realloc(recovery->all, (recovery->n_all + 1) * sizeof(*recovery->all));
	struct record *copy;

	if (!more)
		return -ENOMEM;
	recovery->all = more;
	more += recovery->n_all++;
	*more = (struct candidate){ .record = *record };
	copy = &more->record;
	copy->id = strdup(record->id);
	copy->handle = strdup(record->handle);
	copy->nonce = strdup(record->nonce);
	copy->boot_id = strdup(record->boot_id);
	copy->root = record->root ? strdup(record->root) : NULL;
	return copy->id && copy->handle && copy->nonce && copy->boot_id ? 0 : -ENOMEM;
}

static void recovery_done(struct recovery *recovery)
{
	for (size_t i = 0; i < recovery->n_all; i++) {
		struct record *record = &recovery->all[i].record;

		free((char *)record->id);
		free((char *)record->handle);
		free((char *)record->nonce);
		free((char *)record->boot_id);
		free((char *)record->root);
	}
	registry_free(recovery->by_id);
	free(recovery->adoptions.all);
	free(recovery->all);
}

static int visit_detail(const struct detail *detail, void *arg)
{
	struct recovery *recovery = arg;
	struct candidate *candidate = registry_find(recovery->by_id, detail->id);

	if (candidate && candidate->container && candidate->loaded == 0)
		candidate->loaded = take_detail(candidate->container, recovery->which, detail);
	return 0;
}

static struct lease **lease_slot(const char *id, void *arg)
{
	struct candidate *candidate = registry_find(((struct recovery *)arg)->by_id, id);

	return candidate && candidate->container ? &candidate->container->lease : NULL;
}

static int load_details(struct recovery *recovery, struct err *err)
{
	int r = 0;

	for (recovery->which = 0; recovery->which < N_STORE_DETAILS && r == 0; recovery->which++)
		r = store_each_detail(
			recovery->backend->db, recovery->which, visit_detail, recovery, err);
	return r < 0 ? r : network_load(recovery->backend->network, lease_slot, recovery, err);
}

static void enter_all(struct recovery *recovery)
{
	for (size_t i = 0; i < recovery->n_all; i++) {
		struct candidate *candidate = &recovery->all[i];
		int r = candidate->loaded;

		if (!candidate->container)
			continue;
		if (r == 0)
			r = enter(candidate->container, &candidate->err);
		if (r == 0)
			continue;
		err_system(&candidate->err, r, "load container %s", candidate->record.handle);
		container_unref(candidate->container);
		candidate->container = NULL;
	}
}

/* In one transaction: the locks of many small ones take longer than the reading. */
static int load_all(struct db *db, void *arg, struct err *err)
{
	struct recovery *recovery = arg;
	int r = store_each(db, copy_record, recovery, err);

	recovery->by_id = registry_new();
	if (r == 0 && !recovery->by_id)
		r = err_system(err, -ENOMEM, "recover");
	for (size_t i = 0; r == 0 && i < recovery->n_all; i++) {
		struct candidate *candidate = &recovery->all[i];

		load(recovery->backend, &candidate->record, &candidate->container, &candidate->err);
		r = registry_add(recovery->by_id, candidate->record.id, candidate);
		if (r < 0)
			err_system(err, r, "recover");
	}
	if (r == 0)
		r = begin_adoption(recovery, err);
	if (r == 0)
		r = load_details(recovery, err);
	if (r == 0)
		enter_all(recovery);
	return r;
}

int recover(struct backend *backend, struct err *err)
{
	struct recovery recovery = { .backend = backend };
	int r = db_transaction(backend->db, load_all, &recovery, err);

	(void)FAULT(adopt_loaded, NULL);
	finish_adoption(&recovery, r);
	(void)FAULT(adopt_answered, NULL);
	if (r == 0) {
		for (size_t i = 0; i < recovery.n_all; i++)
			settle(backend, &recovery.all[i]);
		(void)FAULT(adopt_settled, NULL);
		r = leftovers_sweep(backend, err);
		(void)FAULT(adopt_swept, NULL);
	}
	recovery_done(&recovery);
	if (r == 0)
		keeper_has_dead(backend); /* a process with an image may have ended meanwhile */
	return r;
}

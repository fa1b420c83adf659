/* What volumes say of themselves, and the changes that touch no tree. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/registry.h"
#include "volumes/volumes_internal.h"

/* ---- looking --------------------------------------------------------------------------------- */

/* Lock held. */
static int show(const struct volume *volume, volume_visit *visit, void *arg)
{
	char path[4096];
	struct volume_view view = { .handle = volume->handle,
		.path = path,
		.properties = volume->properties,
		.privileged = volume->privileged };

	snprintf(path, sizeof(path), "%s/%s/volume", volume->owner->dir, volume->dir);
	return visit(&view, arg);
}

int volume_look(struct volumes *volumes, const char *handle, volume_visit *visit, void *arg,
	struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	int r;

	if (!volume)
		return -ENOENT;
	pthread_mutex_lock(&volumes->lock);
	r = show(volume, visit, arg);
	pthread_mutex_unlock(&volumes->lock);
	volume_put(volume);
	return r;
}

struct selection {
	const char *const *keys, *const *values;
	size_t n_pairs, n_found;
	struct volume **found;
};

static int select_one(const char *handle, void *value, void *arg)
{
	const struct volume *volume = value;
	struct selection *selection = arg;

	(void)handle;
	if (!volume->is_ready)
		return 0;
	for (size_t i = 0; i < selection->n_pairs; i++) {
		const char *has = volume->properties
			? registry_find(volume->properties, selection->keys[i])
			: NULL;

		if (!has || strcmp(has, selection->values[i]) != 0)
			return 0;
	}
	selection->found[selection->n_found++] = value;
	return 0;
}

static int by_handle(const void *a, const void *b)
{
	const struct volume *const *left = a, *const *right = b;

	return strcmp((*left)->handle, (*right)->handle);
}

int volumes_each(struct volumes *volumes, const char *const keys[], const char *const values[],
	size_t n_pairs, volume_visit *visit, void *arg, struct err *err)
{
	struct selection selection = { .keys = keys, .values = values, .n_pairs = n_pairs };
	int r = 0;

	pthread_mutex_lock(&volumes->lock);
	selection.found = calloc(registry_count(volumes->by_handle) + 1, sizeof(struct volume *));
	if (selection.found) {
		registry_each(volumes->by_handle, select_one, &selection);
		qsort(selection.found, selection.n_found, sizeof(struct volume *), by_handle);
	} else {
		r = err_system(err, -ENOMEM, "list volumes");
	}
	for (size_t i = 0; i < selection.n_found && r == 0; i++)
		r = show(selection.found[i], visit, arg);
	pthread_mutex_unlock(&volumes->lock);
	free(selection.found);
	return r;
}

/* ---- changing -------------------------------------------------------------------------------- */

/* What must be freed is *ret_old. Lock held. */
static int put_property(
	struct volume *volume, const char *key, const char *value, char **ret_old, struct err *err)
{
	char *copy = strdup(value);
	void *old = NULL;
	int r;

	if (!volume->properties)
		volume->properties = registry_new();
	r = copy && volume->properties ? registry_set(volume->properties, key, copy, &old)
				       : -ENOMEM;
	if (r < 0) {
		free(copy);
		return err_system(err, r, "property");
	}
	r = record_set_property(volume, key, value, err);
	*ret_old = r < 0 ? registry_reset(volume->properties, key, old) : old;
	return r;
}

/* The record changes with the lock held: two who set the same key must leave both places equal. */
int volume_set_property(struct volumes *volumes, const char *handle, const char *key,
	const char *value, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	AUTO_FREE char *old = NULL;
	int r;

	if (!volume)
		return -ENOENT;
	pthread_mutex_lock(&volumes->lock);
	r = put_property(volume, key, value, &old, err);
	pthread_mutex_unlock(&volumes->lock);
	volume_put(volume);
	return r;
}

int volume_set_privileged(
	struct volumes *volumes, const char *handle, bool privileged, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	int r;

	if (!volume)
		return -ENOENT;
	pthread_mutex_lock(&volumes->lock);
	r = record_set_privileged(volume, privileged, err);
	if (r == 0)
		volume->privileged = privileged;
	pthread_mutex_unlock(&volumes->lock);
	volume_put(volume);
	return r;
}

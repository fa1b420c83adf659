#include "volumes/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/err.h"
#include "base/registry.h"
#include "linux/sys.h"
#include "volumes/volumes_internal.h"

void volume_spec_done(struct volume_spec *spec)
{
	free(spec->handle);
	free(spec->source);
	strv_done(&spec->keys);
	strv_done(&spec->values);
	*spec = (struct volume_spec){ 0 };
}

bool volume_handle_is_valid(const char *handle)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	size_t len = strlen(handle);

	return len && len < VOLUME_HANDLE_SIZE && strspn(handle, allowed) == len &&
		strcmp(handle, ".") != 0 && strcmp(handle, "..") != 0;
}

/* ---- one volume ------------------------------------------------------------------------------ */

static void init_lock(struct volume *volume)
{
	pthread_mutex_init(&volume->top_lock, NULL);
}

struct volume *volume_new(struct volumes *volumes, const char *handle)
{
	struct volume *volume = calloc(1, sizeof(*volume));

	if (!volume)
		return NULL;
	volume->owner = volumes;
	volume->n_refs = 1;
	volume->handle = strdup(handle);
	init_lock(volume);
	if (!volume->handle) {
		volume_free(volume);
		return NULL;
	}
	volume_set_dir(volume, "init");
	return volume;
}

static int free_value(const char *key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	free(value);
	return 0;
}

static void free_values(struct registry *registry)
{
	if (registry)
		registry_each(registry, free_value, NULL);
	registry_free(registry);
}

void volume_free(struct volume *volume)
{
	free_values(volume->properties);
	pthread_mutex_destroy(&volume->top_lock);
	free(volume->handle);
	free(volume);
}

int volume_set_dir(struct volume *volume, const char *place)
{
	char dir[sizeof(volume->dir)];

	if (strcmp(place, "doomed") != 0)
		snprintf(dir, sizeof(dir), "%s/%s", place, volume->handle);
	else
		snprintf(dir, sizeof(dir), "%s/%lld", place, (long long)volume->id);
	if (volume->dir[0] &&
		renameat(volume->owner->dir_fd, volume->dir, volume->owner->dir_fd, dir) < 0)
		return -errno;
	memcpy(volume->dir, dir, sizeof(dir));
	return 0;
}

struct volume *volume_get(struct volumes *volumes, const char *handle, struct err *err)
{
	struct volume *volume;

	pthread_mutex_lock(&volumes->lock);
	volume = registry_find(volumes->by_handle, handle);
	if (volume && volume->is_ready)
		volume->n_refs++;
	else
		volume = NULL;
	pthread_mutex_unlock(&volumes->lock);
	if (!volume)
		err_set(err, ERR_NOT_FOUND, ENOENT, "unknown volume: %.255s", handle);
	return volume;
}

int volume_lock_top(struct volume *volume, struct err *err)
{
	bool is_dead;

	pthread_mutex_lock(&volume->top_lock);
	pthread_mutex_lock(&volume->owner->lock);
	is_dead = volume->is_dead;
	pthread_mutex_unlock(&volume->owner->lock);
	if (!is_dead)
		return 0;
	pthread_mutex_unlock(&volume->top_lock);
	return err_set(err, ERR_NOT_FOUND, ENOENT, "unknown volume: %s", volume->handle);
}

void volume_put(struct volume *volume)
{
	struct volumes *volumes = volume->owner;
	bool is_over;

	pthread_mutex_lock(&volumes->lock);
	is_over = --volume->n_refs == 0;
	if (is_over)
		TAILQ_INSERT_TAIL(&volumes->graves, volume, grave);
	pthread_mutex_unlock(&volumes->lock);
	if (is_over)
		sweeper_has_dead(volumes);
}

struct layer *layer_get(struct volumes *volumes, int64_t id)
{
	struct layer *layer;
	char key[24];

	snprintf(key, sizeof(key), "%lld", (long long)id);
	layer = registry_find(volumes->layers, key);
	if (layer)
		return layer;
	layer = calloc(1, sizeof(*layer));
	if (!layer || registry_add(volumes->layers, key, layer) < 0) {
		free(layer);
		return NULL;
	}
	layer->id = id;
	return layer;
}

bool store_path_parse(const struct volumes *volumes, const char *path,
	char ret_handle[VOLUME_HANDLE_SIZE], const char **ret_sub_path)
{
	size_t len = strlen(volumes->dir), n;

	if (strncmp(path, volumes->dir, len) != 0 || strncmp(path + len, "/live/", 6) != 0)
		return false;
	path += len + 6;
	n = strcspn(path, "/");
	if (n == 0 || n >= VOLUME_HANDLE_SIZE || strncmp(path + n, "/volume", 7) != 0 ||
		(path[n + 7] != '/' && path[n + 7] != '\0'))
		return false;
	memcpy(ret_handle, path, n);
	ret_handle[n] = '\0';
	path += n + 7;
	*ret_sub_path = path + strspn(path, "/");
	return true;
}

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

static int put_property(struct volume *volume, const char *key, const char *value)
{
	char *copy = strdup(value);
	int r;

	if (!volume->properties)
		volume->properties = registry_new();
	if (!copy || !volume->properties) {
		free(copy);
		return -ENOMEM;
	}
	free(registry_remove(volume->properties, key));
	r = registry_add(volume->properties, key, copy);
	if (r < 0)
		free(copy);
	return r;
}

/* The record changes with the lock held: two who set the same key must leave both places equal. */
int volume_set_property(struct volumes *volumes, const char *handle, const char *key,
	const char *value, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	int r;

	if (!volume)
		return -ENOENT;
	pthread_mutex_lock(&volumes->lock);
	r = record_set_property(volume, key, value, err);
	if (r == 0 && put_property(volume, key, value) < 0)
		r = err_system(err, -ENOMEM, "property");
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

/* Its name is free from here on. Lock held. */
static void strike_off(struct volume *volume)
{
	registry_remove(volume->owner->by_handle, volume->handle);
	volume->is_ready = false;
	volume->is_dead = true;
}

/* The state is recorded first: whatever comes then, it is finished at the next start. Only a full
 * disk may not keep anybody from making room: then the move alone must tell. top_lock held. */
static int destroy(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	int r = record_set_state(volume, RECORD_DEAD, err);

	if (r < 0 && err->code != ENOSPC)
		return r;
	pthread_mutex_lock(&volumes->lock);
	r = volume_set_dir(volume, "doomed");
	if (r == 0 || r == -ENOENT)
		strike_off(volume);
	pthread_mutex_unlock(&volumes->lock);
	return r == 0 || r == -ENOENT ? 0 : err_system(err, r, "move %s to doomed/", volume->dir);
}

/* top_lock, at a moment when no container is on its way to mount the volume by its name. One that is
 * may need the lock itself. */
static int lock_when_mounted(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	bool is_pending = true;
	int r = 0;

	while (r == 0 && is_pending) {
		r = volume_lock_top(volume, err);
		pthread_mutex_lock(&volumes->lock);
		is_pending = r == 0 && attach_is_pending(volume);
		if (is_pending) {
			pthread_mutex_unlock(&volume->top_lock);
			pthread_cond_wait(&volumes->changed, &volumes->lock);
		}
		pthread_mutex_unlock(&volumes->lock);
	}
	return r;
}

int volume_destroy(struct volumes *volumes, const char *handle, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	int r;

	if (!volume)
		return -ENOENT;
	r = lock_when_mounted(volume, err);
	if (r == 0) {
		r = destroy(volume, err);
		pthread_mutex_unlock(&volume->top_lock);
	}
	if (r == 0)
		volume_put(volume); /* the table's */
	volume_put(volume);
	return r;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int make_dirs(struct volumes *volumes, struct err *err)
{
	static const char *const names[] = { "init", "live", "dead", "doomed", "layers" };

	if (mkdir(volumes->dir, 0700) < 0 && errno != EEXIST)
		return err_system(err, -errno, "mkdir %s", volumes->dir);
	volumes->dir_fd = sys_open_at(AT_FDCWD, volumes->dir, O_RDONLY | O_DIRECTORY, 0, 0);
	if (volumes->dir_fd < 0)
		return err_system(err, volumes->dir_fd, "open %s", volumes->dir);
	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		if (mkdirat(volumes->dir_fd, names[i], 0700) < 0 && errno != EEXIST)
			return err_system(err, -errno, "mkdir %s/%s", volumes->dir, names[i]);
	volumes->dead_fd = sys_open_beneath(volumes->dir_fd, "dead", O_RDONLY | O_DIRECTORY, 0);
	return volumes->dead_fd < 0 ? err_system(err, volumes->dead_fd, "open dead/") : 0;
}

static void init_sync(struct volumes *volumes)
{
	pthread_mutex_init(&volumes->lock, NULL);
	clock_cond_init(&volumes->changed);
}

static int free_layer(const char *key, void *value, void *arg)
{
	return free_value(key, value, arg);
}

static int free_volume(const char *key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	volume_free(value);
	return 0;
}

static void free_all(struct volumes *volumes)
{
	struct attachment *attachment;
	struct volume *volume;

	while ((attachment = TAILQ_FIRST(&volumes->attachments))) {
		TAILQ_REMOVE(&volumes->attachments, attachment, entry);
		if (attachment->volume->is_dead && --attachment->volume->n_refs == 0)
			volume_free(attachment->volume);
		free(attachment);
	}
	while ((volume = TAILQ_FIRST(&volumes->graves))) {
		TAILQ_REMOVE(&volumes->graves, volume, grave);
		volume_free(volume);
	}
	futures_free(volumes);
	if (volumes->by_handle)
		registry_each(volumes->by_handle, free_volume, NULL);
	registry_free(volumes->by_handle);
	if (volumes->layers)
		registry_each(volumes->layers, free_layer, NULL);
	registry_free(volumes->layers);
	db_close(volumes->db);
	auto_fd(&volumes->dir_fd);
	auto_fd(&volumes->dead_fd);
	auto_fd(&volumes->halt_fd);
	pthread_cond_destroy(&volumes->changed);
	pthread_mutex_destroy(&volumes->lock);
	free(volumes->dir);
	free(volumes);
}

static int open_parts(struct volumes *volumes, const char *driver, struct err *err)
{
	AUTO_FREE char *path = NULL;
	int r = make_dirs(volumes, err);

	volumes->halt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r == 0 && volumes->halt_fd < 0)
		r = err_system(err, -errno, "eventfd");
	if (r == 0 && asprintf(&path, "%s/state.db", volumes->dir) < 0)
		r = err_system(err, -ENOMEM, "volumes");
	if (r == 0)
		r = record_open(path, &volumes->db, err);
	if (r == 0)
		r = volumes_load(volumes, err);
	if (r == 0)
		r = driver_choose(volumes, driver, err);
	return r < 0 ? r : sweeper_start(volumes, err);
}

int volumes_open(const struct volumes_config *config, struct volumes **ret_volumes, struct err *err)
{
	struct volumes *volumes = calloc(1, sizeof(*volumes));
	int r;

	if (!volumes)
		return err_system(err, -ENOMEM, "volumes");
	init_sync(volumes);
	TAILQ_INIT(&volumes->attachments);
	TAILQ_INIT(&volumes->graves);
	volumes->dir_fd = volumes->dead_fd = volumes->halt_fd = -1;
	volumes->self_exe_fd = config->self_exe_fd;
	volumes->users = config->users;
	volumes->dir = strdup(config->dir);
	volumes->by_handle = registry_new();
	volumes->layers = registry_new();
	volumes->futures = registry_new();
	if (!volumes->dir || !volumes->by_handle || !volumes->layers || !volumes->futures)
		r = err_system(err, -ENOMEM, "volumes");
	else
		r = open_parts(volumes, config->driver, err);
	if (r < 0)
		free_all(volumes);
	else
		*ret_volumes = volumes;
	return r;
}

void volumes_halt(struct volumes *volumes)
{
	uint64_t one = 1;

	(void)!write(volumes->halt_fd, &one, sizeof(one));
}

void volumes_close(struct volumes *volumes)
{
	if (!volumes)
		return;
	volumes_halt(volumes);
	sweeper_stop(volumes);
	free_all(volumes);
}

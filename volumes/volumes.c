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

void volume_lock_still(struct volume *volume)
{
	struct volumes *volumes = volume->owner;
	bool is_copied = true;

	while (is_copied) {
		pthread_mutex_lock(&volume->top_lock);
		pthread_mutex_lock(&volumes->lock);
		is_copied = volume->n_still > 0;
		if (is_copied) {
			pthread_mutex_unlock(&volume->top_lock);
			pthread_cond_wait(&volumes->changed, &volumes->lock);
		}
		pthread_mutex_unlock(&volumes->lock);
	}
}

/* top_lock held; given back if it is dead. */
static int check_alive(struct volume *volume, struct err *err)
{
	bool is_dead;

	pthread_mutex_lock(&volume->owner->lock);
	is_dead = volume->is_dead;
	pthread_mutex_unlock(&volume->owner->lock);
	if (!is_dead)
		return 0;
	pthread_mutex_unlock(&volume->top_lock);
	return err_set(err, ERR_NOT_FOUND, ENOENT, "unknown volume: %s", volume->handle);
}

int volume_lock_top(struct volume *volume, struct err *err)
{
	pthread_mutex_lock(&volume->top_lock);
	return check_alive(volume, err);
}

int volume_lock_top_to_write(struct volume *volume, struct err *err)
{
	volume_lock_still(volume);
	return check_alive(volume, err);
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

void layer_forget(struct volumes *volumes, struct layer *layer)
{
	char key[24];

	snprintf(key, sizeof(key), "%lld", (long long)layer->id);
	registry_remove(volumes->layers, key);
	free(layer);
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

/* ---- life ------------------------------------------------------------------------------------ */

static void init_sync(struct volumes *volumes)
{
	pthread_mutex_init(&volumes->lock, NULL);
	clock_cond_init(&volumes->changed);
	clock_cond_init(&volumes->to_sweep);
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
	store_dir_close(volumes);
	auto_fd(&volumes->halt_fd);
	notes_done(&volumes->made);
	notes_done(&volumes->moved);
	pthread_cond_destroy(&volumes->to_sweep);
	pthread_cond_destroy(&volumes->changed);
	pthread_mutex_destroy(&volumes->lock);
	free(volumes->dir);
	free(volumes);
}

/* What it tries is tried by another program. */
static void *choose(void *arg)
{
	struct volumes *volumes = arg;

	volumes->chosen = driver_choose(volumes, volumes->driver_name, &volumes->why_not);
	sweeper_has_dead(volumes); /* what was tried */
	return NULL;
}

int volumes_await(struct volumes *volumes, struct err *err)
{
	if (volumes->is_choosing)
		pthread_join(volumes->chooser, NULL);
	volumes->is_choosing = false;
	if (volumes->chosen < 0)
		*err = volumes->why_not;
	return volumes->chosen;
}

static int open_parts(struct volumes *volumes, const char *driver, struct err *err)
{
	AUTO_FREE char *path = NULL;
	int r = store_dir_open(volumes, err);

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
		futures_load(volumes);
	if (r == 0)
		r = sweeper_start(volumes, err);
	if (r < 0)
		return r;
	volumes->driver_name = driver;
	r = -pthread_create(&volumes->chooser, NULL, choose, volumes);
	volumes->is_choosing = r == 0;
	return r < 0 ? err_system(err, r, "volumes") : 0;
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
	volumes->dir_fd = volumes->dead_fd = volumes->host_fd = volumes->halt_fd = -1;
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

int volumes_check(struct volumes *volumes, struct err *err)
{
	return db_check(volumes->db, err);
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
	volumes_await(volumes, &(struct err){ 0 });
	volumes_halt(volumes);
	sweeper_stop(volumes);
	free_all(volumes);
}

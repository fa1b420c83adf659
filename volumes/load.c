/* Record and disk at start: what was begun is finished or undone; what contradicts is logged and
 * left alone. Only init/, dead/ and what the record calls dead are deleted. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/registry.h"
#include "linux/sys.h"
#include "volumes/volumes_internal.h"

/* What is collected from one walk over the record, for the next. */
struct loading {
	struct volumes *volumes;
	struct volume_list all; /* by their graves' links */
	struct err *err;
};

static bool is_there(const struct volumes *volumes, const char *path)
{
	return faccessat(volumes->dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int each_name(struct volumes *volumes, const char *dir_name,
	int (*visit)(struct volumes *volumes, const char *name, struct err *err), struct err *err)
{
	int fd = sys_open_beneath(volumes->dir_fd, dir_name, O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int r = 0;

	if (!dir)
		return err_system(err, fd < 0 ? fd : -errno, "read %s/", dir_name);
	while (r == 0 && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = visit(volumes, entry->d_name, err);
	closedir(dir);
	return r;
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* Numbers must not be given twice, whatever became of the record. */
static int find_layer(struct volumes *volumes, const char *name, struct err *err)
{
	uint64_t id;

	if (parse_u64(name, INT64_MAX, &id) < 0)
		return 0;
	return record_add_found_layer(volumes, (int64_t)id, err);
}

static int note_moving(int64_t id, int64_t from, int64_t n_users, void *arg)
{
	struct layer *layer = from > 0 ? layer_get(arg, id) : NULL;

	(void)n_users;
	if (layer)
		layer->is_moving = true;
	return from > 0 && !layer ? -ENOMEM : 0;
}

struct layer_row {
	int64_t id, from, n_users;
};

struct layer_rows {
	struct layer_row *rows;
	size_t n_rows;
};

static int copy_layer_row(int64_t layer, int64_t from, int64_t n_users, void *arg)
{
	struct layer_rows *list = arg;
	struct layer_row *more = realloc(list->rows, (list->n_rows + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	list->rows = more;
	list->rows[list->n_rows++] = (struct layer_row){ layer, from, n_users };
	return 0;
}

static int drop_unused(struct volumes *volumes, const struct layer_row *row, struct err *err)
{
	char path[PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "layers/%lld", (long long)row->id);
	if (row->from == LAYER_FOUND) {
		LOG(LOG_WARN, "layer-without-volume", KV_STR("path", path));
		return 0;
	}
	r = store_bury(volumes, path);
	return r < 0 ? err_system(err, r, "move %s to dead/", path)
		     : record_remove_layer(volumes, row->id, err);
}

/* A full disk keeps nobody from starting: it stays on record, for the next start. */
static int finish_move(struct loading *loading, const struct layer_row *row)
{
	struct volume *volume;
	int r = 0;

	TAILQ_FOREACH (volume, &loading->all, grave)
		if (volume->id == row->from)
			r = volume_move_top(volume, row->id, volume->n_layers == 1, loading->err);
	return r == -ENOSPC ? 0 : r;
}

static int settle_layers(struct loading *loading)
{
	struct layer_rows list = { 0 };
	int r = record_each_layer(loading->volumes, copy_layer_row, &list, loading->err);

	for (size_t i = 0; i < list.n_rows && r == 0; i++) {
		const struct layer_row *row = &list.rows[i];

		if (row->n_users == 0)
			r = drop_unused(loading->volumes, row, loading->err);
		else if (row->from > 0)
			r = finish_move(loading, row);
	}
	free(list.rows);
	return r;
}

/* ---- volumes --------------------------------------------------------------------------------- */

static int add_layer(int64_t id, void *arg)
{
	struct volume *volume = arg;
	struct layer *layer = layer_get(volume->owner, id);

	if (!layer)
		return -ENOMEM;
	if (volume->n_layers == MAX_LAYERS)
		return -E2BIG;
	volume->layers[volume->n_layers++] = layer;
	layer->n_refs++;
	return 0;
}

static int add_property(const char *key, const char *value, void *arg)
{
	char *copy = strdup(value);
	int r = copy ? registry_add(arg, key, copy) : -ENOMEM;

	if (r < 0)
		free(copy);
	return r;
}

static int load_details(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	int r = record_each_layer_of(volumes, volume->id, add_layer, volume, err);

	if (r == 0 && volume->properties)
		r = record_each_property(
			volumes, volume->id, add_property, volume->properties, err);
	return r;
}

/* Rows are copied first: what is done to them would change what is being read. */
static int copy_row(const struct volume_row *row, void *arg)
{
	struct loading *loading = arg;
	struct volume *volume = volume_new(loading->volumes, row->handle);

	if (!volume)
		return -ENOMEM;
	volume->id = row->id;
	volume->privileged = row->privileged;
	volume->is_dead = row->state == RECORD_DEAD;
	volume->is_ready = row->state == RECORD_LIVE;
	TAILQ_INSERT_TAIL(&loading->all, volume, grave);
	if (row->has_properties)
		volume->properties = registry_new();
	return row->has_properties && !volume->properties ? -ENOMEM : 0;
}

static void set_dir(struct volume *volume, const char *place)
{
	volume->dir[0] = '\0';
	volume_set_dir(volume, place);
}

/* A making that had come as far as its rename has succeeded; and a destroy, on a disk too full to
 * record it. */
static int settle_made(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;

	set_dir(volume, "live");
	if (!is_there(volumes, volume->dir) || registry_find(volumes->by_handle, volume->handle)) {
		set_dir(volume, "doomed");
		volume->is_dead = !volume->is_ready || is_there(volumes, volume->dir);
		volume->is_ready = !volume->is_dead;
		return volume->is_dead ? 0 : -ENOENT;
	}
	if (!volume->is_ready) {
		volume->is_ready = true;
		if (record_set_state(volume, RECORD_LIVE, err) < 0)
			return -EIO;
	}
	return registry_add(volumes->by_handle, volume->handle, volume);
}

/* Destroyed, and perhaps not yet moved away; if another one has the name by now, it was. */
static void settle_dead(struct volume *volume)
{
	struct volumes *volumes = volume->owner;

	set_dir(volume, "doomed");
	if (is_there(volumes, volume->dir) || registry_find(volumes->by_handle, volume->handle))
		return;
	set_dir(volume, "live");
	if (is_there(volumes, volume->dir))
		volume_set_dir(volume, "doomed");
	else
		set_dir(volume, "doomed");
}

static bool has_lost_layer(const struct volume *volume)
{
	char path[PATH_BYTES];

	for (unsigned i = 0; i < volume->n_layers; i++) {
		snprintf(path, sizeof(path), "layers/%lld", (long long)volume->layers[i]->id);
		if (!volume->layers[i]->is_moving && !is_there(volume->owner, path))
			return true;
	}
	return false;
}

static int settle_volume(struct volume *volume, struct err *err)
{
	int r = volume_handle_is_valid(volume->handle) ? load_details(volume, err) : -EINVAL;

	if (r == 0 && has_lost_layer(volume))
		r = -ENOENT;
	if (r == 0 && !volume->is_dead)
		r = settle_made(volume, err);
	if (r < 0) {
		LOG(LOG_ERROR, "volume-set-aside", KV_STR("handle", volume->handle),
			KV_STR("reason",
				r == -ENOENT ? "its directory is missing"
					     : "its record is damaged"));
		volume->is_ready = false;
	}
	return 0;
}

/* ---- trees that the record does not know ----------------------------------------------------- */

static int read_layers(struct volume *volume)
{
	char path[PATH_BYTES], text[MAX_LAYERS * 21], *line, *rest = text;
	ssize_t n;
	int r = 0;

	snprintf(path, sizeof(path), "%s/layers", volume->dir);
	n = sys_read_small(volume->owner->dir_fd, path, 0, text, sizeof(text));
	if (n < 0)
		return n == -ENOENT ? 0 : (int)n;
	while (r == 0 && (line = strsep(&rest, "\n"))) {
		uint64_t id;

		if (!*line)
			continue;
		snprintf(path, sizeof(path), "layers/%s", line);
		if (parse_u64(line, INT64_MAX, &id) < 0 || !is_there(volume->owner, path))
			return -ENOENT;
		r = add_layer((int64_t)id, volume);
	}
	return r;
}

static int adopt(struct volumes *volumes, const char *name, struct err *err)
{
	struct volume *volume;
	char path[PATH_BYTES];
	int r;

	if (registry_find(volumes->by_handle, name))
		return 0;
	snprintf(path, sizeof(path), "live/%s/volume", name);
	volume = volume_handle_is_valid(name) && is_there(volumes, path) ? volume_new(volumes, name)
									 : NULL;
	if (!volume) {
		LOG(LOG_WARN, "not-a-volume", KV_STR("name", name));
		return 0;
	}
	set_dir(volume, "live");
	r = read_layers(volume);
	if (r == 0)
		r = record_add(volumes, volume, NULL, err);
	if (r == 0)
		r = record_set_state(volume, RECORD_LIVE, err);
	if (r == 0)
		r = registry_add(volumes->by_handle, volume->handle, volume);
	volume->is_ready = r == 0;
	LOG(LOG_WARN, r < 0 ? "volume-set-aside" : "volume-adopted", KV_STR("handle", name),
		KV_STR("reason", "the record did not know it"));
	if (r < 0)
		volume_free(volume);
	return 0;
}

static int bury_init(struct volumes *volumes, const char *name, struct err *err)
{
	char path[PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "init/%s", name);
	r = store_bury(volumes, path);
	return r < 0 ? err_system(err, r, "move %s to dead/", path) : 0;
}

/* ---- attachments ----------------------------------------------------------------------------- */

static int load_attachment(
	int64_t id, const char *container, unsigned flags, bool is_stale, void *arg)
{
	struct loading *loading = arg;
	struct volume *volume;

	TAILQ_FOREACH (volume, &loading->all, grave)
		if (volume->id == id && (volume->is_ready || volume->is_dead))
			return attachment_add(volume, container, flags, is_stale);
	return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void settle_volumes(struct loading *loading)
{
	struct volume *volume;

	TAILQ_FOREACH (volume, &loading->all, grave)
		settle_volume(volume, loading->err);
	TAILQ_FOREACH (volume, &loading->all, grave)
		if (volume->is_dead)
			settle_dead(volume);
}

/* Those that are live stay in the table, the dead go when their last user does, the others are not
 * there for anybody. */
static void hand_over(struct loading *loading)
{
	struct volume *volume;

	while ((volume = TAILQ_FIRST(&loading->all))) {
		TAILQ_REMOVE(&loading->all, volume, grave);
		if (volume->is_dead)
			volume_put(volume);
		else if (!volume->is_ready)
			volume_free(volume);
	}
}

int volumes_load(struct volumes *volumes, struct err *err)
{
	struct loading loading = { .volumes = volumes, .err = err };
	int r;

	TAILQ_INIT(&loading.all);
	r = each_name(volumes, "init", bury_init, err);
	if (r == 0)
		r = each_name(volumes, "layers", find_layer, err);
	if (r == 0)
		r = record_each_layer(volumes, note_moving, volumes, err);
	if (r == 0)
		r = record_each_volume(volumes, copy_row, &loading, err);
	if (r == 0) {
		settle_volumes(&loading);
		r = each_name(volumes, "live", adopt, err);
	}
	if (r == 0)
		r = settle_layers(&loading);
	if (r == 0)
		r = record_each_attachment(volumes, load_attachment, &loading, err);
	hand_over(&loading);
	volumes->has_dead = true;
	return r;
}

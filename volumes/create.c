/* Making volumes: in init/, until everything is there; the rename into live/ is the commit. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/registry.h"
#include "linux/sys.h"
#include "volumes/volumes_internal.h"

/* ---- from another volume --------------------------------------------------------------------- */

static void share_layers(struct volume *child, const struct volume *parent)
{
	pthread_mutex_lock(&child->owner->lock);
	for (unsigned i = 0; i < parent->n_layers; i++) {
		child->layers[i] = parent->layers[i];
		child->layers[i]->n_refs++;
	}
	child->n_layers = parent->n_layers;
	pthread_mutex_unlock(&child->owner->lock);
}

static bool has_writers(const struct volume *volume)
{
	bool yes;

	pthread_mutex_lock(&volume->owner->lock);
	yes = volume->n_writers > 0;
	pthread_mutex_unlock(&volume->owner->lock);
	return yes;
}

/* Whose pipe breaks fails as well: the other one knows why. */
static bool is_to_blame(int writer, int reader)
{
	return writer < 0 && (reader == 0 || (reader != -ENOENT && writer != -EBADMSG));
}

/* What is below path of one tree becomes another tree. */
static int pour(struct volumes *volumes, const struct strv *from, const char *path,
	const struct volume *to, struct err *err)
{
	AUTO_STRV struct strv out = { 0 };
	AUTO_STRV struct strv in = { 0 };
	struct helper reader, writer;
	struct err writer_err;
	int ends[2], r, w;

	if (strv_add(&out, "out") < 0 || strv_copy(&out, from) < 0 ||
		strv_add(&out, "encoding=raw") < 0 || strv_addf(&out, "path=%s", path) < 0 ||
		strv_add(&in, "in") < 0 || strv_addf(&in, "tree=%s/volume", to->dir) < 0 ||
		strv_add(&in, "encoding=raw") < 0 || strv_add(&in, "path=") < 0)
		return err_system(err, -ENOMEM, "copy");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_system(err, -errno, "copy");
	r = helper_start(volumes, &out, -1, ends[1], &reader, err);
	close(ends[1]);
	w = r < 0 ? r : helper_start(volumes, &in, ends[0], -1, &writer, &writer_err);
	close(ends[0]);
	if (r == 0) {
		r = helper_wait(&reader, err);
		if (w == 0)
			w = helper_wait(&writer, &writer_err);
	}
	if (is_to_blame(w, r)) {
		*err = writer_err;
		r = w;
	}
	return r;
}

static int make_tree(struct volume *volume, struct err *err)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/volume", volume->dir);
	return volume->owner->driver->make_tree(volume->owner, path, err);
}

/* Somebody writes to the parent: what it holds now is copied, the layers below are shared. */
static int clone_top(struct volume *child, const struct volume *parent, struct err *err)
{
	struct volumes *volumes = child->owner;
	const char *name = parent->n_layers ? "upper" : "volume";
	char from[PATH_BYTES], to[PATH_BYTES];
	int r;

	snprintf(from, sizeof(from), "%s/%s", parent->dir, name);
	snprintf(to, sizeof(to), "%s/%s", child->dir, name);
	if (faccessat(volumes->dir_fd, from, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* attached, and nothing written yet */
	r = volume_make_top(child, err);
	return r < 0 ? r : driver_copy_tree(volumes, from, to, err);
}

/* The whole becomes one tree. */
static int flatten(struct volume *child, const struct volume *parent, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };

	if (volume_tree_words(parent, false, &words) < 0)
		return err_system(err, -ENOMEM, "copy");
	return pour(child->owner, &words, "", child, err);
}

static int freeze_and_share(struct volume *child, struct volume *parent, struct err *err)
{
	int r = volume_freeze(parent, err);

	if (r == 0)
		share_layers(child, parent);
	return r;
}

/* The parent is attached. If nothing runs in its containers what they have mounted is frozen under
 * them, and is replaced before anything does again; else it has to be copied as it stands. */
static int copy_of_used(struct volume *child, struct volume *parent, struct err *err)
{
	AUTO_STRV struct strv held = { 0 };
	int r = 0;

	if (!attach_hold(parent, &held)) {
		share_layers(child, parent);
		return clone_top(child, parent, err);
	}
	if (!volume_top_is_empty(parent))
		r = attach_set_stale(parent, err);
	if (r == 0)
		r = freeze_and_share(child, parent, err);
	attach_release(parent->owner, &held);
	return r;
}

static int copy_by_layers(struct volume *child, struct volume *parent, struct err *err)
{
	int r = make_tree(child, err);

	if (r < 0)
		return r;
	if (parent->n_layers >= MAX_LAYERS - 1) /* too many for one more */
		return flatten(child, parent, err);
	return has_writers(parent) ? copy_of_used(child, parent, err)
				   : freeze_and_share(child, parent, err);
}

static int copy_by_driver(struct volume *child, const struct volume *parent, struct err *err)
{
	char from[PATH_BYTES], to[PATH_BYTES];
	int r;

	snprintf(from, sizeof(from), "%s/volume", parent->dir);
	snprintf(to, sizeof(to), "%s/volume", child->dir);
	if (!parent->n_layers)
		return child->owner->driver->copy(child->owner, from, to, err);
	r = make_tree(child, err);
	return r < 0 ? r : flatten(child, parent, err);
}

/* The parent's top stands still meanwhile: nobody begins to write. */
static int copy_of(struct volume *child, struct volume *parent, struct err *err)
{
	int r = volume_lock_top(parent, err);

	if (r < 0)
		return r;
	r = child->owner->driver->copy ? copy_by_driver(child, parent, err)
				       : copy_by_layers(child, parent, err);
	pthread_mutex_unlock(&parent->top_lock);
	return r;
}

static int make_copy(struct volume *child, const char *handle, struct err *err)
{
	struct volume *parent;
	int r;

	if (!handle)
		return err_set(err, ERR_NOT_FOUND, ENOENT, "strategy.volume: no parent is given");
	parent = volume_get(child->owner, handle, err);
	if (!parent)
		return -ENOENT;
	r = copy_of(child, parent, err);
	volume_put(parent);
	return r;
}

/* ---- from the host --------------------------------------------------------------------------- */

static int import_dir(struct volume *volume, const struct volume_spec *spec, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };

	if (strv_add(&words, "copy") < 0 || strv_addf(&words, "from=%s", spec->source) < 0 ||
		strv_addf(&words, "tree=%s/volume", volume->dir) < 0 ||
		(spec->follow_symlinks && strv_add(&words, "follow") < 0))
		return err_system(err, -ENOMEM, "import");
	return helper_run(volume->owner, &words, -1, err);
}

static int import_archive(struct volume *volume, int archive_fd, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };

	if (strv_add(&words, "in") < 0 || strv_addf(&words, "tree=%s/volume", volume->dir) < 0 ||
		strv_add(&words, "encoding=auto") < 0 || strv_add(&words, "path=") < 0)
		return err_system(err, -ENOMEM, "import");
	return helper_run(volume->owner, &words, archive_fd, err);
}

/* What lies in a volume is imported as a copy of it: task caches are made so. */
static int import_from_volume(
	struct volume *volume, const char *handle, const char *sub_path, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	struct volume *source;
	int r;

	if (!*sub_path)
		return make_copy(volume, handle, err);
	r = make_tree(volume, err);
	if (r < 0)
		return r;
	source = volume_get(volume->owner, handle, err);
	if (!source)
		return -ENOENT;
	r = volume_lock_top(source, err);
	if (r == 0) {
		r = volume_tree_words(source, false, &words) < 0
			? err_system(err, -ENOMEM, "import")
			: pour(volume->owner, &words, sub_path, volume, err);
		pthread_mutex_unlock(&source->top_lock);
	}
	volume_put(source);
	return r;
}

static int import(struct volume *volume, const struct volume_spec *spec, struct err *err)
{
	char handle[VOLUME_HANDLE_SIZE];
	const char *sub_path;
	struct stat st;
	AUTO_FD int fd = -1;
	int r;

	if (!spec->source || spec->source[0] != '/')
		return err_set(err, ERR_SYSTEM, EINVAL, "strategy.path '%.200s': not absolute",
			spec->source ? spec->source : "");
	if (store_path_parse(volume->owner, spec->source, handle, &sub_path))
		return import_from_volume(volume, handle, sub_path, err);
	r = make_tree(volume, err);
	if (r < 0)
		return r;
	fd = sys_open_at(AT_FDCWD, spec->source, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);
	if (fd < 0)
		return err_system(err, fd, "strategy.path %.200s", spec->source);
	if (fstat(fd, &st) < 0)
		return err_system(err, -errno, "strategy.path %.200s", spec->source);
	if (S_ISDIR(st.st_mode))
		return import_dir(volume, spec, err);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_SYSTEM, EINVAL,
			"strategy.path %.200s: neither a directory nor an archive", spec->source);
	return import_archive(volume, fd, err);
}

/* ---- the pipeline ---------------------------------------------------------------------------- */

static int give_to_user(struct volume *volume, const struct volume_spec *spec, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	char path[PATH_BYTES];
	int r;

	if (spec->strategy == VOLUME_EMPTY) {
		snprintf(path, sizeof(path), "%s/volume", volume->dir);
		r = fchownat(volume->owner->dir_fd, path, spec->uid, spec->gid, 0) < 0 ? -errno : 0;
		return r < 0 ? err_system(err, r, "chown %s", path) : 0;
	}
	r = volume_make_top(volume, err);
	if (r < 0)
		return r;
	if (strv_add(&words, "chown") < 0 || volume_tree_words(volume, true, &words) < 0 ||
		strv_addf(&words, "uid=%lld", (long long)spec->uid) < 0 ||
		strv_addf(&words, "gid=%lld", (long long)spec->gid) < 0)
		return err_system(err, -ENOMEM, "chown");
	return helper_run(volume->owner, &words, -1, err);
}

bool volume_wants_owner(const struct volume_spec *spec)
{
	return spec->has_uid && spec->has_gid && spec->uid >= 0 && spec->gid >= 0;
}

static int fill(struct volume *volume, const struct volume_spec *spec, struct err *err)
{
	switch (spec->strategy) {
	case VOLUME_COW:
		return make_copy(volume, spec->source, err);
	case VOLUME_IMPORT:
		return import(volume, spec, err);
	case VOLUME_EMPTY:
	default:
		return make_tree(volume, err);
	}
}

static int go_live(struct volume *volume, struct err *err)
{
	int r = volume->n_layers ? volume_write_layers(volume, err) : 0;

	if (r == 0)
		r = record_add(volume->owner, volume, err);
	if (r == 0 && volume_set_dir(volume, "live") < 0)
		r = err_system(err, -errno, "move to live/");
	return r < 0 ? r : record_set_state(volume, RECORD_LIVE, err);
}

static int make(struct volume *volume, const struct volume_spec *spec, struct err *err)
{
	int r = mkdirat(volume->owner->dir_fd, volume->dir, 0700) < 0 ? -errno : 0;

	r = r < 0 ? err_system(err, r, "mkdir %s", volume->dir) : fill(volume, spec, err);
	if (r == 0 && volume_wants_owner(spec))
		r = give_to_user(volume, spec, err);
	return r < 0 ? r : go_live(volume, err);
}

static int take_properties(struct volume *volume, const struct volume_spec *spec)
{
	if (!spec->has_properties)
		return 0;
	volume->properties = registry_new();
	if (!volume->properties)
		return -ENOMEM;
	for (size_t i = 0; i < spec->keys.n_items; i++) {
		char *value = strdup(spec->values.items[i]);
		int r = value ? registry_add(volume->properties, spec->keys.items[i], value)
			      : -ENOMEM;

		if (r < 0) {
			free(value);
			return r;
		}
	}
	return 0;
}

static int reserve(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	int r;

	pthread_mutex_lock(&volumes->lock);
	r = registry_add(volumes->by_handle, volume->handle, volume);
	pthread_mutex_unlock(&volumes->lock);
	return r == -EEXIST
		? err_set(err, ERR_EXISTS, EEXIST, "volume '%s' exists already", volume->handle)
		: r < 0 ? err_system(err, r, "volume")
			: 0;
}

int volume_choose_handle(struct volume_spec *spec, struct err *err)
{
	char uuid[UUID_SIZE];

	if (spec->handle && *spec->handle)
		return volume_handle_is_valid(spec->handle)
			? 0
			: err_set(err, ERR_BAD_REQUEST, EINVAL,
				  "handle: expected 1 to 255 letters, digits, '.', '_' or '-'");
	free(spec->handle);
	spec->handle = random_uuid(uuid) < 0 ? NULL : strdup(uuid);
	return spec->handle ? 0 : err_system(err, -ENOMEM, "handle");
}

/* The record first: a kill must not bring back what nobody wants. */
static int withdraw(struct volume *volume, struct err *err)
{
	struct err ignored;

	record_set_dead(volume->owner, &volume, 1, &ignored);
	return err_set(
		err, ERR_SYSTEM, ECANCELED, "volume '%s' is not wanted any more", volume->handle);
}

static int publish(struct volume *volume, bool (*is_wanted)(void *arg), void *arg, struct err *err)
{
	bool yes;

	pthread_mutex_lock(&volume->owner->lock);
	yes = !is_wanted || is_wanted(arg);
	if (yes)
		volume->is_ready = true;
	pthread_mutex_unlock(&volume->owner->lock);
	return yes ? 0 : withdraw(volume, err);
}

int volume_create_if(struct volumes *volumes, struct volume_spec *spec,
	bool (*is_wanted)(void *arg), void *arg, struct err *err)
{
	struct volume *volume;
	int r = volume_choose_handle(spec, err);

	if (r < 0)
		return r;
	volume = volume_new(volumes, spec->handle);
	if (!volume || take_properties(volume, spec) < 0)
		r = err_system(err, -ENOMEM, "volume");
	else
		r = reserve(volume, err);
	if (r < 0) {
		if (volume)
			volume_free(volume);
		return r;
	}
	volume->privileged = spec->privileged;
	r = make(volume, spec, err);
	if (r == 0)
		r = publish(volume, is_wanted, arg, err);
	if (r < 0)
		volume_discard(volume);
	return r;
}

int volume_create(struct volumes *volumes, struct volume_spec *spec, struct err *err)
{
	return volume_create_if(volumes, spec, NULL, NULL, err);
}

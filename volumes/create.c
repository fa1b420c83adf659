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
#include "base/fault.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/registry.h"
#include "linux/sys.h"
#include "volumes/volumes_internal.h"

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
		return volume_import_from(volume, handle, sub_path, err);
	r = volume_make_tree(volume, err);
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
		return volume_make_copy(volume, spec->source, err);
	case VOLUME_IMPORT:
		return import(volume, spec, err);
	case VOLUME_EMPTY:
	default:
		return volume_make_tree(volume, err);
	}
}

static int go_live(struct volume *volume, struct volume_client *client, struct err *err)
{
	int r = volume->n_layers ? volume_write_layers(volume, err) : 0;

	if (r == 0)
		r = FAULT(volume_filled, err);
	if (r == 0)
		r = record_add(volume->owner, volume, client, err);
	if (r == 0)
		r = FAULT(volume_recorded, err);
	if (r == 0 && volume_set_dir(volume, "live") < 0)
		r = err_system(err, -errno, "move to live/");
	if (r == 0)
		r = FAULT(volume_moved, err);
	if (r < 0)
		return r;
	note_made(volume);
	return FAULT(volume_live, err);
}

static int make(struct volume *volume, const struct volume_spec *spec, struct volume_client *client,
	struct err *err)
{
	int r = FAULT(volume_reserved, err);

	if (r == 0 && mkdirat(volume->owner->dir_fd, volume->dir, 0700) < 0)
		r = err_system(err, -errno, "mkdir %s", volume->dir);
	if (r == 0)
		r = FAULT(volume_made, err);
	if (r == 0)
		r = fill(volume, spec, err);
	if (r == 0 && volume_wants_owner(spec))
		r = give_to_user(volume, spec, err);
	return r < 0 ? r : go_live(volume, client, err);
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

static int publish(struct volume *volume, struct volume_client *client, struct err *err)
{
	bool yes;

	pthread_mutex_lock(&volume->owner->lock);
	yes = !client || client->is_wanted(client->arg);
	if (yes)
		volume->is_ready = true;
	pthread_mutex_unlock(&volume->owner->lock);
	return yes ? 0 : withdraw(volume, err);
}

int volume_create_for(struct volumes *volumes, struct volume_spec *spec,
	struct volume_client *client, struct err *err)
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
	r = make(volume, spec, client, err);
	if (r == 0)
		r = publish(volume, client, err);
	if (r < 0)
		volume_discard(volume);
	return r;
}

int volume_create(struct volumes *volumes, struct volume_spec *spec, struct err *err)
{
	return volume_create_for(volumes, spec, NULL, err);
}

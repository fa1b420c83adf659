/* Volumes that begin as another one: sharing its layers where nobody writes to it, else copied by
 * helpers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/fault.h"
#include "volumes/volumes_internal.h"

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

/* Helpers that fill a new volume: one, or two with a pipe between them. They are in their trees. */
struct filling {
	struct helper reader, writer;
	bool has_reader, has_writer;
	int writer_r; /* what became of it, if it could not be started */
	struct err writer_err;
};

/* Whose pipe breaks fails as well: the other one knows why. */
static bool is_to_blame(int writer, int reader)
{
	return writer < 0 && (reader == 0 || (reader != -ENOENT && writer != -EBADMSG));
}

static int filling_wait(struct filling *filling, struct err *err)
{
	int r = filling->has_reader ? helper_wait(&filling->reader, err) : 0;
	int w = filling->has_writer ? helper_wait(&filling->writer, &filling->writer_err)
				    : filling->writer_r;

	if (is_to_blame(w, r)) {
		*err = filling->writer_err;
		r = w;
	}
	return r;
}

/* What is below path of one tree becomes another tree. */
static int pour(struct volumes *volumes, const struct strv *from, const char *path,
	const struct volume *to, struct filling *filling, struct err *err)
{
	AUTO_STRV struct strv out = { 0 };
	AUTO_STRV struct strv in = { 0 };
	int ends[2], r;

	if (strv_add(&out, "out") < 0 || strv_copy(&out, from) < 0 ||
		strv_add(&out, "encoding=raw") < 0 || strv_addf(&out, "path=%s", path) < 0 ||
		strv_add(&in, "in") < 0 || strv_addf(&in, "tree=%s/volume", to->dir) < 0 ||
		strv_add(&in, "encoding=raw") < 0 || strv_add(&in, "path=") < 0)
		return err_system(err, -ENOMEM, "copy");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_system(err, -errno, "copy");
	r = helper_start(volumes, &out, -1, ends[1], &filling->reader, err);
	close(ends[1]);
	filling->has_reader = r == 0;
	if (r == 0)
		filling->writer_r = helper_start(
			volumes, &in, ends[0], -1, &filling->writer, &filling->writer_err);
	filling->has_writer = r == 0 && filling->writer_r == 0;
	close(ends[0]);
	return r;
}

int volume_make_tree(struct volume *volume, struct err *err)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/volume", volume->dir);
	return volume->owner->driver->make_tree(volume->owner, path, err);
}

/* Somebody writes to the parent: what it holds now is copied, the layers below are shared. */
static int clone_top(
	struct volume *child, const struct volume *parent, struct filling *filling, struct err *err)
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
	if (r == 0)
		r = driver_copy_tree(volumes, from, to, &filling->reader, err);
	filling->has_reader = r > 0;
	return r < 0 ? r : 0;
}

/* The whole becomes one tree. */
static int flatten(
	struct volume *child, const struct volume *parent, struct filling *filling, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };

	if (volume_tree_words(parent, false, &words) < 0)
		return err_system(err, -ENOMEM, "copy");
	return pour(child->owner, &words, "", child, filling, err);
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
static int copy_of_used(
	struct volume *child, struct volume *parent, struct filling *filling, struct err *err)
{
	AUTO_STRV struct strv held = { 0 };
	int r = 0;

	if (!attach_hold(parent, &held)) {
		share_layers(child, parent);
		return clone_top(child, parent, filling, err);
	}
	if (!volume_top_is_empty(parent))
		r = attach_set_stale(parent, err);
	if (r == 0)
		r = freeze_and_share(child, parent, err);
	attach_release(parent->owner, &held);
	return r;
}

static int copy_by_layers(
	struct volume *child, struct volume *parent, struct filling *filling, struct err *err)
{
	int r = volume_make_tree(child, err);

	if (r < 0)
		return r;
	if (parent->n_layers >= MAX_LAYERS - 1) /* too many for one more */
		return flatten(child, parent, filling, err);
	return has_writers(parent) ? copy_of_used(child, parent, filling, err)
				   : freeze_and_share(child, parent, err);
}

static int copy_by_driver(
	struct volume *child, const struct volume *parent, struct filling *filling, struct err *err)
{
	char from[PATH_BYTES], to[PATH_BYTES];
	int r;

	snprintf(from, sizeof(from), "%s/volume", parent->dir);
	snprintf(to, sizeof(to), "%s/volume", child->dir);
	if (parent->n_layers) {
		r = volume_make_tree(child, err);
		return r < 0 ? r : flatten(child, parent, filling, err);
	}
	r = child->owner->driver->copy(child->owner, from, to, &filling->reader, err);
	filling->has_reader = r > 0;
	return r < 0 ? r : 0;
}

/* Nobody begins to write to what is being read, if nobody did before; whoever reads, destroys or
 * copies it need not wait. top_lock held. */
static bool still_begin(struct volume *volume)
{
	bool is_still;

	pthread_mutex_lock(&volume->owner->lock);
	is_still = volume->n_writers == 0;
	volume->n_still += is_still;
	pthread_mutex_unlock(&volume->owner->lock);
	return is_still;
}

static void still_end(struct volume *volume)
{
	pthread_mutex_lock(&volume->owner->lock);
	volume->n_still--;
	pthread_cond_broadcast(&volume->owner->changed);
	pthread_mutex_unlock(&volume->owner->lock);
}

/* Consumes top_lock, as soon as what was begun does not depend on names any more. r: of that. */
static int filling_finish(struct filling *filling, struct volume *from, int r, struct err *err)
{
	bool is_still = r == 0 && filling->has_reader && still_begin(from);

	pthread_mutex_unlock(&from->top_lock);
	if (r == 0)
		r = filling_wait(filling, err);
	if (is_still)
		still_end(from);
	return r;
}

static int copy_of(struct volume *child, struct volume *parent, struct err *err)
{
	struct filling filling = { 0 };
	int r = volume_lock_top(parent, err);

	if (r < 0)
		return r;
	r = child->owner->driver->copy ? copy_by_driver(child, parent, &filling, err)
				       : copy_by_layers(child, parent, &filling, err);
	return filling_finish(&filling, parent, r, err);
}

int volume_make_copy(struct volume *child, const char *handle, struct err *err)
{
	struct volume *parent;
	int r;

	if (!handle)
		return err_set(err, ERR_NOT_FOUND, ENOENT, "strategy.volume: no parent is given");
	parent = volume_get(child->owner, handle, err);
	if (!parent)
		return -ENOENT;
	r = copy_of(child, parent, err);
	if (r == 0)
		r = FAULT(copy_shared, err);
	volume_put(parent);
	return r;
}

/* What lies in a volume is imported as a copy of it: task caches are made so. */
int volume_import_from(
	struct volume *volume, const char *handle, const char *sub_path, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	struct filling filling = { 0 };
	struct volume *source;
	int r;

	if (!*sub_path)
		return volume_make_copy(volume, handle, err);
	r = volume_make_tree(volume, err);
	if (r < 0)
		return r;
	source = volume_get(volume->owner, handle, err);
	if (!source)
		return -ENOENT;
	r = volume_lock_top(source, err);
	if (r == 0) {
		r = volume_tree_words(source, false, &words) < 0
			? err_system(err, -ENOMEM, "import")
			: pour(volume->owner, &words, sub_path, volume, &filling, err);
		r = filling_finish(&filling, source, r, err);
	}
	volume_put(source);
	return r;
}

/* The top of a volume: where what is written to it goes, and how that becomes a layer which copies
 * share. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/fault.h"
#include "linux/sys.h"
#include "volumes/volumes_internal.h"

/* "<dir>/<name>" of a volume or layer, relative to the store. */
static void place(const struct volume *volume, const char *name, char path[PATH_BYTES])
{
	snprintf(path, PATH_BYTES, "%s/%s", volume->dir, name);
}

static void layer_place(int64_t id, char path[PATH_BYTES])
{
	snprintf(path, PATH_BYTES, "layers/%lld", (long long)id);
}

/* Mode, owner and times of a tree's root are not in any of its entries. */
static int copy_root(struct volumes *volumes, const char *from, const char *to)
{
	struct timespec times[2];
	struct stat st;

	if (fstatat(volumes->dir_fd, from, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	if (fchownat(volumes->dir_fd, to, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
		fchmodat(volumes->dir_fd, to, st.st_mode & 07777, 0) < 0 ||
		utimensat(volumes->dir_fd, to, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int make_dir(struct volumes *volumes, const char *path)
{
	return mkdirat(volumes->dir_fd, path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

bool volume_has_top(const struct volume *volume)
{
	char path[PATH_BYTES];

	place(volume, "upper", path);
	return faccessat(volume->owner->dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* upper/ comes last: where it is, everything is. */
int volume_make_top(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	char lower[PATH_BYTES], upper[PATH_BYTES], work[PATH_BYTES], temporary[PATH_BYTES];
	int r;

	if (volume->n_layers == 0)
		return 0;
	if (*volumes->no_overlay)
		return err_set(err, ERR_SYSTEM, EOPNOTSUPP,
			"volume %.100s has layers, which take an overlay mount to write over: %s",
			volume->handle, volumes->no_overlay);
	place(volume, "upper", upper);
	if (volume_has_top(volume))
		return 0;
	place(volume, "work", work);
	place(volume, "upper.new", temporary);
	layer_place(volume->layers[0]->id, lower);
	r = make_dir(volumes, work);
	if (r == 0)
		r = make_dir(volumes, temporary);
	if (r == 0)
		r = copy_root(volumes, lower, temporary);
	if (r == 0 && renameat(volumes->dir_fd, temporary, volumes->dir_fd, upper) < 0)
		r = -errno;
	return r < 0 ? err_system(err, r, "%s", upper) : 0;
}

int volume_tree_words(const struct volume *volume, bool is_writable, struct strv *words)
{
	char path[PATH_BYTES], lower[MAX_LAYERS * 28] = "";
	bool has_upper;
	size_t len = 0;

	if (volume->n_layers == 0)
		return strv_addf(words, "tree=%s/volume", volume->dir);
	place(volume, "upper", path);
	has_upper = volume_has_top(volume);
	if (has_upper && is_writable) {
		if (strv_addf(words, "upper=%s", path) < 0 ||
			strv_addf(words, "work=%s/work", volume->dir) < 0)
			return -ENOMEM;
		has_upper = false;
	}
	for (unsigned i = 0; i < volume->n_layers; i++)
		len += snprintf(lower + len, sizeof(lower) - len, "%slayers/%lld", i ? ":" : "",
			(long long)volume->layers[i]->id);
	if (has_upper)
		return strv_addf(words, "lower=%s:%s", path, lower);
	return strv_addf(
		words, volume->n_layers > 1 || is_writable ? "lower=%s" : "tree=%s", lower);
}

/* ---- freezing -------------------------------------------------------------------------------- */

static bool is_same_root(const struct stat *a, const struct stat *b)
{
	return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid;
}

/* A whiteout is an entry too. */
bool volume_top_is_empty(const struct volume *volume)
{
	struct volumes *volumes = volume->owner;
	char upper[PATH_BYTES], lower[PATH_BYTES];
	struct stat upper_st, lower_st;
	struct dirent *entry;
	bool is_empty = true;
	DIR *dir;
	int fd;

	if (volume->n_layers == 0)
		return false;
	place(volume, "upper", upper);
	layer_place(volume->layers[0]->id, lower);
	fd = sys_open_beneath(volumes->dir_fd, upper, O_RDONLY | O_DIRECTORY, 0);
	if (fd == -ENOENT)
		return true;
	if (fd < 0 || fstat(fd, &upper_st) < 0 ||
		fstatat(volumes->dir_fd, lower, &lower_st, AT_SYMLINK_NOFOLLOW) < 0 ||
		!is_same_root(&upper_st, &lower_st) || !(dir = fdopendir(fd))) {
		auto_fd(&fd);
		return false;
	}
	while (is_empty && (entry = readdir(dir)))
		is_empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
	closedir(dir);
	return is_empty;
}

/* For the day when the record is lost. */
static int write_layers(const struct volume *volume, const char *path)
{
	AUTO_FD int fd =
		sys_open_beneath(volume->owner->dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		return fd;
	for (unsigned i = 0; i < volume->n_layers; i++)
		if (dprintf(fd, "%lld\n", (long long)volume->layers[i]->id) < 0)
			return -errno;
	return 0;
}

static int replace_layers(const struct volume *volume)
{
	char path[PATH_BYTES], temporary[PATH_BYTES];
	int r;

	place(volume, "layers", path);
	place(volume, "layers.new", temporary);
	r = write_layers(volume, temporary);
	if (r == 0 && renameat(volume->owner->dir_fd, temporary, volume->owner->dir_fd, path) < 0)
		r = -errno;
	return r;
}

int volume_write_layers(const struct volume *volume, struct err *err)
{
	char path[PATH_BYTES];
	int r;

	place(volume, "layers", path);
	r = write_layers(volume, path);
	return r < 0 ? err_system(err, r, "write %s/layers", volume->dir) : 0;
}

/* The tree goes to its place as a layer, and the volume gets an empty directory for it. Done again
 * at start if it was not finished. */
int volume_move_top(struct volume *volume, int64_t layer, bool was_plain, struct err *err)
{
	struct volumes *volumes = volume->owner;
	char from[PATH_BYTES], to[PATH_BYTES];
	int r = 0;

	place(volume, was_plain ? "volume" : "upper", from);
	layer_place(layer, to);
	if (faccessat(volumes->dir_fd, to, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
		renameat(volumes->dir_fd, from, volumes->dir_fd, to) < 0)
		r = -errno;
	if (r == 0 && was_plain)
		r = make_dir(volumes, from);
	if (r == 0)
		r = replace_layers(volume);
	if (r < 0)
		return err_system(err, r, "move %s to %s", from, to);
	r = FAULT(copy_moved, err);
	if (r < 0)
		return r;
	note_moved(volumes, layer);
	return FAULT(copy_noted, err);
}

/* Lists show the volume, copies count its layers. */
static int add_layer(struct volume *volume, int64_t id, struct err *err)
{
	struct layer *layer;

	pthread_mutex_lock(&volume->owner->lock);
	layer = layer_get(volume->owner, id);
	if (layer) {
		memmove(volume->layers + 1, volume->layers,
			volume->n_layers * sizeof(struct layer *));
		volume->layers[0] = layer;
		volume->n_layers++;
		layer->n_refs++;
	}
	pthread_mutex_unlock(&volume->owner->lock);
	return layer ? 0 : err_system(err, -ENOMEM, "layer");
}

/* Lock held. */
static void pop_layer(struct volume *volume, int64_t id)
{
	struct layer *layer = volume->n_layers ? volume->layers[0] : NULL;

	if (!layer || layer->id != id)
		return;
	volume->n_layers--;
	memmove(volume->layers, volume->layers + 1, volume->n_layers * sizeof(struct layer *));
	layer->n_refs--;
	layer_forget(volume->owner, layer);
}

/* The tree goes back to where it was: 0, or it is not possible. */
static int move_back(const struct volume *volume, int64_t layer, bool was_plain)
{
	struct volumes *volumes = volume->owner;
	char from[PATH_BYTES], to[PATH_BYTES];
	int r = 0;

	layer_place(layer, from);
	place(volume, was_plain ? "volume" : "upper", to);
	if (faccessat(volumes->dir_fd, from, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* it still is there */
	if (was_plain)
		unlinkat(volumes->dir_fd, to, AT_REMOVEDIR);
	if (renameat(volumes->dir_fd, from, volumes->dir_fd, to) < 0)
		r = -errno;
	if (r < 0 && was_plain)
		make_dir(volumes, to);
	return r;
}

/* After a failure. What is not possible is finished at the next start instead. */
static void undo_freeze(struct volume *volume, int64_t id, bool was_plain)
{
	struct err ignored;

	if (move_back(volume, id, was_plain) < 0)
		return;
	pthread_mutex_lock(&volume->owner->lock);
	pop_layer(volume, id);
	pthread_mutex_unlock(&volume->owner->lock);
	replace_layers(volume);
	record_take_layer(volume, id, &ignored);
}

int volume_freeze(struct volume *volume, struct err *err)
{
	bool was_plain = volume->n_layers == 0;
	int64_t id;
	int r;

	if (volume_top_is_empty(volume))
		return 0;
	if (volume->n_layers == MAX_LAYERS)
		return err_set(err, ERR_INVALID, EMLINK, "%s: has %d layers already",
			volume->handle, MAX_LAYERS);
	r = record_add_layer(volume, &id, err);
	if (r < 0)
		return r;
	r = FAULT(copy_recorded, err);
	if (r == 0)
		r = add_layer(volume, id, err);
	if (r == 0)
		r = volume_move_top(volume, id, was_plain, err);
	if (r < 0)
		undo_freeze(volume, id, was_plain);
	return r;
}

/* upper/ first: where it is, everything is. */
static int bury_top(struct volume *volume)
{
	char path[PATH_BYTES];
	int r;

	place(volume, "upper", path);
	r = store_bury(volume->owner, path);
	if (r < 0)
		return r;
	place(volume, "work", path);
	r = store_bury(volume->owner, path);
	sweeper_has_dead(volume->owner);
	return r;
}

int volume_leave_top(struct volume *volume, struct err *err)
{
	int r;

	if (!volume_top_is_empty(volume))
		return volume_freeze(volume, err);
	r = bury_top(volume);
	return r < 0 ? err_system(err, r, "move the top of %.200s to dead/", volume->handle) : 0;
}

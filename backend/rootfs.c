#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "image_map.h"
#include "layout.h"
#include "linux/sys.h"
#include "program.h"

void rootfs_done(struct rootfs *rootfs)
{
	free(rootfs->lower);
	free(rootfs->raw);
	volume_mount_done(&rootfs->volume);
	strv_done(&rootfs->env);
	*rootfs = (struct rootfs){ 0 };
}

/* The one true name of what fd is open on. */
static int name_of(int fd, char **ret_path)
{
	char link[64], path[4096];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path));
	if (n < 0)
		return -errno;
	if (n == sizeof(path))
		return -ENAMETOOLONG;
	*ret_path = strndup(path, n);
	return *ret_path ? 0 : -ENOMEM;
}

static bool is_below(const char *path, const char *parent)
{
	size_t len = strlen(parent);

	while (len > 1 && parent[len - 1] == '/')
		len--;
	return !strncmp(path, parent, len) && (len == 1 || path[len] == '/' || path[len] == '\0');
}

static bool is_allowed(const struct rootfs_config *config, const char *path)
{
	for (size_t i = 0; config->allow_raw && i < config->allow_raw->n_items; i++) {
		AUTO_FREE char *parent = NULL;
		AUTO_FD int fd = sys_open_at(
			AT_FDCWD, config->allow_raw->items[i], O_PATH | O_DIRECTORY, 0, 0);

		if (fd >= 0 && name_of(fd, &parent) == 0 && is_below(path, parent))
			return true;
	}
	return false;
}

static int resolve_raw(
	struct rootfs_config *config, const char *path, char **ret_raw, struct err *err)
{
	AUTO_FD int fd = sys_open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0);
	AUTO_FREE char *name = NULL;
	int r = fd;

	if (r >= 0)
		r = name_of(fd, &name);
	if (r < 0)
		return err_system(err, r, "rootfs raw://%.200s", path);
	if (!is_allowed(config, name))
		return err_set(err, ERR_INVALID, EPERM,
			"rootfs raw://%.150s: not below a directory that --allow-raw names "
			"(set-uid files that a container makes there are real ones)",
			path);
	*ret_raw = TAKE_PTR(name);
	return 0;
}

/* ---- archives -------------------------------------------------------------------------------- */

struct archive {
	const char *path;
	int fd;
};

static int open_archive(void *arg, size_t i, struct err *err)
{
	const struct archive *archive = arg;
	int fd = fcntl(archive->fd, F_DUPFD_CLOEXEC, 3);

	(void)i;
	return fd < 0 ? err_system(err, -errno, "rootfs %.300s", archive->path) : fd;
}

static int unpack(struct rootfs_config *config, struct archive *archive, const struct stat *st,
	struct rootfs *rootfs, struct err *err)
{
	struct image_source source = {
		.what = archive->path, .n_archives = 1, .open = open_archive, .arg = archive
	};

	image_name_of_file(st, rootfs->image);
	return image_have(config, rootfs->image, &source, &rootfs->lower, err);
}

static int resolve_path(
	struct rootfs_config *config, const char *path, struct rootfs *rootfs, struct err *err)
{
	AUTO_FD int fd = sys_open_at(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);
	struct stat st;
	int r = fd;

	if (r >= 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r >= 0 && S_ISDIR(st.st_mode))
		r = name_of(fd, &rootfs->lower);
	if (r < 0)
		return err_system(err, r, "rootfs %.300s", path);
	if (S_ISDIR(st.st_mode))
		return 0;
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID, EINVAL,
			"rootfs %.300s: neither a directory nor an archive", path);
	return unpack(config, &(struct archive){ path, fd }, &st, rootfs, err);
}

/* ---- images ---------------------------------------------------------------------------------- */

struct layers {
	int dir_fd;
	const struct layout *layout;
};

static int open_layer(void *arg, size_t i, struct err *err)
{
	const struct layers *layers = arg;

	return layout_open_blob(layers->dir_fd, &layers->layout->layers[i], err);
}

static void name_of_layout(const struct layout *layout, char name[IMAGE_NAME_SIZE])
{
	snprintf(name, IMAGE_NAME_SIZE, "oci-%s", layout->manifest);
}

static void auto_layout(struct layout **layout)
{
	if (*layout)
		layout_done(*layout);
	free(*layout);
}

/* If the URI has a line of its own then its tag need not be one that the layout knows. */
static int read_layout(const struct rootfs_config *config, int dir_fd, const char *uri,
	bool tag_may_miss, struct layout *layout, struct err *err)
{
	const char *hash = strchr(uri, '#');
	struct err ignored;
	int r = config->read_layout(dir_fd, hash ? hash + 1 : NULL, layout, err);

	if (r == 0 || !hash || !tag_may_miss)
		return r;
	layout_done(layout);
	*layout = (struct layout){ 0 };
	return config->read_layout(dir_fd, NULL, layout, &ignored) < 0 ? r : 0;
}

static int unpack_layout(struct rootfs_config *config, int dir_fd, const char *path,
	const char *uri, bool tag_may_miss, struct rootfs *rootfs, struct err *err)
{
	AUTO(auto_layout) struct layout *layout = calloc(1, sizeof(*layout));
	struct layers layers = { dir_fd, layout };
	struct image_source source = {
		.what = path, .open = open_layer, .arg = &layers, .are_layers = true
	};
	int r = layout ? read_layout(config, dir_fd, uri, tag_may_miss, layout, err)
		       : err_system(err, -ENOMEM, "image");

	if (r == 0)
		r = program_check_env(&layout->env, err);
	if (r < 0)
		return r;
	source.n_archives = layout->n_layers;
	name_of_layout(layout, rootfs->image);
	r = image_have(config, rootfs->image, &source, &rootfs->lower, err);
	if (r == 0 && strv_copy(&rootfs->env, &layout->env) < 0)
		r = err_system(err, -ENOMEM, "image");
	return r;
}

/* A mapped one. An environment file takes the place of what the image itself has. */
static int resolve_entry(struct rootfs_config *config, const struct image_entry *entry,
	const char *uri, const char *tag, struct rootfs *rootfs, struct err *err)
{
	AUTO_FD int dir_fd = sys_open_at(AT_FDCWD, entry->path, O_PATH | O_DIRECTORY, 0, 0);
	int r;

	if (dir_fd >= 0 && layout_is_one(dir_fd))
		r = unpack_layout(config, dir_fd, entry->path, uri, !tag, rootfs, err);
	else if (tag)
		r = err_set(err, ERR_NOT_FOUND, ENOENT,
			"only an OCI layout has tags, and %.200s is none", entry->path);
	else
		r = resolve_path(config, entry->path, rootfs, err);
	if (r == 0 && entry->env_file) {
		strv_done(&rootfs->env);
		rootfs->env = (struct strv){ 0 };
		r = image_env_read(entry->env_file, &rootfs->env, err);
	}
	return r < 0 ? err_context(err, r, "image %.200s", uri) : 0;
}

int rootfs_resolve(
	struct rootfs_config *config, const char *uri, struct rootfs *ret_rootfs, struct err *err)
{
	const struct image_entry *entry;
	const char *tag;

	*ret_rootfs = (struct rootfs){ 0 };
	if (!strncmp(uri, "raw://", 6))
		return resolve_raw(config, uri + 6, &ret_rootfs->raw, err);
	entry = config->map ? image_map_find(config->map, uri, &tag) : NULL;
	if (entry)
		return resolve_entry(config, entry, uri, tag, ret_rootfs, err);
	if (strstr(uri, "://"))
		return err_set(err, ERR_UNSUPPORTED, ENOSYS,
			"image %.300s: unknown image: the image map (--image-map) has no such URI, and "
			"nothing is fetched from registries",
			uri);
	if (uri[0] != '/')
		return err_set(
			err, ERR_INVALID, EINVAL, "rootfs %.300s: not an absolute path", uri);
	return resolve_path(config, uri, ret_rootfs, err);
}

/* ---- what is kept ------------------------------------------------------------------------------ */

static int name_of_path(const char *path, char name[IMAGE_NAME_SIZE])
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return -ENOENT;
	image_name_of_file(&st, name);
	return 0;
}

static int name_of_entry(
	const struct rootfs_config *config, const struct image_entry *entry, char *name)
{
	AUTO(auto_layout) struct layout *layout = NULL;
	AUTO_FD int dir_fd = sys_open_at(AT_FDCWD, entry->path, O_PATH | O_DIRECTORY, 0, 0);
	struct err err;

	if (dir_fd < 0 || !layout_is_one(dir_fd))
		return name_of_path(entry->path, name);
	layout = calloc(1, sizeof(*layout));
	if (!layout || read_layout(config, dir_fd, entry->uri, true, layout, &err) < 0)
		return -ENOENT;
	name_of_layout(layout, name);
	return 0;
}

int rootfs_known_images(
	const struct rootfs_config *config, const char *default_rootfs, struct strv *ret_names)
{
	char name[IMAGE_NAME_SIZE];
	int r = default_rootfs && name_of_path(default_rootfs, name) == 0
		? strv_add(ret_names, name)
		: 0;

	for (size_t i = 0; config->map && i < config->map->n_entries && r == 0; i++)
		if (name_of_entry(config, &config->map->entries[i], name) == 0)
			r = strv_add(ret_names, name);
	return r;
}

#include "volumes/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/registry.h"
#include "linux/btrfs.h"
#include "linux/sys.h"
#include "volumes/trial.h"
#include "volumes/volumes_internal.h"

static int make_directory(struct volumes *volumes, const char *path, struct err *err)
{
	return mkdirat(volumes->dir_fd, path, 0755) < 0 ? err_system(err, -errno, "mkdir %s", path)
							: 0;
}

/* A place for a trial. If we die on the way it goes with what creations have left. */
static int make_site(struct volumes *volumes, char site[PATH_BYTES], struct err *err)
{
	char name[33];

	if (random_hex(name, 16) < 0)
		return err_system(err, -EIO, "random number");
	snprintf(site, PATH_BYTES, "init/trial-%s", name);
	return make_directory(volumes, site, err);
}

static void remove_site(struct volumes *volumes, const char *site)
{
	store_bury(volumes, site);
}

/* ---- overlay: copies share layers ------------------------------------------------------------ */

static int prepare_overlay(struct volumes *volumes, const char *site, struct err *err)
{
	static const char *const names[] = { "lower", "lower/" TRIAL_DIR, "upper", "work" };
	char path[PATH_BYTES + 64];
	AUTO_FD int fd = -1;
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(names) && r == 0; i++) {
		snprintf(path, sizeof(path), "%s/%s", site, names[i]);
		r = make_directory(volumes, path, err);
	}
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/lower/" TRIAL_DIR "/" TRIAL_FILE, site);
	fd = sys_open_beneath(volumes->dir_fd, path, O_WRONLY | O_CREAT | O_EXCL, 0644);
	return fd < 0 ? err_system(err, fd, "%s", path) : 0;
}

static int mount_overlay(struct volumes *volumes, const char *site, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };

	if (strv_add(&words, "try") < 0 || strv_addf(&words, "lower=%s/lower", site) < 0 ||
		strv_addf(&words, "upper=%s/upper", site) < 0 ||
		strv_addf(&words, "work=%s/work", site) < 0)
		return err_system(err, -ENOMEM, "overlay");
	return helper_run(volumes, &words, -1, err);
}

static int try_overlay(struct volumes *volumes, struct err *err)
{
	char site[PATH_BYTES];
	int r = make_site(volumes, site, err);

	if (r < 0)
		return r;
	r = prepare_overlay(volumes, site, err);
	if (r == 0)
		r = mount_overlay(volumes, site, err);
	remove_site(volumes, site);
	return r;
}

/* ---- btrfs: copies are snapshots ------------------------------------------------------------- */

/* Splits a path of the store: the directory, opened, and the name in it. */
static int open_parent(struct volumes *volumes, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_BYTES];

	snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
	*ret_name = slash + 1;
	return sys_open_beneath(volumes->dir_fd, parent, O_RDONLY | O_DIRECTORY, 0);
}

static int make_subvolume(struct volumes *volumes, const char *path, struct err *err)
{
	const char *name;
	AUTO_FD int parent_fd = open_parent(volumes, path, &name);
	int r = parent_fd < 0 ? parent_fd : btrfs_subvolume_create(parent_fd, name);

	return r < 0 ? err_system(err, r, "subvolume %s", path) : 0;
}

/* -EINVAL: it is an ordinary directory, made under another driver. */
static int snapshot(struct volumes *volumes, const char *from, const char *to)
{
	const char *name;
	AUTO_FD int parent_fd = open_parent(volumes, to, &name);
	AUTO_FD int from_fd = sys_open_beneath(volumes->dir_fd, from, O_RDONLY | O_DIRECTORY, 0);
	int r;

	if (parent_fd < 0 || from_fd < 0)
		return parent_fd < 0 ? parent_fd : from_fd;
	r = btrfs_has_nested(from_fd);
	if (r > 0) /* those that containers have made: a snapshot would leave them out */
		return -EINVAL;
	return r < 0 ? r : btrfs_snapshot(parent_fd, name, from_fd);
}

static int copy_subvolume(struct volumes *volumes, const char *from, const char *to,
	struct helper *ret_helper, struct err *err)
{
	int r = snapshot(volumes, from, to);

	if (r < 0 && r != -EINVAL)
		return err_system(err, r, "snapshot %s", from);
	if (r == 0)
		return 0;
	r = make_subvolume(volumes, to, err);
	return r < 0 ? r : driver_copy_tree(volumes, from, to, ret_helper, err);
}

static int try_btrfs(struct volumes *volumes, struct err *err)
{
	char site[PATH_BYTES], from[PATH_BYTES + 8], to[PATH_BYTES + 8];
	int r;

	if (!btrfs_is_at(volumes->dir_fd))
		return err_set(err, ERR_SYSTEM, EOPNOTSUPP, "the file system is not btrfs");
	r = make_site(volumes, site, err);
	if (r < 0)
		return r;
	snprintf(from, sizeof(from), "%s/from", site);
	snprintf(to, sizeof(to), "%s/to", site);
	r = make_subvolume(volumes, from, err);
	if (r == 0) {
		r = snapshot(volumes, from, to);
		if (r < 0)
			err_system(err, r, "snapshot");
	}
	remove_site(volumes, site);
	return r;
}

/* ---- copy: file by file ---------------------------------------------------------------------- */

int driver_copy_tree(struct volumes *volumes, const char *from, const char *to,
	struct helper *ret_helper, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	int r;

	if (strv_add(&words, "copy") < 0 || strv_addf(&words, "from=%s", from) < 0 ||
		strv_addf(&words, "tree=%s", to) < 0)
		return err_system(err, -ENOMEM, "copy");
	r = helper_start(volumes, &words, -1, -1, ret_helper, err);
	return r < 0 ? r : 1;
}

static int copy_directory(struct volumes *volumes, const char *from, const char *to,
	struct helper *ret_helper, struct err *err)
{
	int r = make_directory(volumes, to, err);

	return r < 0 ? r : driver_copy_tree(volumes, from, to, ret_helper, err);
}

static int try_nothing(struct volumes *volumes, struct err *err)
{
	(void)volumes;
	(void)err;
	return 0;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* In the order in which they are tried. */
static const struct volume_driver drivers[] = {
	{ "btrfs", try_btrfs, make_subvolume, copy_subvolume },
	{ "overlay", try_overlay, make_directory, NULL },
	{ "copy", try_nothing, make_directory, copy_directory },
};

static bool is_detect(const char *name)
{
	return !strcmp(name, "detect");
}

static const struct volume_driver *find_driver(const char *name)
{
	if (!strcmp(name, "naive")) /* what Concourse calls it */
		name = "copy";
	for (size_t i = 0; i < N_ELEMENTS(drivers); i++)
		if (!strcmp(drivers[i].name, name))
			return &drivers[i];
	return NULL;
}

bool volume_driver_is_known(const char *name)
{
	return is_detect(name) || find_driver(name);
}

static int try_driver(struct volumes *volumes, const struct volume_driver *driver, struct err *err)
{
	int r = driver->try(volumes, err);

	if (r < 0 && driver->try == try_overlay)
		snprintf(volumes->no_overlay, sizeof(volumes->no_overlay), "%.199s", err->msg);
	return r;
}

/* The last one always works. */
static void detect(struct volumes *volumes)
{
	char reasons[2 * sizeof(((struct err *)0)->msg) + 64] = "";
	const struct volume_driver *driver = drivers;
	size_t len = 0;
	struct err err = { 0 };

	for (; try_driver(volumes, driver, &err) < 0; driver++)
		len += snprintf(reasons + len, sizeof(reasons) - len, "%s%s: %s", len ? "; " : "",
			driver->name, err.msg);
	volumes->driver = driver;
	LOG(LOG_INFO, "volumes-driver", KV_STR("driver", driver->name),
		KV_STR("reason", len ? reasons : "the file system is btrfs"));
}

/* Layers there may be under any driver: an earlier run has made them. */
static void check_layers(struct volumes *volumes)
{
	struct err err = { 0 };

	if (volumes->driver->copy && !*volumes->no_overlay && registry_count(volumes->layers) &&
		try_driver(volumes, find_driver("overlay"), &err) < 0)
		LOG(LOG_WARN, "layers-cannot-be-mounted", KV_STR("reason", err.msg));
}

int driver_choose(struct volumes *volumes, const char *name, struct err *err)
{
	int r;

	if (is_detect(name)) {
		detect(volumes);
	} else {
		volumes->driver = find_driver(name);
		if (!volumes->driver)
			return err_set(err, ERR_INVALID, EINVAL, "volume driver %.50s", name);
		r = try_driver(volumes, volumes->driver, err);
		if (r < 0)
			return err_context(err, r, "--baggageclaim-driver %s", name);
		LOG(LOG_INFO, "volumes-driver", KV_STR("driver", volumes->driver->name),
			KV_STR("reason", "it was asked for"));
	}
	check_layers(volumes);
	return 0;
}

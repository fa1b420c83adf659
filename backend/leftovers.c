#include "leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/registry.h"
#include "container.h"
#include "disk_quota.h"
#include "network.h"
#include "pea.h"
#include "shim_process.h"
#include "store.h"
#include "volumes/volumes.h"

struct leftovers {
	struct backend *backend;
	struct registry *known; /* names of what has an owner */
};

static int note_user(const char *name, void *arg)
{
	struct leftovers *leftovers = arg;

	return registry_add(leftovers->known, name, leftovers);
}

static int note_known(const char *handle, void *value, void *arg)
{
	struct container *container = value;
	int r = note_user(container->id, arg);

	(void)handle;
	return r < 0 ? r : pea_each_user(container, note_user, arg);
}

static bool is_known(const char *id, void *arg)
{
	const struct leftovers *leftovers = arg;

	return registry_find(leftovers->known, id) != NULL;
}

static int sweep_group(const char *id, void *arg)
{
	struct leftovers *leftovers = arg;

	if (!is_known(id, leftovers))
		cgroup_destroy(&leftovers->backend->cgroups, id);
	return 0;
}

/* Calls sweep with each unknown name in the directory. */
static void each_unknown(struct leftovers *leftovers, const char *dir_path,
	void (*sweep)(struct backend *backend, const char *name))
{
	DIR *dir = opendir(dir_path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && !is_known(entry->d_name, leftovers))
			sweep(leftovers->backend, entry->d_name);
	if (dir)
		closedir(dir);
}

/* A shim without a record would wait for a server for ever. */
static void sweep_socket(struct backend *backend, const char *name)
{
	shim_process_kill(name);
	unlinkat(backend->run_fd, name, 0);
}

static void move_to_dead(struct backend *backend, const char *dir, const char *name)
{
	AUTO_FREE char *from = NULL, *to = NULL;

	if (asprintf(&from, "%s/%s", dir, name) >= 0 &&
		asprintf(&to, "%s/%s", backend->dead_dir, name) >= 0)
		rename(from, to);
}

static void sweep_live(struct backend *backend, const char *name)
{
	disk_quota_end(backend, name);
	move_to_dead(backend, backend->live_dir, name);
}

static bool is_among(const struct strv *names, const char *name)
{
	for (size_t i = 0; i < names->n_items; i++)
		if (!strcmp(names->items[i], name))
			return true;
	return false;
}

/* Images that no container has mounted and nothing names any more, and what a crash has left of
 * one. */
static void sweep_images(struct backend *backend)
{
	AUTO_STRV struct strv used = { 0 };
	DIR *dir = opendir(backend->images_dir);
	struct dirent *entry;
	struct err err;
	bool is_known = store_images(backend->db, &used, &err) == 0 &&
		rootfs_known_images(&backend->rootfs, backend->config.default_rootfs, &used) == 0 &&
		!is_among(&used, STORE_ANY_IMAGE);

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' &&
			(!strncmp(entry->d_name, "tmp-", 4) ||
				(is_known && !is_among(&used, entry->d_name))))
			move_to_dead(backend, backend->images_dir, entry->d_name);
	if (dir)
		closedir(dir);
}

int leftovers_sweep(struct backend *backend, struct err *err)
{
	struct leftovers leftovers = { backend, registry_new() };
	int r = leftovers.known ? registry_each(backend->containers, note_known, &leftovers)
				: -ENOMEM;

	if (r == 0) {
		volumes_settle(backend->volumes, is_known, &leftovers);
		network_start(backend->network, is_known, &leftovers);
		cgroup_each(&backend->cgroups, sweep_group, &leftovers);
		each_unknown(&leftovers, backend->run_dir, sweep_socket);
		each_unknown(&leftovers, backend->live_dir, sweep_live);
		sweep_images(backend);
	}
	registry_free(leftovers.known);
	return r < 0 ? err_system(err, r, "recover") : 0;
}

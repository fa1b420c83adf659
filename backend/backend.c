#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/err.h"
#include "base/log.h"
#include "base/registry.h"
#include "container.h"
#include "disk_quota.h"
#include "disk_usage.h"
#include "link.h"
#include "linux/caps.h"
#include "pea.h"
#include "linux/seccomp.h"
#include "linux/sys.h"
#include "network.h"
#include "shim_image.h"
#include "store.h"
#include "volumes/volumes.h"

uint64_t backend_count(const struct backend *backend, enum count what)
{
	return atomic_load_explicit(&backend->counts.of[what], memory_order_relaxed);
}

uint64_t backend_ring_bytes(const struct backend *backend)
{
	return backend->config.ring_bytes;
}

uint64_t backend_bounding(const struct backend *backend)
{
	return backend->bounding;
}

/* ---- directories ----------------------------------------------------------------------------- */

static int make_dir(
	char **ret_path, const char *parent, const char *name, mode_t mode, struct err *err)
{
	if (asprintf(ret_path, "%s/%s", parent, name) < 0)
		return err_system(err, -ENOMEM, "%s", name);
	if (mkdir(*ret_path, mode) < 0 && errno != EEXIST)
		return err_system(err, -errno, "mkdir %s", *ret_path);
	return 0;
}

/* mkdir -p, then its one true name: mounts and messages must not depend on where we were started.
 */
static int make_work_dir(struct backend *backend, struct err *err)
{
	AUTO_FREE char *path = strdup(backend->config.work_dir);
	char name[4096], link[64];
	AUTO_FD int fd = -1;
	ssize_t n;

	if (!path)
		return err_system(err, -ENOMEM, "work directory");
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_system(err, -errno, "mkdir %s", path);
	fd = sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, 0);
	if (fd < 0 || fchmod(fd, 0700) < 0)
		return err_system(err, fd < 0 ? fd : -errno, "work directory %s", path);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	if (n < 0)
		return err_system(err, -errno, "work directory %s", path);
	backend->work_dir = strndup(name, n);
	return backend->work_dir ? 0 : err_system(err, -ENOMEM, "work directory");
}

/* One server per work directory. The lock dies with us, whatever happens: unlike flock's it is none of a child's, which
 * may have our descriptors for a moment longer. */
static int lock_work_dir(struct backend *backend, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	AUTO_FREE char *path = NULL;
	char pid[32];
	ssize_t n;

	if (asprintf(&path, "%s/lock", backend->work_dir) < 0)
		return err_system(err, -ENOMEM, "lock");
	backend->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (backend->lock_fd < 0)
		return err_system(err, -errno, "open %s", path);
	if (fcntl(backend->lock_fd, F_SETLK, &lock) < 0) {
		n = pread(backend->lock_fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? n : 0] = '\0';
		return err_set(err, ERR_BUSY, EBUSY,
			"%s: another server (pid %.20s) serves this directory", backend->work_dir,
			pid);
	}
	if (ftruncate(backend->lock_fd, 0) < 0 || dprintf(backend->lock_fd, "%d", getpid()) < 0)
		return err_system(err, -errno, "write %s", path);
	return 0;
}

static int open_dir(const char *path, int *ret_fd, struct err *err)
{
	*ret_fd = sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, 0);
	return *ret_fd < 0 ? err_system(err, *ret_fd, "open %s", path) : 0;
}

static int make_dirs(struct backend *backend, struct err *err)
{
	AUTO_FREE char *containers = NULL;
	int r = make_dir(&containers, backend->work_dir, "containers", 0700, err);

	if (r == 0)
		r = make_dir(&backend->live_dir, containers, "live", 0700, err);
	if (r == 0)
		r = make_dir(&backend->dead_dir, containers, "dead", 0700, err);
	if (r == 0)
		r = make_dir(&backend->run_dir, backend->work_dir, "run", 0700, err);
	if (r == 0)
		r = make_dir(&backend->images_dir, backend->work_dir, "images", 0700, err);
	if (r == 0)
		r = make_dir(&backend->skeleton_dir, backend->work_dir, "mnt", 0700, err);
	if (r == 0)
		r = open_dir(backend->dead_dir, &backend->dead_fd, err);
	return r < 0 ? r : open_dir(backend->run_dir, &backend->run_fd, err);
}

/* ---- facts about this host ------------------------------------------------------------------- */

/* Relative to the root; '/' at the end: a directory. security.md 2.5. */
static const char *const to_mask[] = { "proc/acpi/", "proc/asound/", "proc/interrupts",
	"proc/kallsyms", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug",
	"proc/scsi/", "proc/timer_list", "proc/timer_stats", "sys/devices/virtual/powercap/",
	"sys/firmware/", "sys/fs/bpf/", "sys/fs/pstore/", "sys/kernel/debug/",
	"sys/kernel/security/", "sys/kernel/tracing/" };
static const char *const to_protect[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys",
	"proc/sysrq-trigger" };

static int add_if_there(struct strv *list, const char *path)
{
	AUTO_FREE char *absolute = NULL;
	struct stat st;

	if (asprintf(&absolute, "/%s", path) < 0)
		return -ENOMEM;
	return stat(absolute, &st) < 0 ? 0 : strv_add(list, path);
}

static int find_covers(struct backend *backend)
{
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(to_mask) && r == 0; i++)
		r = add_if_there(&backend->masked, to_mask[i]);
	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF) && r == 0; cpu++) {
		char path[96];

		snprintf(
			path, sizeof(path), "sys/devices/system/cpu/cpu%ld/thermal_throttle/", cpu);
		r = add_if_there(&backend->masked, path);
	}
	for (size_t i = 0; i < N_ELEMENTS(to_protect) && r == 0; i++)
		r = add_if_there(&backend->readonly, to_protect[i]);
	return r;
}

static int read_boot_id(struct backend *backend)
{
	ssize_t n = sys_read_small(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 0, backend->boot_id,
		sizeof(backend->boot_id));

	backend->boot_id[strcspn(backend->boot_id, "\n")] = '\0';
	return n < 0 ? (int)n : 0;
}

/* A procfs of our pid namespace that is mounted nowhere: nobody can put anything over it. */
static int open_private_proc(void)
{
	AUTO_FD int fs_fd = sys_fsopen("proc");
	int r = fs_fd < 0 ? fs_fd : sys_fsconfig_create(fs_fd);

	return r < 0 ? r
		     : sys_fsmount(fs_fd, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

/* Descriptors 0 to 9 stay free for what a spawned program gets. */
static int open_shim_image(void)
{
	AUTO_FD int fd = sys_sealed_memfd(
		"cloche-shim", shim_image_start, shim_image_end - shim_image_start);
	int high = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 10);

	return high < 0 && fd >= 0 ? -errno : high;
}

/* Limits depend on it. */
static void log_groups(const struct cgroups *groups)
{
	for (int i = 0; i < groups->n_all; i++)
		LOG(groups->all[i].is_v2 ? LOG_INFO : LOG_DEBUG, "cgroup-parent",
			KV_STR("path", groups->all[i].parent),
			KV_STR("controllers",
				groups->all[i].is_v2 ? groups->handed_down : groups->all[i].name));
	if (*groups->reason)
		LOG(LOG_WARN, "cgroup-parent-elsewhere", KV_STR("reason", groups->reason));
}

static bool holds(const struct strv *list, const char *text)
{
	for (size_t i = 0; i < list->n_items; i++)
		if (!strcmp(list->items[i], text))
			return true;
	return false;
}

static bool holds_all(const struct strv *list, const struct strv *texts)
{
	for (size_t i = 0; i < texts->n_items; i++)
		if (!holds(list, texts->items[i]))
			return false;
	return true;
}

/* Where they lie is recorded before they are made: the next server may be born elsewhere. */
static int open_groups(struct backend *backend, const char *instance, struct err *err)
{
	AUTO_STRV struct strv recorded = { 0 }, paths = { 0 };
	struct cgroups *groups = &backend->cgroups;
	int r = store_cgroups(backend->db, &recorded, err);

	if (r == 0)
		r = cgroups_find(groups, instance, backend->config.cgroup_parent, &recorded, err);
	for (int i = 0; i < groups->n_all && r == 0; i++)
		if (strv_add(&paths, groups->all[i].parent) < 0)
			r = err_system(err, -ENOMEM, "cgroups");
	if (r == 0 && !holds_all(&recorded, &paths)) /* no write that a full disk could refuse */
		r = store_set_cgroups(backend->db, &paths, err);
	return r < 0 ? r : cgroups_make(groups, err);
}

static int learn_host(struct backend *backend, struct err *err)
{
	char instance[9];
	int r = read_boot_id(backend);

	if (r == 0)
		r = find_covers(backend);
	if (r == 0)
		r = backend->proc_fd = open_private_proc();
	if (r >= 0)
		r = backend->shim_exe_fd = open_shim_image();
	if (r < 0)
		return err_system(err, r, "learn about this host");
	r = store_instance(backend->db, instance, err);
	if (r == 0)
		r = network_open(backend->config.network, backend->db, instance,
			backend->config.self_exe_fd, &backend->network, err);
	if (r == 0)
		r = open_groups(backend, instance, err);
	for (enum seccomp_kind kind = 0; kind < N_SECCOMP_KINDS && r == 0; kind++)
		r = seccomp_filter_build(kind, backend->has_disk_quota,
			&backend->filters[kind].program, &backend->filters[kind].n_bytes, err);
	backend->bounding = caps_bounding();
	backend->cgroups.more_devices = backend->config.more_devices;
	if (r == 0)
		log_groups(&backend->cgroups);
	return r;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void init_sync(struct backend *backend)
{
	pthread_mutex_init(&backend->lock, NULL);
	pthread_mutex_init(&backend->rootfs.unpack_lock, NULL);
	clock_cond_init(&backend->changed);
	pthread_cond_init(&backend->died, NULL);
}

static int open_db(struct backend *backend, struct err *err)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/state.db", backend->work_dir) < 0)
		return err_system(err, -ENOMEM, "state database");
	return store_open(path, &backend->db, err);
}

static int open_volumes(struct backend *backend, struct err *err)
{
	AUTO_FREE char *path = NULL;
	struct volumes_config config = { .self_exe_fd = backend->config.self_exe_fd,
		.driver = backend->config.volume_driver };

	if (asprintf(&path, "%s/volumes", backend->work_dir) < 0)
		return err_system(err, -ENOMEM, "volumes");
	config.dir = path;
	config.users = refresh_users(backend);
	return volumes_open(&config, &backend->volumes, err);
}

struct volumes *backend_volumes(const struct backend *backend)
{
	return backend->volumes;
}

int backend_check(struct backend *backend, struct err *err)
{
	int r = db_check(backend->db, err);

	return r < 0 ? r : volumes_check(backend->volumes, err);
}

static int open_base(struct backend *backend, struct err *err)
{
	int r = make_work_dir(backend, err);

	if (r == 0)
		r = lock_work_dir(backend, err);
	if (r == 0)
		r = make_dirs(backend, err);
	if (r == 0) {
		disk_quota_open(backend);
		r = open_db(backend, err);
	}
	if (r == 0) /* before there is a thread or another process of ours: see cgroup_base.h */
		r = learn_host(backend, err);
	return r;
}

static int open_parts(struct backend *backend, struct err *err)
{
	static const struct link_events events = { container_on_exited, container_on_dead,
		container_on_hit };
	const struct backend_config *config = &backend->config;
	int r = open_volumes(backend, err);

	if (r < 0)
		return r;
	backend->rootfs.images_dir = backend->images_dir;
	backend->rootfs.dead_dir = backend->dead_dir;
	backend->rootfs.allow_raw = config->allow_raw;
	backend->rootfs.map = &backend->image_map;
	backend->rootfs.read_layout = config->read_layout;
	backend->rootfs.self_exe_fd = config->self_exe_fd;
	backend->containers = registry_new();
	r = backend->containers
		? idpool_init(&backend->ids, config->id_pool_start, config->id_pool_count)
		: -ENOMEM;
	if (r < 0)
		return err_system(err, r,
			"--id-pool-start and --id-pool-count: the ids must lie between 65536 "
			"and 4294901760");
	r = disk_usage_open(backend);
	if (r < 0)
		return err_system(err, r, "sizes of images");
	r = peas_start(backend, err);
	if (r == 0)
		r = links_open(&events, &backend->links, err);
	if (r == 0)
		r = recover(backend, err);
	if (r == 0)
		r = volumes_await(backend->volumes, err);
	if (r == 0)
		r = keeper_start(backend, err);
	return r < 0 ? r : pool_start(backend, err);
}

/* Of a start that has failed: those that use what the caller frees. */
static void stop_threads(struct backend *backend)
{
	if (backend->volumes)
		volumes_await(backend->volumes, &(struct err){ 0 });
	if (backend->network)
		network_watch_stop(backend->network);
}

int backend_open(const struct backend_config *config, struct backend **ret_backend, struct err *err)
{
	struct image_map map = { 0 };
	int r = config->image_map ? image_map_read(config->image_map, &map, err) : 0;
	struct backend *backend;

	if (r < 0)
		return err_context(err, r, "--image-map");
	backend = calloc(1, sizeof(*backend));
	if (!backend)
		return err_system(err, -ENOMEM, "backend"); /* the program ends */
	backend->config = *config;
	backend->image_map = map;
	backend->lock_fd = backend->dead_fd = backend->run_fd = backend->proc_fd = -1;
	backend->shim_exe_fd = -1;
	init_sync(backend);
	TAILQ_INIT(&backend->graves);
	r = open_base(backend, err);
	if (r == 0 && config->claimed)
		r = config->claimed(config->claimed_arg, err);
	if (r == 0)
		r = open_parts(backend, err);
	if (r < 0) { /* the program ends: nothing else outlives it */
		stop_threads(backend);
		cgroups_close(&backend->cgroups);
		return r;
	}
	doctor_start(
		&backend->doctor, config->self_exe_fd, backend->work_dir, config->id_pool_start);
	*ret_backend = backend;
	return 0;
}

static int drop(const char *handle, void *value, void *arg)
{
	(void)handle;
	(void)arg;
	container_unref(value);
	return 0;
}

void backend_close(struct backend *backend)
{
	doctor_finish(&backend->doctor);
	pool_stop(backend);
	keeper_stop(backend);
	registry_each(backend->containers, drop, NULL);
	registry_free(backend->containers);
	disk_usage_close(backend);
	links_close(backend->links);
	peas_stop(backend);
	network_close(backend->network);
	volumes_close(backend->volumes);
	db_close(backend->db);
	idpool_done(&backend->ids);
	cgroups_close(&backend->cgroups);
	image_map_done(&backend->image_map);
	strv_done(&backend->masked);
	strv_done(&backend->readonly);
	for (int kind = 0; kind < N_SECCOMP_KINDS; kind++)
		free(backend->filters[kind].program);
	free(backend->work_dir);
	free(backend->live_dir);
	free(backend->dead_dir);
	free(backend->run_dir);
	free(backend->images_dir);
	free(backend->skeleton_dir);
	auto_fd(&backend->dead_fd);
	auto_fd(&backend->run_fd);
	auto_fd(&backend->proc_fd);
	auto_fd(&backend->shim_exe_fd);
	auto_fd(&backend->lock_fd);
	pthread_cond_destroy(&backend->changed);
	pthread_cond_destroy(&backend->died);
	pthread_mutex_destroy(&backend->rootfs.unpack_lock);
	pthread_mutex_destroy(&backend->lock);
	free(backend);
}

void backend_capacity(struct backend *backend, uint64_t *ret_memory_bytes, uint64_t *ret_disk_bytes,
	uint64_t *ret_max_containers)
{
	uint32_t max = backend->config.max_containers, room = backend->ids.n_ranges;
	struct sysinfo memory;
	struct statvfs disk;

	*ret_memory_bytes = *ret_disk_bytes = 0;
	if (sysinfo(&memory) == 0)
		*ret_memory_bytes = (uint64_t)memory.totalram * memory.mem_unit;
	if (statvfs(backend->work_dir, &disk) == 0)
		*ret_disk_bytes = (uint64_t)disk.f_blocks * disk.f_frsize;
	if (!network_missing(backend->network) && network_capacity(backend->network) < room)
		room = network_capacity(backend->network);
	*ret_max_containers = max && max < room ? max : room;
}

/* backend_internal.h - the backend's own state, for the files of this folder. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "backend.h"
#include "idpool.h"
#include "linux/cgroup.h"
#include "rootfs.h"
#include "volumes/volumes.h"

struct db;
struct links;
struct network;
struct registry;
struct volumes;

struct backend {
	struct backend_config config;
	char *work_dir, *skeleton_dir, *live_dir, *dead_dir, *run_dir, *images_dir;
	int lock_fd, dead_fd, run_fd, proc_fd, shim_exe_fd;
	char boot_id[64];
	struct db *db;
	struct cgroups cgroups;
	struct links *links;
	struct network *network;
	struct rootfs_config rootfs;
	struct volumes *volumes;
	void *filter; /* seccomp */
	size_t filter_bytes;
	struct strv masked, readonly; /* of /proc and /sys, as far as this host has them */

	pthread_mutex_t lock; /* guards the rest; taken before a container's lock */
	pthread_cond_t changed; /* for the keeper: something to delete, a new deadline, the end */
	struct registry *containers; /* struct container * by handle, half-made ones too */
	struct idpool ids;
	bool is_ending, has_dead;
	TAILQ_HEAD(container_list, container) graves; /* to be put */
	pthread_t keeper, sweeper;
};

/* container.c */
struct container *container_new(struct backend *backend, const char *handle, bool privileged,
	int64_t id_range, struct err *err);
/* Ends whatever there is of it: shim, processes, groups, directories, record, range. Idempotent;
 * what fails stays in the record for another try. */
int container_teardown(struct container *container, struct err *err);
void container_unref(struct container *container);

/* recover.c: containers of the last run are adopted, or ended; what has no record is removed. */
int recover(struct backend *backend, struct err *err);

/* keeper.c: reaps containers whose grace time is over, deletes what is dead. */
int keeper_start(struct backend *backend, struct err *err);
void keeper_stop(struct backend *backend);
void keeper_notice(struct backend *backend); /* a deadline may have changed */
void keeper_has_dead(struct backend *backend); /* something lies in dead/ */
/* The same, and the reference is put by the sweeper: closing what a container held takes time. */
void keeper_bury(struct backend *backend, struct container *take_container);

/* refresh.c */
struct volume_users refresh_users(struct backend *backend);

/* birth.c: from a record to a running init. */
int container_bear(struct container *container, const struct container_spec *spec,
	const struct rootfs *rootfs, struct err *err);

/* backend_internal.h - the backend's own state, for the files of this folder. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "backend.h"
#include "counts.h"
#include "doctor.h"
#include "idpool.h"
#include "image_map.h"
#include "linux/cgroup.h"
#include "linux/seccomp.h"
#include "rootfs.h"
#include "volumes/volumes.h"

struct db;
struct links;
struct network;
struct registry;
struct volumes;

/* Guarded by the backend's lock. */
struct pool {
	TAILQ_HEAD(, container) ready;
	uint32_t n_ready, n_busy; /* n_busy: requests that work now */
	unsigned n_draining;
	bool is_ending, is_due, is_short; /* to be filled up; and at once, not when it is calm */
	bool is_making, is_dozing; /* is_dozing: looks again by itself */
	int64_t calm_at_ms;
	pthread_cond_t changed, made; /* made: making or draining has ended */
	pthread_t filler;
};

struct backend {
	struct backend_config config;
	char *work_dir, *skeleton_dir, *live_dir, *dead_dir, *run_dir, *images_dir;
	int lock_fd, dead_fd, run_fd, proc_fd, shim_exe_fd;
	char boot_id[64];
	uint64_t bounding; /* capabilities that we can give */
	bool has_disk_quota; /* disk_quota.h */
	struct db *db;
	struct cgroups cgroups;
	struct links *links;
	struct network *network;
	struct image_map image_map;
	struct rootfs_config rootfs;
	struct volumes *volumes;
	pthread_mutex_t image_lock; /* guards the sizes of images, disk_usage.c; innermost */
	struct registry *image_sizes; /* struct usage * by path */
	struct filter {
		void *program;
		size_t n_bytes;
	} filters[N_SECCOMP_KINDS]; /* seccomp */
	struct strv masked, readonly; /* of /proc and /sys, as far as this host has them */

	pthread_mutex_t lock; /* guards the rest; taken before a container's lock */
	pthread_cond_t changed; /* for the keeper: a new deadline, the end */
	pthread_cond_t died; /* for the sweeper: something to delete, the end */
	struct registry *containers; /* struct container * by handle, half-made ones too */
	struct idpool ids;
	bool is_ending, has_dead;
	TAILQ_HEAD(container_list, container) graves; /* to be put */
	pthread_t keeper, sweeper;
	struct pool pool;
	struct counts counts;
	int pea_fds[2]; /* pea.c: processes with an image that have ended */
	pthread_t pea_thread;
	struct doctor doctor;
};

/* container.c */
/* With a range of ids of its own where it needs one; NULL when there is none left. Lock held. */
struct container *container_new_with_ids(
	struct backend *backend, const char *handle, enum privilege privilege, struct err *err);
struct container *container_new(struct backend *backend, const char *handle,
	enum privilege privilege, int64_t id_range, struct err *err);
/* Ends whatever there is of it: shim, processes, groups, directories, record, range. Idempotent;
 * what fails stays in the record for another try. */
int container_teardown(struct container *container, struct err *err);
/* What lists it and its range, without a look at anything else. */
void container_drop(struct container *container);
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

/* pool.c */
int pool_start(struct backend *backend, struct err *err);
void pool_stop(struct backend *backend); /* what it has ends; before keeper_stop */
/* Around what clients wait for: meanwhile, and shortly after, none is prepared, so that they have the
 * machine. */
void pool_begin_work(struct backend *backend);
void pool_end_work(struct backend *backend);
/* A prepared, unprivileged container that is alive, or NULL. Lock held. */
struct container *pool_take(struct backend *backend);
/* Ends what is prepared or being prepared: a create may need what it holds. */
void pool_drain(struct backend *backend);
void pool_put(struct backend *backend, struct container *container); /* nobody named it */

/* birth.c: an empty layer in a new directory, to be written over lower (NULL: over nothing). */
int layer_make(const char *dir, const char *lower, struct err *err);
/* From a record to what does not depend on the request (is_prepared), and on to a running
 * init. */
int container_prepare(struct container *container, struct err *err);
int container_bear(struct container *container, const struct container_spec *spec,
	const struct rootfs *rootfs, struct err *err);

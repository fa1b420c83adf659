/* container.h - one container inside of the backend. Public part: backend.h. Locks: lock guards the
 * state, properties and counts, and is not held while the kernel or the record is slow; table_lock
 * guards the table of processes and is_dead, and is the only one that shim events take (link.h):
 * nobody calls link_* but link_post with it held; net_lock is held while ports and rules change and
 * the lease goes, and comes before lock. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "backend.h"
#include "base/clock.h"
#include "linux/usage.h"
#include "plan.h"
#include "watch.h"

struct bind_mount;
struct lease;
struct link;
struct msg;
struct process;
struct profile;
struct registry;

enum container_state {
	CONTAINER_CREATING,
	CONTAINER_ACTIVE,
	CONTAINER_STOPPED,
	CONTAINER_UNBORN, /* pool.c */
	N_CONTAINER_STATES
};

#define CONTAINER_ID_SIZE 17
#define NONCE_SIZE 33

struct container {
	TAILQ_ENTRY(container) entry; /* of the pool, or of the graves */
	struct backend *backend;
	char id[CONTAINER_ID_SIZE]; /* ours, random: directories, cgroups and sockets are named by it */
	char nonce[NONCE_SIZE];
	char *handle;
	enum privilege privilege;
	bool is_prepared;
	bool is_recorded; /* from here on there may be more of it than memory */
	bool had_peas; /* processes with a root of their own, when the server started: pea.c */
	struct profile *profile; /* of its create, NULL: none is asked for */
	struct id_map map;
	int64_t id_range; /* -1: none */
	struct strv env, image_env;
	struct limits limits;
	int64_t created_ms; /* clock_ms; 0: not known */
	char *root_uri; /* as it was asked for, or the default; NULL: not known */
	char *lower; /* the image's directory; NULL: it has none, or it is not known */
	uint32_t project; /* disk_quota.h; 0: none */
	struct disk_cache {
		pthread_mutex_t lock; /* held during a walk; only innermost ones are taken then */
		bool is_valid;
		struct usage usage;
		int64_t until_ms;
	} disk;

	pthread_mutex_t lock;
	unsigned n_refs;
	enum container_state state;
	bool is_destroying;
	struct registry *properties; /* char * */
	int64_t grace_ns;
	bool is_held; /* nothing may be started now, see refresh.c */
	unsigned n_starting; /* runs on their way */
	pthread_cond_t released;
	pthread_mutex_t refresh_lock; /* taken before every other */
	struct bind_mount *binds; /* as they were asked for; do not change */
	size_t n_binds;
	LIST_HEAD(, files_stream) files; /* on their way, see files.c */
	unsigned n_busy; /* requests and connections that stop the grace time */
	int64_t idle_since_ms;

	pthread_mutex_t table_lock;
	pthread_cond_t died;
	struct registry *processes; /* struct process * */
	uint32_t next_token;
	bool is_dead; /* init or the shim is gone */
	bool is_shim_gone;

	struct container_watch watch;
	pthread_mutex_t net_lock;
	struct lease *lease; /* network.h; NULL: a loopback only; lock guards the pointer */
	struct net_port *ports; /* a copy of the lease's */
	size_t n_ports;
	struct link *link;
	pid_t shim_pid; /* 0: not our child */
	int root_fd, kick_fd;
};

/* files.c: what streams into it and out of it is broken off, as nothing is left of it. */
void container_cut_files(struct container *container);

void container_hold(struct container *container); /* one more reference, as container_get gives */
uint64_t backend_ring_bytes(const struct backend *backend);
uint64_t backend_bounding(const struct backend *backend);

/* 0, or -ESRCH (ERR_INVALID) once the container's init is gone. */
int container_check_alive(struct container *container, struct err *err);

/* container_end.c: 1 if nobody but init is left in it, 0, or -errno. */
int container_is_idle(struct container *container);

/* refresh.c: around everything that starts a process. */
void container_begin_run(struct container *container); /* waits while it is held */
void container_end_run(struct container *container);
int container_refresh(struct container *container, struct err *err);

/* container_net.c: container-ip and its like; the container's lock is held, or nobody else knows it. */
int container_put_network_properties(struct container *container, struct err *err);
/* What prepared containers have. */
bool container_has_default_network(
	const struct backend *backend, const struct container_spec *spec);
/* An address, and the ports and rules that a create asks for, before there is a link. */
int container_reserve_network(
	struct container *container, const struct container_spec *spec, struct err *err);

bool property_is_own(const char *key); /* set by the server alone */

/* For link.h: what shims say. */
void container_on_exited(void *container, const struct msg *msg);
void container_on_dead(void *container, const struct msg *msg);

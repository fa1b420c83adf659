/* backend.h - what the server asks of the backend: containers and their processes, by handle.
 * Threads: any thread may call any function. Handles and ids are copied; pointers that are handed
 * out (struct container, struct attach) are counted references and are put back. Errors: err.h;
 * every failed call leaves nothing behind. Locks, in order: the table of containers, a container,
 * its table of processes, a process, its output; the database innermost. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"
#include "counts.h"
#include "privilege.h"
#include "layout.h"
#include "network.h"
#include "spec.h"

struct attach;
struct backend;
struct buf;
struct container;
struct err;
struct output;
struct process;
struct reader;

struct volumes;

struct backend_config {
	const char *work_dir; /* made if missing, 0700; one server per directory */
	const char *default_rootfs; /* as in a create; NULL: a create must name one */
	const struct strv *allow_raw; /* parents of what raw:// may name */
	bool idmap_maximal, destroy_on_start;
	enum privileged_mode privileged_mode;
	const struct strv *more_devices; /* each as device_rule_parse takes it; NULL: none */
	uint64_t ring_bytes; /* a power of two, 4096 to 1 GiB */
	int64_t default_grace_ns; /* 0: never reaped */
	uint32_t max_containers; /* 0: as many as there are id ranges */
	uint32_t id_pool_start, id_pool_count;
	uint32_t n_unborn; /* containers prepared ahead of requests */
	struct limits_policy limits_policy;
	bool has_profile; /* a line in the log says where the time of each create went */
	bool explains_oom; /* a line on the standard error of what the kernel has killed */
	double cpu_entitlement_per_share; /* percent; 0: by the machine's size */
	const char *volume_driver; /* a name that volume_driver_is_known */
	const char *cgroup_parent; /* v2 group that containers' groups lie below; NULL: found out */
	const char *image_map; /* a file, see image_map.h; NULL: none */
	layout_reader *read_layout;
	int self_exe_fd; /* the running program, for its helpers "cloche tree" and "cloche nft" */
	const struct network_config *network;
	/* called once the work directory is ours and this host is known, before the rest of the start; or NULL */
	int (*claimed)(void *arg, struct err *err);
	void *claimed_arg;
};

int backend_open(
	const struct backend_config *config, struct backend **ret_backend, struct err *err);
/* The volumes that containers of this work directory can use. */
struct volumes *backend_volumes(const struct backend *backend);
/* How often it has happened since the backend was opened. */
uint64_t backend_count(const struct backend *backend, enum count what);
/* 0, or why nothing can be recorded any more: every change is refused, what runs goes on. */
int backend_check(struct backend *backend, struct err *err);
/* Containers live on. No call may be running. */
void backend_close(struct backend *backend);
void backend_capacity(struct backend *backend, uint64_t *ret_memory_bytes, uint64_t *ret_disk_bytes,
	uint64_t *ret_max_containers);

/* ---- containers ------------------------------------------------------------------------------ */

#define HANDLE_SIZE 256
/* ret_handle: the handle given or made up. */
int container_create(struct backend *backend, const struct container_spec *spec,
	char ret_handle[HANDLE_SIZE], struct err *err);
int container_destroy(struct backend *backend, const char *handle, struct err *err);
/* TERM to everything but process 1, each second, KILL after ten; or KILL at once. */
int container_stop(struct container *container, bool kill_now, struct err *err);

/* Complete containers only. Holding one stops its grace time, which starts anew when the last is
 * put. */
struct container *container_get(struct backend *backend, const char *handle, struct err *err);
void container_put(struct container *container); /* NULL is allowed */

/* Handles whose properties contain all of the filter. */
int container_list(struct backend *backend, const struct property *filter, size_t n_filter,
	struct strv *ret_handles, struct err *err);

struct container_info {
	struct network_facts network;
	struct net_port *ports; /* net_rule.h */
	size_t n_ports;
	const char *state; /* "active" or "stopped" */
	char *path;
	struct strv events, process_ids;
};
int container_info(struct container *container, struct container_info *ret_info, struct err *err);
void container_info_done(struct container_info *info);

/* As they were asked for. */
void container_limits(struct container *container, struct limits *ret_limits);
/* What weighs against other containers on this host's own scale; 0: nothing was asked for. */
uint64_t container_cpu_weight(struct container *container);
/* Opens a way in from a port of the host; *ret_port is what was taken (net_rule.h). */
int container_net_in(struct container *container, const struct net_port *wanted,
	struct net_port *ret_port, struct err *err);
/* Lets through what the rules name, all or none. */
int container_net_out(
	struct container *container, const struct net_rule *rules, size_t n_rules, struct err *err);

int container_set_grace(struct container *container, int64_t grace_ns, struct err *err);

/* key NULL: every property, ordered by key. visit returns 0 to go on. */
int container_properties(struct container *container,
	int (*visit)(const char *key, const char *value, void *arg), void *arg);
int property_get(struct container *container, const char *key, char **ret_value, struct err *err);
int property_set(struct container *container, const char *key, const char *value, struct err *err);
int property_remove(struct container *container, const char *key, struct err *err);

/* ---- files ----------------------------------------------------------------------------------- */

/* An archive on its way into a container or out of it, done as one of the container's users: user as
 * in a process spec, NULL or "" is root. Relative paths begin in the user's home; NULL or "." is the
 * home. Into: missing directories of destination are made, the user's; whatever the archive says,
 * everything in it becomes the user's (volumes.h, unpack_owner). Out of: entries begin with the last
 * part of source, or with "./" where it ends in a slash. */
struct files_stream;
int files_in(struct container *container, const char *user, const char *destination,
	struct files_stream **ret_stream, struct err *err);
int files_out(struct container *container, const char *user, const char *source,
	struct files_stream **ret_stream, struct err *err);
/* A pipe, to be written (it does not block) or read; the stream's. */
int files_fd(const struct files_stream *stream);
/* As volume_stream_end. The container is held by the caller until here. */
int files_end(struct files_stream *take_stream, bool kill_it, struct err *err);

/* ---- processes ------------------------------------------------------------------------------- */

/* A client's hold on one process: begins with run or attach, ends when its control connection does.
 */
int process_run(struct container *container, const struct process_spec *spec,
	struct attach **ret_attach, struct err *err);
int process_attach(struct container *container, const char *process_id, struct attach **ret_attach,
	struct err *err);
void attach_end(struct attach *attach);

const char *attach_process_id(const struct attach *attach);
const char *attach_stream_id(const struct attach *attach);
/* Readable once the process has exited. */
int attach_exit_fd(const struct attach *attach);
bool attach_exit_status(const struct attach *attach, int *ret_status);
/* True if a reader of this client has stalled for too long: end the control connection. Its fd
 * becomes readable. */
int attach_cut_fd(const struct attach *attach);

/* What else ends a wait for room in attach_write_stdin: the client's end (some seconds after a FIN)
 * and a stop. Both are borrowed until attach_end. */
void attach_watch(struct attach *attach, int client_fd, int stop_fd);
/* Writes all of it, waiting for room; gives up when the process is gone. 0 or -errno. */
int attach_write_stdin(struct attach *attach, const void *data, size_t n_bytes);
/* Ends a pipe's stdin for everybody; does nothing to a terminal. */
void attach_end_stdin(struct attach *attach);
int attach_signal(struct attach *attach, int signo, struct err *err);
void attach_resize(struct attach *attach, uint32_t columns, uint32_t rows);

/* ---- output ---------------------------------------------------------------------------------- */

/* Opens a stream of the attach that stream_id names, once; -ENOENT (ERR_NOT_FOUND) if it is unknown
 * or was opened before. The reader is reader_close'd and the process put by stream_close. */
struct stream_reader;
int stream_open(struct container *container, const char *process_id, const char *stream_id,
	int stream, int sock_fd, struct stream_reader **ret_stream, struct err *err);
/* The same for somebody who holds the attach. */
int attach_open_stream(struct attach *attach, int stream, int sock_fd,
	struct stream_reader **ret_stream, struct err *err);
struct reader *stream_reader(struct stream_reader *stream); /* output.h */
/* The attach is to be cut off: see attach_cut_fd. */
void stream_cut(struct stream_reader *stream);
/* Before its connection is ended by FIN. */
void stream_will_end(struct stream_reader *stream);
/* What its client has not acknowledged is for the next one; see reader_await_acks. stop_fd: readable
 * if we are stopping, and leave the connection to the shim. */
void stream_close(struct stream_reader *stream, int stop_fd);

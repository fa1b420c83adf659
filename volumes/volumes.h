/* volumes.h - named file trees that outlive the containers that use them: made empty, as a copy of
 * another or from what lies on the host; streamed in and out; destroyed at once, deleted later.
 *
 * Every operation but import, a walk of owners and streams takes constant time whatever the size: a
 * copy shares the parent's tree as a read-only layer and has a tree of its own only for what is
 * written later, or is a snapshot; only where neither can be is it copied file by file (driver.h).
 * Nothing is mounted until a container uses it. On disk ids are canonical (root = 0)
 * whatever the privileged flag says.
 *
 * Threads: any. Errors: 0 or a negative errno with struct err filled; -ENOENT: no such volume;
 * -EINVAL: the request cannot be. Source: baggageclaim's HTTP API. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"

struct err;
struct registry;
struct volumes;

#define VOLUME_HANDLE_SIZE 256

/* Containers, as far as volumes need to know of them. Called with a volume locked: must not wait for
 * one. */
struct volume_users {
	/* True: nothing runs in the container, and nothing will until it is released. */
	bool (*hold)(void *arg, const char *container);
	void (*release)(void *arg, const char *container);
	void *arg;
};

struct volumes_config {
	const char *dir; /* made if missing; one server per directory (the caller holds a lock) */
	int self_exe_fd; /* the program that runs "cloche tree"; borrowed */
	struct volume_users users;
	const char *driver; /* a name that is known; borrowed until volumes_await */
};

/* overlay, btrfs, copy (or naive), detect: see driver.h. */
bool volume_driver_is_known(const char *name);

/* Loads the record, compares it with what is on disk, finishes what a crash has left. Nothing is
 * ever deleted because of a damaged row or a missing file: it is logged and set aside. Meanwhile the driver
 * is tried: nothing is made or attached before volumes_await has returned. */
int volumes_open(
	const struct volumes_config *config, struct volumes **ret_volumes, struct err *err);
int volumes_await(struct volumes *volumes, struct err *err); /* -errno: no driver does */
/* 0, or why nothing can be recorded any more: see db_check. */
int volumes_check(struct volumes *volumes, struct err *err);
/* The close is near: creations and streams that are at work have three seconds left, then they fail
 * (-ECANCELED), as new ones do at once; deletions are left to the next start. */
void volumes_halt(struct volumes *volumes);
/* Halts, and waits for that. */
void volumes_close(struct volumes *volumes);

/* ---- making them ----------------------------------------------------------------------------- */

enum volume_strategy { VOLUME_EMPTY, VOLUME_COW, VOLUME_IMPORT };

struct volume_spec {
	char *handle; /* NULL or "": one is chosen */
	enum volume_strategy strategy;
	char *source; /* the parent's handle, or a path of the host; NULL: none was given */
	bool follow_symlinks;
	bool has_properties, privileged, has_uid, has_gid;
	struct strv keys, values; /* of the properties, in pairs */
	int64_t uid, gid; /* both >= 0: owner of everything in it; else nobody's wish */
};
void volume_spec_done(struct volume_spec *spec);

/* Letters, digits, '.', '_' and '-', at most 255, not "." or "..". */
bool volume_handle_is_valid(const char *handle);

/* Returns when the volume is there. A chosen handle is put into spec. -EEXIST: it is taken. */
int volume_create(struct volumes *volumes, struct volume_spec *spec, struct err *err);

/* The same, later: what can be had at once is made at once. The spec is consumed in any case. The
 * handle is written to ret_handle. -EALREADY: the handle has a future. Futures outlive the server:
 * of a creation that it did not complete the next one tells the failure. */
int volume_create_later(struct volumes *volumes, struct volume_spec *take_spec,
	char ret_handle[VOLUME_HANDLE_SIZE], struct err *err);
/* 0: done, *ret_spec (the caller's) says what was asked for; -EAGAIN: not within timeout_ms, or
 * stop_fd became readable; -ESRCH: no such future; else the failure, again and again. */
int volume_future_wait(struct volumes *volumes, const char *handle, int timeout_ms, int stop_fd,
	struct volume_spec *ret_spec, struct err *err);
/* A future that is pending is cancelled: nobody will see its volume. -ESRCH: no such future. */
int volume_future_drop(struct volumes *volumes, const char *handle);

/* ---- looking at them ------------------------------------------------------------------------- */

/* Valid while it is being visited; do not call back. */
struct volume_view {
	const char *handle, *path; /* the name that clients give to containers, see volume_attach */
	const struct registry *properties; /* char *; NULL: none were ever given */
	bool privileged;
};
typedef int volume_visit(const struct volume_view *view, void *arg);

/* -ENOENT, or what visit returns. */
int volume_look(struct volumes *volumes, const char *handle, volume_visit *visit, void *arg,
	struct err *err);
/* Those that have all of the given properties, in the order of their handles, until visit returns
 * other than 0. */
int volumes_each(struct volumes *volumes, const char *const keys[], const char *const values[],
	size_t n_pairs, volume_visit *visit, void *arg, struct err *err);

/* ---- changing them --------------------------------------------------------------------------- */

int volume_set_property(struct volumes *volumes, const char *handle, const char *key,
	const char *value, struct err *err);
int volume_set_privileged(
	struct volumes *volumes, const char *handle, bool privileged, struct err *err);

/* Gone from every list when this returns. Copies keep what they share; a volume that a container
 * or a stream uses is deleted when that ends. */
int volume_destroy(struct volumes *volumes, const char *handle, struct err *err);
/* All of them, by one change of the record. Unknown ones are no failure; the first failure is told,
 * and the others are destroyed all the same. */
int volumes_destroy(struct volumes *volumes, const struct strv *handles, struct err *err);

/* ---- streams --------------------------------------------------------------------------------- */

struct volume_stream; /* one helper process at work on one volume */

/* raw, gzip, zstd or s2; NULL is none. */
bool volume_encoding_is_known(const char *encoding);

/* encoding is known. -ENOENT: no such volume. */
int volume_stream_in(struct volumes *volumes, const char *handle, const char *path,
	const char *encoding, struct volume_stream **ret_stream, struct err *err);
int volume_stream_out(struct volumes *volumes, const char *handle, const char *path,
	const char *encoding, struct volume_stream **ret_stream, struct err *err);

/* The same in somebody else's files, as one of its users (view.h, unpack_owner). All is borrowed until
 * the call returns. */
struct tree_view {
	int root_fd; /* what "/" is: also of another mount namespace */
	int userns_fd; /* -1: the host's */
	uint32_t uid, gid; /* as that has them */
	const uint32_t *groups;
	size_t n_groups;
	uint64_t caps; /* that the user keeps, of those for files */
	const char *path; /* from "/"; for a stream in its missing directories are made */
	const char *name; /* of what streams out, see pack.h; NULL: "." */
};
int tree_stream_in(struct volumes *volumes, const struct tree_view *view,
	struct volume_stream **ret_stream, struct err *err);
int tree_stream_out(struct volumes *volumes, const struct tree_view *view,
	struct volume_stream **ret_stream, struct err *err);

/* A pipe, to be written (it does not block) or read; the stream's. */
int volume_stream_fd(const struct volume_stream *stream);
/* It fails from here on; to be ended all the same, and not at the same time. */
void volume_stream_kill(const struct volume_stream *stream);
/* Ends the stream; it is freed. kill_it: it is not to be completed. Else waits until the helper is
 * done: 0; -EBADMSG: the archive is bad; -ENOENT: the path does not exist in the volume; or another
 * errno with the cause. */
int volume_stream_end(struct volume_stream *take_stream, bool kill_it, struct err *err);

/* What the volume holds: bytes on disk, shared layers included, and names. A walk over all of it. */
int volume_size(struct volumes *volumes, const char *handle, uint64_t *ret_bytes,
	uint64_t *ret_names, struct err *err);

/* ---- containers ------------------------------------------------------------------------------ */

/* How a container's builder gets the tree. */
struct volume_mount {
	struct strv layers; /* absolute paths, the uppermost first; a plain tree: just one */
	char *top_dir; /* holds upper/ and work/ of an overlay; NULL: a plain tree, or read-only */
	char *sub_path; /* what of it, relative; "": all */
	bool is_stale; /* the container has something else mounted: what this was before it was copied */
};
void volume_mount_done(struct volume_mount *mount);

enum attach_flags {
	ATTACH_WRITABLE = 1,
	ATTACH_FIXED = 2, /* what the container has mounted cannot be replaced: it is its root */
};

/* If path names something in a volume (<dir>/live/<handle>/volume[/sub]) the volume is attached to
 * the container and *ret_mount is the caller's: 1. 0: it is none of ours. Recorded before it
 * returns, idempotent; what a container has stays its own even if the volume is destroyed. A
 * copy-on-write volume has one container at a time that may write: -EBUSY.
 *
 * A volume may be copied while it is attached. If nothing runs in its containers then what they have
 * mounted becomes the copy's as well, and is stale: before anything runs in them again it must be
 * replaced by what volume_attach says then, and volume_refreshed called. */
int volume_attach(struct volumes *volumes, const char *path, const char *container, unsigned flags,
	struct volume_mount *ret_mount, struct err *err);
/* What was described to the container has been mounted, or will not be: until then its volumes are
 * not destroyed, because it is by their names that they are mounted. */
void volume_mounted(struct volumes *volumes, const char *container);
bool volume_has_stale(struct volumes *volumes, const char *container);
/* is_done false: it has what it had. */
void volume_refreshed(struct volumes *volumes, const char *container, bool is_done);
/* The container is gone, with all that it had attached. */
void volume_detach_all(struct volumes *volumes, const char *container);
/* At start, when it is known which containers live: the attachments of all others are dropped. */
void volumes_settle(
	struct volumes *volumes, bool (*is_known)(const char *container, void *arg), void *arg);

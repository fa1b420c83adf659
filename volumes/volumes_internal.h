/* volumes_internal.h - what the files of this folder share.
 *
 * On disk, below the store's directory (0700):
 *   init/<handle>/    being made          live/<handle>/   there for all      dead/<anything>/  being deleted
 *   doomed/<id>/      destroyed, and still used
 *        volume/      the tree of a plain volume; an empty directory if it has layers
 *        upper/ work/ what was written over the layers; missing until somebody writes
 *        layers       the numbers of its layers, for the day when the record is lost
 *   layers/<number>/  trees that nobody writes to any more, shared by copies
 *   state.db          the record
 *
 * Locks: volumes->lock guards the tables, counts and the members of each volume; a volume's top_lock
 * is held by whoever changes where its top is or opens it for writing, and is taken first. Never two
 * volumes' top_locks. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/err.h"
#include "volumes/driver.h"
#include "volumes/volumes.h"

struct db;

/* More than one mount can name (an option of fsconfig(2) ends at 255 bytes): a copy of such a volume
 * is one plain tree again. */
#define MAX_LAYERS 64
#define PATH_BYTES (64 + VOLUME_HANDLE_SIZE) /* of any path in the store down to a tree */

struct layer {
	int64_t id;
	unsigned n_refs; /* volumes */
	bool is_moving; /* at start: a crash came between the record and the move of the tree */
};

struct volume {
	TAILQ_ENTRY(volume) grave;
	struct volumes *owner;
	int64_t id;
	char *handle;
	char dir[24 +
		VOLUME_HANDLE_SIZE]; /* relative to the store: "live/<handle>" or "doomed/<id>" */
	bool is_ready, is_dead, privileged;
	struct registry *properties; /* char *; NULL: none were given */
	struct layer *layers[MAX_LAYERS]; /* the uppermost first */
	unsigned n_layers;
	unsigned n_refs; /* the table's, streams, attachments */
	unsigned
		n_writers; /* attachments that are not stale, streams into it: its top stays where it is */
	unsigned n_still; /* copies of it at work that nobody may begin to disturb by writing */

	pthread_mutex_t top_lock;
};

/* Stale: the container has layers mounted that belong to copies by now, and does nothing with them.
 * Renewing: it is getting the volume's present top. */
enum freshness { FRESH, STALE, RENEWING };

struct attachment {
	TAILQ_ENTRY(attachment) entry;
	struct volume *volume;
	unsigned flags; /* enum attach_flags */
	enum freshness freshness;
	bool is_pending; /* not mounted yet */
	char container[];
};
TAILQ_HEAD(attachment_list, attachment);

/* What the record is to hear when there is time: without it the next start finds out by looking. */
struct notes {
	int64_t *ids;
	size_t n, n_space;
};

struct volumes {
	char *dir;
	int dir_fd, dead_fd; /* nosuid, nodev, see store_dir.c */
	int host_fd; /* the same directory in the mount namespace that helpers start in */
	int self_exe_fd;
	struct volume_users users;
	int halt_fd; /* an eventfd, readable once everything is to end */
	struct db *db;
	const struct volume_driver *driver; /* chosen by a thread while the server starts */
	const char *driver_name; /* what was asked for, until it is chosen */
	pthread_t chooser;
	bool is_choosing;
	int chosen; /* 0 or -errno, with why_not */
	struct err why_not;
	char no_overlay
		[200]; /* why there are no overlay mounts here; "": there are, or nobody has tried */

	pthread_mutex_t lock;
	pthread_cond_t changed, to_sweep;
	struct registry *by_handle; /* struct volume *, half-made ones too */
	struct registry *layers; /* struct layer * by number */
	struct registry *futures;
	struct attachment_list attachments;
	unsigned n_stale; /* of them, renewing ones too */
	TAILQ_HEAD(volume_list, volume) graves; /* dead, and nobody uses them */
	unsigned n_at_work,
		n_making; /* threads of futures; those that are not waiting their turn */
	bool is_ending, has_dead;
	struct notes made, moved; /* numbers of volumes and layers */
	pthread_t sweeper;
};

/* store_dir.c: the directory. Close takes a half-open one. */
int store_dir_open(struct volumes *volumes, struct err *err);
void store_dir_close(struct volumes *volumes);

/* volumes.c */
/* "<dir>/live/<handle>/volume[/sub]": true, the handle and the rest without leading slashes. */
bool store_path_parse(const struct volumes *volumes, const char *path,
	char ret_handle[VOLUME_HANDLE_SIZE], const char **ret_sub_path);
/* NULL and -ENOENT told, or one more reference. */
struct volume *volume_get(struct volumes *volumes, const char *handle, struct err *err);
void volume_put(struct volume *volume);
/* Takes top_lock. -ENOENT, and not taken: it was destroyed meanwhile. */
int volume_lock_top(struct volume *volume, struct err *err);
/* For whoever is about to write: when no copy of it is at work that began without writers. The first
 * one also when it was destroyed. */
void volume_lock_still(struct volume *volume);
int volume_lock_top_to_write(struct volume *volume, struct err *err);
struct volume *volume_new(struct volumes *volumes, const char *handle);
void volume_free(struct volume *volume);
int volume_set_dir(struct volume *volume, const char *place); /* "init", "live" or "doomed" */
struct layer *layer_get(struct volumes *volumes, int64_t id); /* made if unknown; NULL: no memory */
/* Out of the table; it has no user. Lock held. */
void layer_forget(struct volumes *volumes, struct layer *layer);

/* create.c */
/* For whom a volume is made that somebody will ask for later. */
struct volume_client {
	/* With the lock held, when all of it is there: if it is not wanted any more nobody will ever
	 * have seen it (-ECANCELED). */
	bool (*is_wanted)(void *arg);
	/* In the transaction that records the volume; NULL: nothing. */
	int (*record)(void *arg, struct err *err);
	void *arg;
	bool is_recorded; /* that was committed */
};
int volume_create_for(struct volumes *volumes, struct volume_spec *spec,
	struct volume_client *client, struct err *err);
bool volume_wants_owner(const struct volume_spec *spec);
int volume_choose_handle(struct volume_spec *spec, struct err *err);

/* derive.c: what a new volume in init/ is filled with from another one */
int volume_make_tree(struct volume *volume, struct err *err); /* an empty one */
int volume_make_copy(struct volume *child, const char *handle, struct err *err);
/* Of what is below sub_path; "": all, then it is a copy. */
int volume_import_from(
	struct volume *volume, const char *handle, const char *sub_path, struct err *err);

/* layers.c: the tops of volumes. top_lock held. */
/* Nothing was written over its layers, or what was is gone again. */
bool volume_top_is_empty(const struct volume *volume);
/* What the volume holds now becomes a layer, if there is anything; its layers are then all it holds.
 * -EBUSY: somebody writes to it. */
int volume_freeze(struct volume *volume, struct err *err);
/* The same, and an empty top is not kept either: somebody still has it mounted who does nothing. */
int volume_leave_top(struct volume *volume, struct err *err);
bool volume_has_top(const struct volume *volume); /* has layers, and something over them */
/* upper/ and work/ of a volume with layers, made if missing. -EOPNOTSUPP: nothing can be written
 * over layers here. */
int volume_make_top(struct volume *volume, struct err *err);
/* The second half of a freeze: moves the top to its place, idempotent. */
int volume_move_top(struct volume *volume, int64_t layer, bool was_plain, struct err *err);
/* The file "layers" of a volume that is made with some, in init/. */
int volume_write_layers(const struct volume *volume, struct err *err);
/* "tree=..." or "lower=... [upper=... work=...]", as "cloche tree" wants it. */
int volume_tree_words(const struct volume *volume, bool is_writable, struct strv *words);

/* record.c: sqlite */
int record_open(const char *path, struct db **ret_db, struct err *err);
/* Lost: its tree was not there, and then somebody has taken its name. */
enum record_state { RECORD_MAKING, RECORD_LIVE, RECORD_DEAD, RECORD_LOST };
/* Sets its id. client: may be NULL. */
int record_add(struct volumes *volumes, struct volume *volume, struct volume_client *client,
	struct err *err);
/* Of those that are still being made: they are live. Of these layers: they are in their places. */
int record_notes(struct volumes *volumes, const struct notes *made, const struct notes *moved,
	struct err *err);
int record_set_state(struct volume *volume, enum record_state state, struct err *err);
int record_set_privileged(struct volume *volume, bool privileged, struct err *err);
int record_set_property(struct volume *volume, const char *key, const char *value, struct err *err);
/* Many at once: all or none. */
int record_set_dead(
	struct volumes *volumes, struct volume *const list[], size_t n, struct err *err);
int record_remove(struct volumes *volumes, struct volume *const list[], size_t n, struct err *err);
/* A new layer over those that the volume has, its tree still to be moved there. */
int record_add_layer(struct volume *volume, int64_t *ret_layer, struct err *err);
/* The uppermost, which nobody else has and the volume does not count any more. */
int record_take_layer(struct volume *volume, int64_t layer, struct err *err);
/* A layer that was found on disk, and that the record has lost. */
#define LAYER_FOUND (-1)
int record_add_found_layer(struct volumes *volumes, int64_t layer, struct err *err);
int record_remove_layer(struct volumes *volumes, int64_t layer, struct err *err);
int record_attach(struct volumes *volumes, int64_t volume, const char *container, unsigned flags,
	struct err *err);
int record_set_stale(struct volumes *volumes, int64_t volume, struct err *err);
int record_set_fresh(struct volumes *volumes, const char *container, struct err *err);
int record_detach(struct volumes *volumes, const char *container, struct err *err);

struct volume_row {
	int64_t id;
	const char *handle;
	enum record_state state;
	bool privileged, has_properties;
};
int record_each_volume(struct volumes *volumes,
	int (*visit)(const struct volume_row *row, void *arg), void *arg, struct err *err);
int record_each_property(struct volumes *volumes, int64_t volume,
	int (*visit)(const char *key, const char *value, void *arg), void *arg, struct err *err);
int record_each_layer_of(struct volumes *volumes, int64_t volume,
	int (*visit)(int64_t layer, void *arg), void *arg, struct err *err);
/* from: the volume that it is still to be moved from, 0: none, or LAYER_FOUND. n_users: rows of
 * volumes that name it, also of those that could not be loaded. */
int record_each_layer(struct volumes *volumes,
	int (*visit)(int64_t layer, int64_t from, int64_t n_users, void *arg), void *arg,
	struct err *err);
int record_each_attachment(struct volumes *volumes,
	int (*visit)(
		int64_t volume, const char *container, unsigned flags, bool is_stale, void *arg),
	void *arg, struct err *err);

/* record_futures.c. Pending: or made, then the volume has a number above after. */
enum future_state { FUTURE_PENDING, FUTURE_FAILED, FUTURE_CANCELLED };
struct future_row {
	int64_t id, after;
	const char *handle;
	enum future_state state;
	bool has_uid, has_gid;
	int64_t uid, gid;
	struct err failure;
};
int record_add_future(
	struct volumes *volumes, const struct volume_spec *spec, int64_t *ret_id, struct err *err);
int record_future_failed(
	struct volumes *volumes, int64_t id, const struct err *failure, struct err *err);
int record_future_cancelled(struct volumes *volumes, int64_t id, struct err *err);
int record_remove_future(struct volumes *volumes, int64_t id, struct err *err);
int record_each_future(struct volumes *volumes,
	int (*visit)(const struct future_row *row, void *arg), void *arg, struct err *err);

/* load.c: record and disk at start */
int volumes_load(struct volumes *volumes, struct err *err);

/* notes.c */
void notes_done(struct notes *notes);
/* The record hears of it within a second. */
void note_made(struct volume *volume);
void note_moved(struct volumes *volumes, int64_t layer);
/* The sweeper's part. Lock held on entry and exit. A negative errno: to be tried again. */
int notes_write(struct volumes *volumes);

/* sweep.c: deleting */
int sweeper_start(struct volumes *volumes, struct err *err);
void sweeper_stop(struct volumes *volumes);
void sweeper_has_dead(struct volumes *volumes);
/* A path of the store goes to dead/; what is not there is no error. */
int store_bury(struct volumes *volumes, const char *path);
/* What a creation has left goes to dead/; the volume is freed. */
void volume_discard(struct volume *volume);

/* helper.c: "cloche tree" */
struct helper {
	pid_t pid;
	int halt_fd; /* borrowed; -1: that was seen */
	bool is_cut; /* killed because of it */
	int text_fd; /* what it has to say */
	char text[8]; /* what was read of that already */
	size_t text_bytes;
};
/* Returns when the helper is in its tree. words: what follows "cloche tree". stdin_fd and stdout_fd are borrowed; -1: none. */
int helper_start(struct volumes *volumes, const struct strv *words, int stdin_fd, int stdout_fd,
	struct helper *ret_helper, struct err *err);
/* The same with another directory than the store, see view.h. Borrowed; userns_fd 0: none. */
struct helper_fds {
	int stdin_fd, stdout_fd, dir_fd, userns_fd;
};
int helper_start_with(struct volumes *volumes, const struct strv *words,
	const struct helper_fds *fds, struct helper *ret_helper, struct err *err);
void helper_kill(const struct helper *helper); /* to be waited for */
/* 0 or its failure: -EBADMSG, -ENOENT, or what the text says. */
int helper_wait(struct helper *helper, struct err *err);
int helper_run(struct volumes *volumes, const struct strv *words, int stdin_fd, struct err *err);

/* attach.c: lock held, or nobody else is there yet. */
int attachment_add(struct volume *volume, const char *container, unsigned flags, bool is_stale);
/* Lock held. A container is about to mount it. */
bool attach_is_pending(const struct volume *volume);
/* True: all that may write to the volume are containers in which nothing runs, until attach_release;
 * held names them. top_lock held. */
bool attach_hold(struct volume *volume, struct strv *held);
void attach_release(struct volumes *volumes, const struct strv *held);
int attach_set_stale(struct volume *volume, struct err *err);

/* destroy.c: it alone, whatever has its name by now. The caller's reference stays. */
int volume_destroy_this(struct volume *volume, struct err *err);

/* futures.c */
/* After the volumes: what became of those that somebody was to ask for. */
void futures_load(struct volumes *volumes);
void futures_free(struct volumes *volumes);

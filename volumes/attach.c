/* Which containers use which volumes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "volumes/volumes_internal.h"

void volume_mount_done(struct volume_mount *mount)
{
	strv_done(&mount->layers);
	free(mount->top_dir);
	free(mount->sub_path);
	*mount = (struct volume_mount){ 0 };
}

int attachment_add(struct volume *volume, const char *container, unsigned flags, bool is_stale)
{
	struct attachment *attachment = calloc(1, sizeof(*attachment) + strlen(container) + 1);

	if (!attachment)
		return -ENOMEM;
	attachment->volume = volume;
	attachment->flags = flags;
	attachment->freshness = is_stale ? STALE : FRESH;
	memcpy(attachment->container, container, strlen(container) + 1);
	TAILQ_INSERT_TAIL(&volume->owner->attachments, attachment, entry);
	volume->n_refs++;
	volume->n_writers += !is_stale;
	volume->owner->n_stale += is_stale;
	return 0;
}

/* Lock held. */
static struct attachment *find(const struct volume *volume, const char *container)
{
	struct attachment *attachment;

	TAILQ_FOREACH (attachment, &volume->owner->attachments, entry)
		if (attachment->volume == volume && !strcmp(attachment->container, container))
			return attachment;
	return NULL;
}

/* Lock held. An overlay's upper tree belongs to one mount, and so to one container; whoever only
 * reads has a mount of its own. */
static bool is_claimed(const struct volume *volume, const char *container)
{
	const struct attachment *attachment;

	TAILQ_FOREACH (attachment, &volume->owner->attachments, entry)
		if (attachment->volume == volume && attachment->flags & ATTACH_WRITABLE &&
			attachment->freshness != STALE &&
			strcmp(attachment->container, container) != 0)
			return true;
	return false;
}

/* Lock held. */
static unsigned n_streams_in(const struct volume *volume)
{
	const struct attachment *attachment;
	unsigned n = volume->n_writers;

	TAILQ_FOREACH (attachment, &volume->owner->attachments, entry)
		n -= attachment->volume == volume && attachment->freshness != STALE;
	return n;
}

/* Lock held. The record first: a container that is never made is forgotten at the next start. */
static int enter(struct volume *volume, struct attachment *attachment, const char *container,
	unsigned flags, struct err *err)
{
	int r = attachment && attachment->flags == flags
		? 0
		: record_attach(volume->owner, volume->id, container, flags, err);

	if (r < 0)
		return r;
	if (!attachment) {
		if (attachment_add(volume, container, flags, false) < 0)
			return err_system(err, -ENOMEM, "attach");
		find(volume, container)->is_pending = true;
		return 0;
	}
	attachment->flags = flags;
	attachment->is_pending = true;
	if (attachment->freshness == STALE) {
		attachment->freshness = RENEWING;
		volume->n_writers++;
	}
	return 0;
}

/* top_lock held. */
static int claim(struct volume *volume, const char *container, unsigned flags, bool *ret_is_stale,
	struct err *err)
{
	struct attachment *attachment;
	int r;

	pthread_mutex_lock(&volume->owner->lock);
	attachment = find(volume, container);
	*ret_is_stale = attachment && attachment->freshness != FRESH;
	flags |= attachment ? attachment->flags : 0;
	if (volume->n_layers && flags & ATTACH_WRITABLE &&
		(is_claimed(volume, container) || n_streams_in(volume)))
		r = err_set(err, ERR_BUSY, EBUSY,
			"volume %.200s: another container or a stream writes to it",
			volume->handle);
	else
		r = enter(volume, attachment, container, flags, err);
	pthread_mutex_unlock(&volume->owner->lock);
	return r;
}

static int add_layer(const struct volume *volume, const char *path, struct volume_mount *mount)
{
	return strv_addf(&mount->layers, "%s/%s", volume->owner->dir, path);
}

static int add_layers(const struct volume *volume, bool is_writer, struct volume_mount *mount)
{
	char path[PATH_BYTES];
	int r = 0;

	if (volume->n_layers == 0) {
		snprintf(path, sizeof(path), "%s/volume", volume->dir);
		return add_layer(volume, path, mount);
	}
	if (!is_writer && volume_has_top(volume)) {
		snprintf(path, sizeof(path), "%s/upper", volume->dir);
		r = add_layer(volume, path, mount);
	}
	for (unsigned i = 0; i < volume->n_layers && r == 0; i++) {
		snprintf(path, sizeof(path), "layers/%lld", (long long)volume->layers[i]->id);
		r = add_layer(volume, path, mount);
	}
	return r;
}

static int describe(const struct volume *volume, bool is_writer, const char *sub_path,
	struct volume_mount *mount, struct err *err)
{
	mount->sub_path = strdup(sub_path);
	if (!mount->sub_path || add_layers(volume, is_writer, mount) < 0)
		return err_system(err, -ENOMEM, "attach");
	if (is_writer && volume->n_layers &&
		asprintf(&mount->top_dir, "%s/%s", volume->owner->dir, volume->dir) < 0)
		return err_system(err, -ENOMEM, "attach");
	return 0;
}

/* One that was destroyed is still there for the containers that have it. */
static struct volume *find_attached(
	struct volumes *volumes, const char *handle, const char *container)
{
	struct attachment *attachment;
	struct volume *volume = NULL;

	pthread_mutex_lock(&volumes->lock);
	TAILQ_FOREACH (attachment, &volumes->attachments, entry)
		if (!volume && !strcmp(attachment->container, container) &&
			!strcmp(attachment->volume->handle, handle))
			volume = attachment->volume;
	if (volume)
		volume->n_refs++;
	pthread_mutex_unlock(&volumes->lock);
	return volume;
}

static int attach(struct volume *volume, const char *container, unsigned flags,
	const char *sub_path, struct volume_mount *mount, struct err *err)
{
	bool is_writer = flags & ATTACH_WRITABLE;
	int r = claim(volume, container, flags, &mount->is_stale, err);

	if (r == 0)
		r = FAULT(attach_recorded, err);
	if (r == 0 && is_writer)
		r = volume_make_top(volume, err);
	return r < 0 ? r : describe(volume, is_writer, sub_path, mount, err);
}

int volume_attach(struct volumes *volumes, const char *path, const char *container, unsigned flags,
	struct volume_mount *ret_mount, struct err *err)
{
	char handle[VOLUME_HANDLE_SIZE];
	const char *sub_path;
	struct volume *volume;
	int r = 0;

	*ret_mount = (struct volume_mount){ 0 };
	if (!store_path_parse(volumes, path, handle, &sub_path))
		return 0;
	volume = find_attached(volumes, handle, container);
	if (volume) {
		volume_lock_still(volume);
	} else {
		volume = volume_get(volumes, handle, err);
		r = !volume                       ? -ENOENT
			: flags & ATTACH_WRITABLE ? volume_lock_top_to_write(volume, err)
						  : volume_lock_top(volume, err);
	}
	if (r == 0) {
		r = attach(volume, container, flags, sub_path, ret_mount, err);
		pthread_mutex_unlock(&volume->top_lock);
	}
	if (volume)
		volume_put(volume);
	if (r < 0)
		volume_mount_done(ret_mount);
	return r < 0 ? r : 1;
}

/* ---- copies of what is attached -------------------------------------------------------------- */

/* Lock held. False: somebody writes to it who cannot be held. */
static bool list_users(const struct volume *volume, struct strv *containers)
{
	const struct attachment *attachment;

	if (n_streams_in(volume))
		return false;
	TAILQ_FOREACH (attachment, &volume->owner->attachments, entry)
		if (attachment->volume == volume && attachment->freshness != STALE &&
			(attachment->flags & ATTACH_FIXED ||
				strv_add(containers, attachment->container) < 0))
			return false;
	return true;
}

bool attach_hold(struct volume *volume, struct strv *held)
{
	struct volumes *volumes = volume->owner;
	AUTO_STRV struct strv containers = { 0 };
	bool can_hold;

	pthread_mutex_lock(&volumes->lock);
	can_hold = list_users(volume, &containers);
	pthread_mutex_unlock(&volumes->lock);
	for (size_t i = 0; i < containers.n_items && can_hold; i++) {
		const char *name = containers.items[i];

		can_hold = volumes->users.hold(volumes->users.arg, name);
		if (can_hold && strv_add(held, name) < 0) {
			volumes->users.release(volumes->users.arg, name);
			can_hold = false;
		}
	}
	if (!can_hold)
		attach_release(volumes, held);
	return can_hold;
}

void attach_release(struct volumes *volumes, const struct strv *held)
{
	for (size_t i = 0; i < held->n_items; i++)
		volumes->users.release(volumes->users.arg, held->items[i]);
}

int attach_set_stale(struct volume *volume, struct err *err)
{
	struct volumes *volumes = volume->owner;
	struct attachment *attachment;
	int r = record_set_stale(volumes, volume->id, err);

	pthread_mutex_lock(&volumes->lock);
	TAILQ_FOREACH (attachment, &volumes->attachments, entry)
		if (r == 0 && attachment->volume == volume && attachment->freshness == FRESH) {
			attachment->freshness = STALE;
			volume->n_writers--;
			volumes->n_stale++;
		}
	pthread_mutex_unlock(&volumes->lock);
	return r;
}

bool attach_is_pending(const struct volume *volume)
{
	const struct attachment *attachment;

	TAILQ_FOREACH (attachment, &volume->owner->attachments, entry)
		if (attachment->volume == volume && attachment->is_pending)
			return true;
	return false;
}

void volume_mounted(struct volumes *volumes, const char *container)
{
	struct attachment *attachment;

	pthread_mutex_lock(&volumes->lock);
	TAILQ_FOREACH (attachment, &volumes->attachments, entry)
		if (!strcmp(attachment->container, container))
			attachment->is_pending = false;
	pthread_cond_broadcast(&volumes->changed);
	pthread_mutex_unlock(&volumes->lock);
}

bool volume_has_stale(struct volumes *volumes, const char *container)
{
	const struct attachment *attachment;
	bool has_stale = false;

	pthread_mutex_lock(&volumes->lock);
	if (volumes->n_stale)
		TAILQ_FOREACH (attachment, &volumes->attachments, entry)
			has_stale |= attachment->freshness != FRESH &&
				!strcmp(attachment->container, container);
	pthread_mutex_unlock(&volumes->lock);
	return has_stale;
}

/* If the record does not take it, it is done once more after the next start: no harm. */
void volume_refreshed(struct volumes *volumes, const char *container, bool is_done)
{
	struct attachment *attachment;
	struct err err;

	if (is_done)
		record_set_fresh(volumes, container, &err);
	pthread_mutex_lock(&volumes->lock);
	TAILQ_FOREACH (attachment, &volumes->attachments, entry)
		if (attachment->freshness == RENEWING &&
			!strcmp(attachment->container, container)) {
			attachment->freshness = is_done ? FRESH : STALE;
			attachment->volume->n_writers -= !is_done;
			volumes->n_stale -= is_done;
		}
	pthread_mutex_unlock(&volumes->lock);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void detach(struct attachment *attachment)
{
	struct volume *volume = attachment->volume;

	volume->n_writers -= attachment->freshness != STALE;
	volume->owner->n_stale -= attachment->freshness != FRESH;
	TAILQ_REMOVE(&volume->owner->attachments, attachment, entry);
	free(attachment);
}

void volume_detach_all(struct volumes *volumes, const char *container)
{
	struct attachment *attachment, *next;
	struct volume_list over = TAILQ_HEAD_INITIALIZER(over);
	bool was_attached = false, has_dead = false;
	struct err err;

	pthread_mutex_lock(&volumes->lock);
	for (attachment = TAILQ_FIRST(&volumes->attachments); attachment; attachment = next) {
		struct volume *volume = attachment->volume;

		next = TAILQ_NEXT(attachment, entry);
		if (strcmp(attachment->container, container) != 0)
			continue;
		was_attached = true;
		detach(attachment);
		if (--volume->n_refs == 0) {
			TAILQ_INSERT_TAIL(&volumes->graves, volume, grave);
			has_dead = true;
		}
	}
	pthread_cond_broadcast(&volumes->changed); /* a destroy may wait for a pending one */
	pthread_mutex_unlock(&volumes->lock);
	if (was_attached && record_detach(volumes, container, &err) < 0)
		LOG(LOG_WARN, "detach-not-recorded", KV_STR("container", container),
			KV_STR("error", err.msg));
	(void)FAULT(detach_forgotten, NULL);
	if (has_dead)
		sweeper_has_dead(volumes);
}

void volumes_settle(
	struct volumes *volumes, bool (*is_known)(const char *container, void *arg), void *arg)
{
	struct attachment *attachment;
	bool is_done = false;

	while (!is_done) {
		AUTO_FREE char *unknown = NULL;

		pthread_mutex_lock(&volumes->lock);
		TAILQ_FOREACH (attachment, &volumes->attachments, entry) {
			if (is_known(attachment->container, arg))
				continue;
			unknown = strdup(attachment->container);
			break;
		}
		pthread_mutex_unlock(&volumes->lock);
		is_done = !unknown;
		if (unknown)
			volume_detach_all(volumes, unknown);
	}
}

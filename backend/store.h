/* store.h - the record of containers in sqlite: written before the effect, read at start. Threads:
 * any. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "spec.h"

struct container;
struct db;
struct err;
struct limits;
struct property;
struct strv;

struct record {
	const char *id, *handle, *nonce, *boot_id;
	int64_t id_base, grace_ns; /* id_base: host id of the range's id 0, -1: none */
	int state; /* enum container_state */
	int privileged; /* enum privilege */
	const struct bind_mount *binds; /* for store_add; see store_bind */
	size_t n_binds;
	const struct limits *limits; /* for store_add; NULL: none */
	int64_t created_ms; /* clock_ms; 0: not known */
	const char *root; /* the image that was asked for; NULL: not known */
};

int store_open(const char *path, struct db **ret_db, struct err *err);
/* A random name for this work directory, made once: 8 hex digits. */
int store_instance(struct db *db, char ret_instance[9], struct err *err);

/* Paths of cgroups below which containers' groups may lie. */
int store_cgroups(struct db *db, struct strv *ret_paths, struct err *err);
/* From now on these and no others. */
int store_set_cgroups(struct db *db, const struct strv *paths, struct err *err);

/* The record with its properties and environment, in one transaction; one that is there (of the pool
 * of unborn containers) gets the handle, state and grace time. -EEXIST: the handle is taken. */
int store_add(struct db *db, const struct record *record, const struct strv *env,
	const struct property *properties, size_t n_properties, struct err *err);
/* What a container (token 0), or a process with a root of its own, is about to have as its root. */
struct store_image {
	const char *name; /* of an unpacked image; "": none */
	const char *lower; /* the directory that its layer lies over, for metrics; NULL: none */
	const struct strv *env; /* of a container's root: the image's own; else NULL */
};
int store_add_image(struct db *db, const char *id, uint32_t token, const struct store_image *image,
	struct err *err);
/* *ret_path is the caller's; NULL: none is recorded. */
int store_lower(struct db *db, const char *id, uint32_t token, char **ret_path, struct err *err);
/* What containers use; STORE_ANY_IMAGE is among it if that is not known of all. */
#define STORE_ANY_IMAGE "*"
int store_images(struct db *db, struct strv *ret_names, struct err *err);
/* Processes with a root of their own, which have a layer on disk and perhaps volumes. */
int store_add_pea(struct db *db, const char *id, uint32_t token, struct err *err);
int store_remove_pea(struct db *db, const char *id, uint32_t token, struct err *err);
int store_peas(struct db *db, const char *id, int (*visit)(uint32_t token, void *arg), void *arg,
	struct err *err);
int store_set_state(struct db *db, const char *id, int state, struct err *err);
int store_set_grace(struct db *db, const char *id, int64_t grace_ns, struct err *err);
int store_set_property(
	struct db *db, const char *id, const char *key, const char *value, struct err *err);
int store_remove_property(struct db *db, const char *id, const char *key, struct err *err);
int store_remove(struct db *db, const char *id, struct err *err);

/* visit sees each record; strings are valid during the call. */
int store_each(struct db *db, int (*visit)(const struct record *record, void *arg), void *arg,
	struct err *err);
/* What belongs to containers, of all of them: to ask for each anew takes longer than all the rest of a start. A
 * container's come one after the other, in their order. */
enum store_detail {
	STORE_ENV, /* text */
	STORE_IMAGE_ENV, /* text */
	STORE_PROPERTIES, /* key, text */
	STORE_LIMITS, /* key, number: see limits_take */
	STORE_BINDS, /* see store_bind */
	STORE_LOWERS, /* text: of containers, see store_add_lower */
	STORE_PEAS, /* number: the token */
	N_STORE_DETAILS
};
struct detail {
	const char *id, *key, *text; /* valid during the call */
	int64_t number;
};
int store_each_detail(struct db *db, enum store_detail which,
	int (*visit)(const struct detail *detail, void *arg), void *arg, struct err *err);
struct bind_mount store_bind(const struct detail *detail); /* borrows its texts */

/* plan_list.h - a list of operations in the making (shim/protocol.h): a plan in one piece of memory comes of it. What goes wrong
 * on the way is told at its end. Part of plan.c. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

#define NAME_BYTES 3
#define MAX_STAGED 64

struct id_map;
struct volume_mount;

struct list {
	struct buf ops, strings;
	unsigned n_names;
	const struct volume_mount *staged[MAX_STAGED]; /* overlays that are mounted already */
	char staged_at[MAX_STAGED][NAME_BYTES];
	unsigned n_staged;
};

void list_open(struct list *list);
void auto_list(struct list *list);
/* 0, -ENOMEM, -E2BIG; the caller's to free. */
int list_close(struct list *list, const struct id_map *map, void **ret_blob, size_t *ret_bytes);

void list_add(struct list *list, uint16_t code, uint16_t flags, const char *a, const char *b,
	uint64_t attrs, uint64_t number);
/* take_path NULL: there was no memory for it, and there is no plan without it. */
void list_add_path(struct list *list, uint16_t code, uint16_t flags, char *take_path, const char *b,
	uint64_t attrs, uint64_t number);
void list_add_mkdir(struct list *list, const char *path);
/* A directory of the skeleton that the container's root gets as a mount. All are of one tmpfs: at the end
 * of each memory group the kernel walks every file system that there is. */
void list_add_given(
	struct list *list, const char *path, const char *target, mode_t mode, uint64_t attrs);

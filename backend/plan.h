/* plan.h - decide first, act later: what a container is made of becomes two lists of operations
 * (shim/protocol.h). Pure: no system calls; tests compare lists with golden files.
 *
 * The first list makes what all containers have (namespaces, init, a private skeleton with /dev,
 * /proc and /sys); the second adds what the request says (root, mounts) and moves the skeleton's
 * trees in. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"

struct cgroups;
struct bind_mount;
struct pea_group;
struct buf;
struct network_link;
struct volume_mount;

struct id_map {
	char text[128]; /* for uid_map(5) and gid_map; "" for no user namespace */
	uint32_t root; /* host id of id 0 */
	uint32_t tty_gid; /* host id of group 5 */
	uint32_t n_ids; /* ids 0 to n_ids - 1 are mapped */
	bool is_one_to_one; /* all but 0 are the host's own */
};

struct plan_input {
	const char *id;
	const struct cgroups *cgroups;
	struct id_map map;
	bool privileged; /* /sys and cgroups can be written, nothing is masked */
	bool has_fuse;
	const char *skeleton_dir; /* an empty directory of the host */
	const char *container_dir; /* holds upper/ and work/ */
	const struct network_link *link; /* NULL: a loopback only */
	const char *hosts, *hostname_file, *resolvers; /* contents of files in /etc */
	const char *lower; /* a tree to copy on write, or */
	const char *raw; /* a tree to use in place, or */
	const struct volume_mount *volume; /* one of our volumes; NULL: none */
	const struct bind_mount *binds;
	const struct volume_mount *bind_volumes; /* as many as binds; without layers: no volume */
	size_t n_binds;
	const struct strv
		*masked; /* of this host, relative: "proc/kcore"; a trailing '/' means directory */
	const struct strv *readonly;
	const struct pea_group *group; /* of a process with a root of its own */
};

/* The whole map of one range, or the reference server's ("maximal"). */
void id_map_range(struct id_map *map, uint32_t base);
void id_map_maximal(struct id_map *map);
void id_map_none(struct id_map *map);

uint32_t id_map_to_host(const struct id_map *map, uint32_t id);

/* *ret_blob (struct plan_wire, *ret_bytes long) is the caller's. 0 or -ENOMEM, -E2BIG. */
int plan_prepare(const struct plan_input *input, void **ret_blob, size_t *ret_bytes);
int plan_birth(const struct plan_input *input, void **ret_blob, size_t *ret_bytes);

/* For a container that lives: each bind that is a stale volume is covered by the volume as it is
 * described now, and what was mounted in it is put back. -E2BIG: too many. */
int plan_refresh(const struct plan_input *input, void **ret_blob, size_t *ret_bytes);

/* For a process with a root of its own (input: that, and the container's id and map): the root is made
 * beside the container's, gets what they share, and the process is cloned into it. */
int plan_pea(const struct plan_input *input, void **ret_blob, size_t *ret_bytes);

/* One operation as text, for error messages and golden files. */
void plan_describe(const void *blob, uint32_t step, struct buf *text);

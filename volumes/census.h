/* census.h - walks over a tree that change or count what every entry has. One thread. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct err;

/* Gives every entry to uid:gid, the directory itself too, links not followed. Set-id bits and file
 * capabilities stay, which the kernel takes away from what changes its owner. */
int census_chown(int dir_fd, uid_t uid, gid_t gid, struct err *err);

/* Allocated bytes, a file with several names counted once; names, the directory's own too. */
int census_size(int dir_fd, uint64_t *ret_bytes, uint64_t *ret_names, struct err *err);

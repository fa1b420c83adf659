/* btrfs.h - subvolumes of btrfs: trees that are copied and deleted in constant time.
 * 0 or -errno. Directories are given by descriptors that were opened for reading (not O_PATH), names
 * are single ones. -ENOTTY: the file system is another one. */
#pragma once
#include <stdbool.h>

bool btrfs_is_at(int dir_fd);

/* An empty subvolume; mode 0777 less the umask. */
int btrfs_subvolume_create(int dir_fd, const char *name);

/* A writable copy of the subvolume of which from_fd is the root, as it is at one moment. -EINVAL: it
 * is the root of none. Subvolumes inside are not copied: empty directories stand for them. */
int btrfs_snapshot(int dir_fd, const char *name, int from_fd);

/* 1, 0 or -errno: whether there are subvolumes inside of that of which fd is a part. */
int btrfs_has_nested(int fd);

/* With all that is in it. -EINVAL: an ordinary directory; -ENOTEMPTY: subvolumes are inside. */
int btrfs_subvolume_destroy(int dir_fd, const char *name);

/* Whoever owns a subvolume may have made it read-only. What is no root of one is left alone. */
void btrfs_make_writable(int fd);

/* tree.h - deleting trees that strangers have made: any depth, any names, links, mounts in the way.
 * On btrfs subvolumes go too, at once if there is none inside.
 * By descriptors only; follows no link; constant memory and constant depth: a directory that lies
 * too deep is moved up to the top and its turn comes later, so a crash loses nothing either. */
#pragma once

/* Deletes everything in the directory. 0; the -errno of the last thing that would not go; or
 * -ECANCELED: stop_fd (-1: none) became readable. */
int tree_empty(int dir_fd, int stop_fd);

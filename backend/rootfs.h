/* rootfs.h - what a container's root is made from. A directory is copied on write; an archive (tar,
 * also gzip or zstd) is unpacked once into the work directory and then the same; so is an image that
 * the image map names, be it an OCI layout; raw:///dir is used in place. Threads: any; one archive is
 * unpacked at a time. */
#pragma once
#include <pthread.h>

#include "base/strv.h"
#include "image_store.h"
#include "layout.h"
#include "volumes/volumes.h"

struct err;
struct image_map;

struct rootfs {
	char *lower; /* copy on write, or */
	char *raw; /* in place, or */
	struct volume_mount volume; /* one of ours, attached; it has layers then */
	char image
		[IMAGE_NAME_SIZE]; /* what it is called among the images that were unpacked, or "" */
	struct strv env; /* the image's own */
};
void rootfs_done(struct rootfs *rootfs);

struct rootfs_config {
	const char *images_dir; /* where archives are unpacked */
	const char *dead_dir; /* where failures are put, to be deleted */
	const struct strv *allow_raw;
	const struct image_map *map; /* NULL: none */
	layout_reader *read_layout;
	int self_exe_fd; /* the program that unpacks: "cloche tree in" */
	pthread_mutex_t unpack_lock;
};

/* uri as clients write it; volumes are container.c's business. *ret_rootfs is the caller's. */
int rootfs_resolve(
	struct rootfs_config *config, const char *uri, struct rootfs *ret_rootfs, struct err *err);

/* What unpacked images are called that may be asked for again: of the default root and of the map, as
 * far as they are there. */
int rootfs_known_images(
	const struct rootfs_config *config, const char *default_rootfs, struct strv *ret_names);

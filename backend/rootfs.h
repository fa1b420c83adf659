/* rootfs.h - what a container's root is made from. A directory is copied on write; an archive (tar,
 * also gzip or zstd) is unpacked once into the work directory and then the same; raw:///dir is used
 * in place. Threads: any; one archive is unpacked at a time. */
#pragma once
#include <pthread.h>

struct err;
struct strv;

struct rootfs {
	char *lower; /* copy on write, or */
	char *raw; /* in place */
};
void rootfs_done(struct rootfs *rootfs);

struct rootfs_config {
	const char *images_dir; /* where archives are unpacked */
	const char *dead_dir; /* where failures are put, to be deleted */
	const struct strv *allow_raw;
	int self_exe_fd; /* the program that unpacks: "cloche tree in" */
	pthread_mutex_t unpack_lock;
};

/* uri as clients write it. *ret_rootfs is the caller's. */
int rootfs_resolve(
	struct rootfs_config *config, const char *uri, struct rootfs *ret_rootfs, struct err *err);

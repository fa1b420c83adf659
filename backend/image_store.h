/* image_store.h - archives unpacked once, each by a name that says what it is of: below images/, in
 * whole and on the disk when the name is there. Threads: any; one is unpacked at a time. */
#pragma once
#include <stddef.h>
#include <sys/stat.h>

struct err;
struct rootfs_config;

#define IMAGE_NAME_SIZE 128

/* The same file, unchanged, has the same name. */
void image_name_of_file(const struct stat *st, char ret_name[IMAGE_NAME_SIZE]);

/* What is unpacked, one over the other. open gives an archive that the caller closes, or -errno with
 * err set. */
struct image_source {
	const char *what; /* for messages */
	size_t n_archives;
	int (*open)(void *arg, size_t i, struct err *err);
	void *arg;
	int are_layers; /* of an OCI image */
};

/* The image's directory, unpacked now if it is not there. *ret_dir is the caller's. */
int image_have(struct rootfs_config *config, const char *name, const struct image_source *source,
	char **ret_dir, struct err *err);

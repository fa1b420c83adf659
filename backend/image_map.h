/* image_map.h - which URIs mean which trees: lines "URI<TAB>path<TAB>environment file", the last part
 * optional. Empty lines and those that begin with '#' mean nothing. Read once; what the lines name is
 * looked at when an image is asked for. */
#pragma once
#include <stddef.h>

struct err;
struct strv;

struct image_entry {
	char *uri, *path; /* path: absolute; a directory, an archive, or an OCI layout */
	char *env_file; /* NULL: none */
};

struct image_map {
	struct image_entry *entries;
	size_t n_entries;
};

int image_map_read(const char *path, struct image_map *ret_map, struct err *err);
void image_map_done(struct image_map *map);

/* The entry of the URI itself, or of what stands before its '#': then *ret_tag (borrowed from uri) is
 * what stands behind, else NULL. NULL: there is none. */
const struct image_entry *image_map_find(
	const struct image_map *map, const char *uri, const char **ret_tag);

/* NAME=value, one a line, appended. */
int image_env_read(const char *path, struct strv *ret_env, struct err *err);

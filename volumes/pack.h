/* pack.h - trees become archives. One thread, beside the encoder's. */
#pragma once
#include "volumes/codec.h"

struct err;

/* Writes a tar archive of what path leads to in the tree that root_fd is the root of (links stay in
 * it): a directory as "./", "./a", "./d/"; anything else as one entry of path's last name.
 *
 * The archive is of one moment for no file: what vanishes is left out, what shrinks is filled with
 * zeros, what grows is cut. Left out too: sockets, whiteouts, attributes that xattr_is_kept does not
 * know. -errno with ERR_NOT_FOUND: path leads nowhere, and nothing was written. */
struct pack_spec {
	enum codec codec;
	unsigned n_threads;
	int root_fd, archive_fd;
	const char *path;
	const char *
		name; /* NULL, or what entries begin with in place of ".": a link at the end of path
			   * is then one entry, as it stands */
};
int pack(const struct pack_spec *spec, struct err *err);

/* unpack.h - archives become trees. For a process that is confined to the tree (confine.h): every
 * byte of the archive is hostile. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

struct err;

/* A layer of an OCI image is gone through twice: what it takes away of those below it must not take
 * what itself brings. ".wh.NAME" takes NAME away, ".wh..wh..opq" all that its directory has. */
enum unpack_layer {
	UNPACK_ALL, /* such names are names like others */
	UNPACK_WHITEOUTS, /* only what is to be taken away; path "" */
	UNPACK_CONTENT, /* the rest; what stands in the way goes, whatever is in it */
};

/* Reads a tar archive (ustar, pax, GNU; numeric owners only) from archive_fd to its end and makes
 * what is in it below path, in the tree that root_fd is the root of (descriptor and links of "/"
 * alike). codec: see decoder_open. Missing directories of path are made, 0755.
 *
 * Refused: "..", a root that is no directory, an archive without an end. Passed over: devices,
 * attributes that xattr_is_kept does not know. What was made before a failure stays. *ret_n_skipped
 * counts devices. -errno with ERR_BAD_REQUEST: the archive's fault, other kinds: not. */
struct unpack_spec {
	int codec, archive_fd, root_fd;
	const char *path;
	enum unpack_layer layer;
	const struct unpack_owner *owner; /* NULL: as the archive has it */
};

/* Whose all that is unpacked becomes, by a process that is that user: what the archive says of owners
 * does not matter, modes are without umask, and path is taken as it stands, from "/" on. */
struct unpack_owner {
	uid_t uid;
	gid_t gid;
	mode_t umask;
	bool sets_caps; /* security.capability is kept */
	/* Called when path is there and before the first byte is read. 0, or -errno and err set. */
	int (*settle)(void *arg, struct err *err);
	void *arg;
};
/* Loads what unpack needs, which who is confined no longer can. */
int unpack_load(struct err *err);
int unpack(const struct unpack_spec *spec, unsigned long *ret_n_skipped, struct err *err);

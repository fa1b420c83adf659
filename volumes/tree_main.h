/* tree_main.h - "cloche tree": a helper process that does one thing with one tree of files, and can
 * do nothing else. The server starts it with descriptors 0 to 3.
 *
 *     cloche tree OPERATION key=value...
 *
 * 0: stream in, 1: stream out, 2: a line of text if it fails, 3: the store, a directory. The tree,
 * by names below the store that follow no link:
 *     tree=NAME                                a directory
 *     lower=NAME:NAME... [upper=NAME work=NAME]  an overlay, top first; to be read only without upper
 * Operations:
 *     in   encoding=raw|gzip|zstd|s2|auto path=P        unpack (unpack.h)
 *          [layer=whiteouts|content]                    one of an OCI image, in two rounds
 *     out  encoding=raw|gzip|zstd|s2 path=P [threads=N] pack (pack.h)
 *     copy from=NAME|/PATH [follow]                   copy into the empty tree (copy.h)
 *     chown uid=N gid=N                                 every entry (census.h)
 *     size                                              prints "BYTES NAMES", see census.h
 *     try                                               an overlay, see trial.h
 * in and out also do it to the files of a container, as one of its users:
 *     view=UID:GID[:GROUP...] caps=MASK [userns] [name=NAME]
 * 3 is its root then, 4 its user namespace if "userns" says so; view.h, unpack_owner, pack's name.
 * Confined before the first byte is read: see confine.h. */
#pragma once

enum tree_exit { TREE_DONE, TREE_BAD_ARCHIVE, TREE_NO_PATH, TREE_FAILED };

/* What it says on descriptor 2, if asked by the argument "ready", when it is in its tree: the names
 * below the store do not matter any more. */
#define TREE_READY "ready\n"

/* Returns an enum tree_exit. argv[0] is "tree". */
int tree_main(int argc, char **argv);

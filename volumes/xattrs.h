/* xattrs.h - which extended attributes travel with a file. */
#pragma once
#include <stdbool.h>

/* What containers use: file capabilities, POSIX ACLs and user.*; not what means something to an
 * overlay above (user.overlay.*), and nothing else. */
bool xattr_is_kept(const char *name);

/* Set when everything in a directory is made: what is made later would inherit it. */
#define XATTR_DEFAULT_ACL "system.posix_acl_default"

/* Sets all that `from` has on `to` (descriptors of open files), those that are kept or, with all,
 * every one. What the file system of `to` does not know is left out. 0 or -errno. */
int xattrs_copy(int from_fd, int to_fd, bool all);

/* Every attribute of a file that cannot be opened (a link, a fifo, a device), by its name in two
 * directories. Changes the working directory. */
int xattrs_copy_node(int from_dir_fd, int to_dir_fd, const char *file);

/* child_rights.h - what init and processes with a root of their own become before they are of the
 * container. System calls only (tests/lint/child.allow). 0 or -errno. */
#pragma once
#include <stdint.h>

/* Soft limits as programs expect them, whatever the shim has. */
int rights_limit_files(void);
/* Cloned by the host's root: from now on the container's, whose files it may make. */
int rights_become_root(void);
/* Loaded, and seen to be in force (2 is filter mode); without bytes there is none. Needs
 * CAP_SYS_ADMIN in the user namespace. */
int rights_load_filter(const void *filter, uint32_t n_bytes);

/* caps.h - capability sets as 64-bit masks (capabilities(7)): bit n is capability n.
 * The names come from libcap in the server; the child applies numbers with bare system calls. */
#pragma once
#include <stdint.h>

/* The fourteen that container runtimes give to root of an unprivileged container: 0xa80425fb. */
#define CAPS_DEFAULT UINT64_C(0xa80425fb)
/* The bounding set of other users in a privileged container: the fourteen and CAP_SYS_ADMIN. */
#define CAPS_PRIVILEGED_USER UINT64_C(0xa82425fb)

/* The bounding set of this process. */
uint64_t caps_bounding(void);

/* For child code: 0 or -errno. caps_limit drops from the bounding set what is not in mask and
 * clears the ambient set. caps_set makes permitted and effective mask, inheritable empty. */
int caps_limit(uint64_t mask);
int caps_set(uint64_t mask);

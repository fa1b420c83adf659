/* auto.h - ownership that shows in the declaration: AUTO_* releases at the end of the scope,
 * TAKE_* hands over. See style.md 5. None of these change errno. */
#pragma once
#include <stddef.h>

#define AUTO(fn) __attribute__((cleanup(fn)))
#define AUTO_FD AUTO(auto_fd)
#define AUTO_FREE AUTO(auto_free)

#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int taken_ = (fd);                                                                 \
		(fd) = -1;                                                                         \
		taken_;                                                                            \
	})
#define TAKE_PTR(p)                                                                                \
	({                                                                                         \
		__auto_type taken_ = (p);                                                          \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})
#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* Closes *fd once if it is >= 0 (never retried: see close(2), EINTR) and sets it to -1. */
void auto_fd(int *fd);

/* Frees the pointer that lies at slot. */
void auto_free(void *slot);

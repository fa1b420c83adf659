/* memfd.h - a copy of some bytes in a file without a name (memfd_create(2)). Thread-safe. */
#pragma once
#include <stddef.h>

/* A new descriptor, close-on-exec, that holds a copy of data; name is for /proc only. Or -errno. */
int memfd_of(const char *name, const void *data, size_t n_bytes);

/* Against every change of content and size for ever (fcntl(2), F_ADD_SEALS). 0 or -errno. */
int memfd_seal(int fd);

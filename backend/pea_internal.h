/* pea_internal.h - what the beginning (pea.c) and the end (pea_end.c) of a pea have in common. Threads: any. */
#pragma once
#include <stdint.h>

#include "container.h"

struct backend;

#define PEA_USER_SIZE (CONTAINER_ID_SIZE + 16)

/* Who its volumes are attached to. */
void pea_user_name(const char *container, uint32_t token, char ret_name[PEA_USER_SIZE]);
/* The directory of its layer; the caller frees it. NULL: no memory. */
char *pea_layer_path(const struct backend *backend, const char *container, uint32_t token);

/* Undoes what was made of it: now, so that who was told of the failure can try again at once; if that cannot be, soon. */
void pea_clean(struct backend *backend, const char *container, uint32_t token);

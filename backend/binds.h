/* binds.h - bind mounts before they are made: volumes are attached, the rest is looked at. */
#pragma once
#include <stddef.h>

struct backend;
struct bind_mount;
struct err;
struct volume_mount;

/* user: who the volumes are attached to, see volume_attach. *mounts has as many places as there are
 * bind mounts, empty at first; those that are no volumes stay empty. */
int binds_attach(struct backend *backend, const char *user, const struct bind_mount *binds,
	size_t n_binds, struct volume_mount *mounts, struct err *err);
void binds_done(struct volume_mount *take_mounts, size_t n_binds);

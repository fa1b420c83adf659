#include "binds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend_internal.h"
#include "base/err.h"
#include "spec.h"
#include "volumes/volumes.h"

static int attach(struct backend *backend, const char *user, const struct bind_mount *binds,
	size_t n_binds, struct volume_mount *mounts, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < n_binds && r >= 0; i++) {
		if (binds[i].from_container)
			continue;
		r = volume_attach(backend->volumes, binds[i].src, user,
			binds[i].read_write ? ATTACH_WRITABLE : 0, &mounts[i], err);
		if (r < 0)
			err_context(err, r, "bind_mounts[%zu].src_path", i);
	}
	return r < 0 ? r : 0;
}

static int check(const struct bind_mount *binds, size_t n_binds, const struct volume_mount *mounts,
	struct err *err)
{
	for (size_t i = 0; i < n_binds; i++) {
		const struct bind_mount *bind = &binds[i];
		struct stat st;

		if (bind->src[0] != '/' || bind->dst[0] != '/')
			return err_set(err, ERR_INVALID, EINVAL,
				"bind_mounts[%zu]: src_path and dst_path must be absolute", i);
		if (bind->dst[strspn(bind->dst, "/.")] == '\0')
			return err_set(err, ERR_INVALID, EINVAL,
				"bind_mounts[%zu].dst_path: the root cannot be covered", i);
		if (!bind->from_container && !mounts[i].layers.n_items && stat(bind->src, &st) < 0)
			return err_system(
				err, -errno, "bind_mounts[%zu].src_path %.300s", i, bind->src);
	}
	return 0;
}

int binds_attach(struct backend *backend, const char *user, const struct bind_mount *binds,
	size_t n_binds, struct volume_mount *mounts, struct err *err)
{
	int r = attach(backend, user, binds, n_binds, mounts, err);

	return r < 0 ? r : check(binds, n_binds, mounts, err);
}

void binds_done(struct volume_mount *take_mounts, size_t n_binds)
{
	for (size_t i = 0; take_mounts && i < n_binds; i++)
		volume_mount_done(&take_mounts[i]);
	free(take_mounts);
}

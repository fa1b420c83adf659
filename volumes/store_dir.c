/* The directory of the store. What volumes hold was made by containers: set-uid programs and device
 * nodes are real for whoever reaches them by a path of the host. So nobody but root passes its mode,
 * and the server itself works in a mount of its own on it, nosuid and nodev, that hangs nowhere and
 * ends with the process: there is nothing to unmount, and nothing stale after a kill. Helpers and
 * builders clone their trees from the host's path, with flags of their own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/log.h"
#include "linux/sys.h"
#include "volumes/volumes_internal.h"

#define STORE_MODE 0700

/* Who owns it can let others in at any time. A mode can be mended: other workers made it wider. */
static int close_to_others(int fd, const char *dir, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_system(err, -errno, "stat %s", dir);
	if (!GUARD(STORE_MODE))
		return 0;
	if (st.st_uid != geteuid())
		return err_set(err, ERR_SYSTEM, EPERM,
			"%s: belongs to user %u, who could open it to others: expected user %u",
			dir, st.st_uid, geteuid());
	if ((st.st_mode & 07777) == STORE_MODE)
		return 0;
	if (fchmod(fd, STORE_MODE) < 0)
		return err_system(err, -errno, "chmod 0700 %s", dir);
	LOG(LOG_WARN, "store-was-open", KV_STR("dir", dir), KV_INT("mode", st.st_mode & 07777));
	return 0;
}

/* -errno: mounts cannot be made here. */
static int mount_for_us(int host_fd)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
	AUTO_FD int tree_fd = sys_open_tree(host_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
	int r = tree_fd;

	if (r >= 0 && GUARD(STORE_FLAGS))
		r = sys_mount_setattr(tree_fd, 0, &attr);
	return r < 0 ? r : sys_open_at(tree_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
}

static int make_dirs(struct volumes *volumes, struct err *err)
{
	static const char *const names[] = { "init", "live", "dead", "doomed", "layers" };

	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		if (mkdirat(volumes->dir_fd, names[i], STORE_MODE) < 0 && errno != EEXIST)
			return err_system(err, -errno, "mkdir %s/%s", volumes->dir, names[i]);
	volumes->dead_fd = sys_open_beneath(volumes->dir_fd, "dead", O_RDONLY | O_DIRECTORY, 0);
	return volumes->dead_fd < 0 ? err_system(err, volumes->dead_fd, "open dead/") : 0;
}

int store_dir_open(struct volumes *volumes, struct err *err)
{
	int r;

	if (mkdir(volumes->dir, STORE_MODE) < 0 && errno != EEXIST)
		return err_system(err, -errno, "mkdir %s", volumes->dir);
	volumes->host_fd = sys_open_at(AT_FDCWD, volumes->dir, O_RDONLY | O_DIRECTORY, 0, 0);
	if (volumes->host_fd < 0)
		return err_system(err, volumes->host_fd, "open %s", volumes->dir);
	r = close_to_others(volumes->host_fd, volumes->dir, err);
	if (r < 0)
		return r;
	volumes->dir_fd = mount_for_us(volumes->host_fd);
	if (volumes->dir_fd < 0) {
		LOG(LOG_WARN, "store-not-nosuid", KV_STR("dir", volumes->dir),
			KV_INT("errno", -volumes->dir_fd));
		volumes->dir_fd = fcntl(volumes->host_fd, F_DUPFD_CLOEXEC, 3);
	}
	return volumes->dir_fd < 0 ? err_system(err, -errno, "open %s", volumes->dir)
				   : make_dirs(volumes, err);
}

void store_dir_close(struct volumes *volumes)
{
	auto_fd(&volumes->dead_fd);
	auto_fd(&volumes->dir_fd);
	auto_fd(&volumes->host_fd);
}

#include "linux/btrfs.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

bool btrfs_is_at(int dir_fd)
{
	struct statfs st;

	return fstatfs(dir_fd, &st) == 0 && (unsigned long)st.f_type == BTRFS_SUPER_MAGIC;
}

/* What the three requests that name a subvolume have in common. */
static int request(int dir_fd, unsigned long number, const char *name, int from_fd)
{
	struct btrfs_ioctl_vol_args_v2 args = { .fd = from_fd };
	size_t len = strlen(name);

	if (len >= sizeof(args.name))
		return -ENAMETOOLONG;
	memcpy(args.name, name, len + 1);
	return ioctl(dir_fd, number, &args) < 0 ? -errno : 0;
}

int btrfs_subvolume_create(int dir_fd, const char *name)
{
	return request(dir_fd, BTRFS_IOC_SUBVOL_CREATE_V2, name, 0);
}

int btrfs_snapshot(int dir_fd, const char *name, int from_fd)
{
	return request(dir_fd, BTRFS_IOC_SNAP_CREATE_V2, name, from_fd);
}

int btrfs_subvolume_destroy(int dir_fd, const char *name)
{
	return request(dir_fd, BTRFS_IOC_SNAP_DESTROY_V2, name, 0);
}

/* -EOVERFLOW means that there are more than one answer holds. */
int btrfs_has_nested(int fd)
{
	struct btrfs_ioctl_get_subvol_rootref_args args = { 0 };

	if (ioctl(fd, BTRFS_IOC_GET_SUBVOL_ROOTREF, &args) < 0)
		return errno == EOVERFLOW ? 1 : -errno;
	return args.num_items > 0;
}

void btrfs_make_writable(int fd)
{
	uint64_t flags;

	if (ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) < 0 || !(flags & BTRFS_SUBVOL_RDONLY))
		return;
	flags &= ~(uint64_t)BTRFS_SUBVOL_RDONLY;
	ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &flags);
}

#include "linux/quota.h"

#include <errno.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK_BYTES 1024 /* of limits, quotactl(2) */

static int quotactl_fd(int fd, unsigned command, uint32_t project, void *data)
{
	return syscall(SYS_quotactl_fd, fd, QCMD(command, PRJQUOTA), project, data) < 0 ? -errno
											: 0;
}

int quota_probe(int fs_fd)
{
	struct fs_quota_stat state = { 0 };
	int r = quotactl_fd(fs_fd, Q_XGETQSTAT, 0, &state);

	if (r < 0)
		return r;
	return state.qs_flags & FS_QUOTA_PDQ_ENFD ? 0 : -ESRCH;
}

int quota_assign(int dir_fd, uint32_t project)
{
	struct fsxattr attr;

	if (ioctl(dir_fd, FS_IOC_FSGETXATTR, &attr) < 0)
		return -errno;
	attr.fsx_projid = project;
	attr.fsx_xflags |= FS_XFLAG_PROJINHERIT;
	return ioctl(dir_fd, FS_IOC_FSSETXATTR, &attr) < 0 ? -errno : 0;
}

int quota_project(int dir_fd, uint32_t *ret_project)
{
	struct fsxattr attr;

	if (ioctl(dir_fd, FS_IOC_FSGETXATTR, &attr) < 0)
		return -errno;
	*ret_project = attr.fsx_projid;
	return 0;
}

int quota_look(int fs_fd, uint32_t project, struct usage *ret, bool *ret_is_limited)
{
	struct if_dqblk block = { 0 };
	int r = quotactl_fd(fs_fd, Q_GETQUOTA, project, &block);

	if (r < 0)
		return r;
	*ret = (struct usage){ block.dqb_curspace, block.dqb_curinodes };
	*ret_is_limited = block.dqb_bhardlimit || block.dqb_bsoftlimit || block.dqb_ihardlimit ||
		block.dqb_isoftlimit;
	return 0;
}

static uint64_t blocks(uint64_t n_bytes)
{
	return n_bytes / BLOCK_BYTES + (n_bytes % BLOCK_BYTES != 0);
}

int quota_limit(int fs_fd, uint32_t project, const struct quota *quota)
{
	struct if_dqblk block = { .dqb_bsoftlimit = blocks(quota->soft_bytes),
		.dqb_bhardlimit = blocks(quota->hard_bytes),
		.dqb_isoftlimit = quota->soft_names,
		.dqb_ihardlimit = quota->hard_names,
		.dqb_valid = QIF_LIMITS };

	return quotactl_fd(fs_fd, Q_SETQUOTA, project, &block);
}

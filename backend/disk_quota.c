#include "disk_quota.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "container.h"
#include "disk_usage.h"
#include "linux/quota.h"
#include "linux/sys.h"
#include "resource_limits.h"

#define SCOPE_TOTAL 0
/* A range that is not used by hand: administrators begin with 1. */
#define FIRST_PROJECT 0x40000000u
#define N_PROJECTS 0x40000000u
#define MAX_TRIES 1000

void disk_quota_open(struct backend *backend)
{
	AUTO_FD int fd = sys_open_at(AT_FDCWD, backend->live_dir, O_RDONLY | O_DIRECTORY, 0, 0);
	int r = fd < 0 ? fd : quota_probe(fd);

	backend->has_disk_quota = r == 0;
	if (r < 0)
		LOG(LOG_DEBUG, "no-disk-quota", KV_STR("directory", backend->live_dir),
			KV_INT("errno", r));
}

static bool limits_disk(const struct limits *limits)
{
	return limits->disk_bytes_hard || limits->disk_bytes_soft || limits->disk_inodes_hard ||
		limits->disk_inodes_soft;
}

int disk_quota_check(const struct backend *backend, const struct limits *limits, struct err *err)
{
	if (!limits_disk(limits) || backend->has_disk_quota)
		return 0;
	return err_set(err, ERR_UNSUPPORTED, EOPNOTSUPP,
		"limits.disk_limits: the file system of %.150s keeps no project quotas: it must be "
		"ext4 or xfs, mounted with prjquota",
		backend->config.work_dir);
}

/* 1: it has the project alone. */
static int try_project(int dir_fd, uint32_t project)
{
	struct usage usage;
	bool is_limited;
	int r = quota_assign(dir_fd, project);

	if (r == 0)
		r = quota_look(dir_fd, project, &usage, &is_limited);
	return r < 0 ? r : usage.n_names == 1 && !is_limited;
}

int disk_quota_claim(struct container *container, int dir_fd)
{
	uint64_t number = 0;
	int r = 0;

	if (!container->backend->has_disk_quota)
		return 0;
	for (const char *at = container->id; *at; at++) /* which is random */
		number = number * 31 + (unsigned char)*at;
	for (int tries = 0; r == 0 && tries < MAX_TRIES; tries++) {
		container->project = FIRST_PROJECT + (uint32_t)((number + tries) % N_PROJECTS);
		r = try_project(dir_fd, container->project);
	}
	return r == 1 ? 0 : r < 0 ? r : -EUSERS;
}

static int open_dir(const struct backend *backend, const char *dir)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", backend->live_dir, dir) < 0)
		return -ENOMEM;
	return sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0);
}

static uint32_t project_of(int dir_fd)
{
	uint32_t project;

	return dir_fd >= 0 && quota_project(dir_fd, &project) == 0 &&
			project - FIRST_PROJECT < N_PROJECTS
		? project
		: 0;
}

void disk_quota_adopt(struct container *container)
{
	AUTO_FD int fd = -1;

	if (!container->backend->has_disk_quota)
		return;
	fd = open_dir(container->backend, container->id);
	container->project = project_of(fd);
}

/* What the image takes of a limit, and what is there now in addition to it. */
static int room(uint64_t limit, uint64_t image, uint64_t used, const char *field, uint64_t *ret,
	struct err *err)
{
	*ret = 0;
	if (!limit)
		return 0;
	if (limit <= image)
		return err_set(err, ERR_INVALID, EDQUOT,
			"limits.disk_limits.%s: the image alone takes %llu", field,
			(unsigned long long)image);
	*ret = limit - image > UINT64_MAX / 2 ? 0 : limit - image + used;
	return 0;
}

static int decide(const struct limits *limits, const struct usage *image, const struct usage *used,
	struct quota *ret, struct err *err)
{
	int r = room(limits->disk_bytes_hard, image->n_bytes, used->n_bytes, "byte_hard",
		&ret->hard_bytes, err);

	if (r == 0)
		r = room(limits->disk_bytes_soft, image->n_bytes, used->n_bytes, "byte_soft",
			&ret->soft_bytes, err);
	if (r == 0)
		r = room(limits->disk_inodes_hard, image->n_names, used->n_names, "inode_hard",
			&ret->hard_names, err);
	if (r == 0)
		r = room(limits->disk_inodes_soft, image->n_names, used->n_names, "inode_soft",
			&ret->soft_names, err);
	return r;
}

static int apply(struct container *container, const struct usage *image, struct err *err)
{
	AUTO_FD int fd = open_dir(container->backend, container->id);
	struct usage used;
	struct quota quota;
	bool is_limited;
	int r = fd < 0 ? fd : quota_look(fd, container->project, &used, &is_limited);

	if (r < 0)
		return err_system(err, r, "limits.disk_limits");
	r = decide(&container->limits, image, &used, &quota, err);
	if (r < 0)
		return r;
	r = quota_limit(fd, container->project, &quota);
	return r < 0
		? err_system(err, r, "limits.disk_limits: quota of project %u", container->project)
		: 0;
}

int disk_quota_apply(struct container *container, const struct rootfs *rootfs, struct err *err)
{
	struct usage image = { 0 };
	int r = 0;

	if (!limits_disk(&container->limits))
		return 0;
	if (!rootfs->lower)
		return err_set(err, ERR_UNSUPPORTED, EOPNOTSUPP,
			"limits.disk_limits: the root is used in place, and others may write it");
	if (!container->project)
		return err_set(err, ERR_UNSUPPORTED, EOPNOTSUPP,
			"limits.disk_limits: the container's directory is no project");
	if (container->limits.disk_scope == SCOPE_TOTAL)
		r = disk_usage_of_image(container->backend, rootfs->lower, &image);
	return r < 0 ? err_system(err, r, "size of %.200s", rootfs->lower)
		     : apply(container, &image, err);
}

void disk_quota_end(const struct backend *backend, const char *dir)
{
	AUTO_FD int fd = backend->has_disk_quota ? open_dir(backend, dir) : -1;
	uint32_t project = project_of(fd);
	int r = project ? quota_limit(fd, project, &(struct quota){ 0 }) : 0;

	if (r < 0)
		LOG(LOG_WARN, "quota-not-removed", KV_INT("project", project), KV_INT("errno", r));
}

bool disk_quota_usage(const struct container *container, struct usage *ret)
{
	AUTO_FD int fd = -1;
	bool is_limited;

	if (!container->project)
		return false;
	fd = open_dir(container->backend, container->id);
	return fd >= 0 && quota_look(fd, container->project, ret, &is_limited) == 0;
}

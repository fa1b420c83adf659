/* disk_quota.h - limits on what containers write, by project quotas of the work directory's file system.
 * Where it has them each container's directory is a project of its own, so that its use is known without
 * a walk; where it has not, limits on disks are refused, and the use is counted (disk_usage.h). The
 * project is a mark of the directory: nobody records it. What lies in volumes is not the container's.
 * Threads: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct backend;
struct container;
struct err;
struct limits;
struct rootfs;
struct usage;

/* At start: whether there are any. */
void disk_quota_open(struct backend *backend);

/* Before anything is made: whether such limits can be kept. */
int disk_quota_check(const struct backend *backend, const struct limits *limits, struct err *err);
/* The container's new, empty directory becomes a project. Nothing where there are none. */
int disk_quota_claim(struct container *container, int dir_fd);
/* Its directory of before is one. */
void disk_quota_adopt(struct container *container);
/* What its limits allow to be written beside what is there now. Nothing of a user runs in it yet. */
int disk_quota_apply(struct container *container, const struct rootfs *rootfs, struct err *err);
/* Its number is free once its files are gone. A directory that is no project, or that is not there, is
 * passed over. */
void disk_quota_end(const struct backend *backend, const char *dir);

/* True: *ret is what the container's directory takes, exactly. */
bool disk_quota_usage(const struct container *container, struct usage *ret);

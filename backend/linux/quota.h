/* quota.h - project quotas (quotactl(2)): a number that a directory has, and everything that is made in
 * it from then on. ext4 and xfs count and limit by it when they are mounted with prjquota. Any descriptor
 * of the file system will do as fs_fd. 0 or -errno. Threads: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "linux/usage.h"

struct quota {
	uint64_t soft_bytes, hard_bytes; /* 0: no limit; rounded up to 1,024 */
	uint64_t soft_names, hard_names;
};

/* 0 if the file system enforces project quotas. */
int quota_probe(int fs_fd);
/* Of a directory, and of what is made in it. */
int quota_assign(int dir_fd, uint32_t project);
int quota_project(int dir_fd, uint32_t *ret_project); /* 0: none */
/* What it takes, and whether it has limits. */
int quota_look(int fs_fd, uint32_t project, struct usage *ret, bool *ret_is_limited);
int quota_limit(int fs_fd, uint32_t project, const struct quota *quota);

/* disk_usage.h - what containers and their images take on disk. The file system knows it of containers
 * where it keeps quotas (disk_quota.h). Other trees are walked when somebody asks, and a result is used again for twenty times as long as it took to get: asking often costs a
 * twentieth of a processor at most. Threads: any. */
#pragma once

struct backend;
struct container;
struct err;
struct metrics;
struct usage;

int disk_usage_open(struct backend *backend);
void disk_usage_close(struct backend *backend);

/* Fills the numbers of disk. */
int disk_usage(struct container *container, struct metrics *ret, struct err *err);
int disk_usage_of_tree(const struct backend *backend, int dir_fd, struct usage *ret);
/* lower: its directory. What is not there takes nothing. 0 or -errno. */
int disk_usage_of_image(struct backend *backend, const char *lower, struct usage *ret);

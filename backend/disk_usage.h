/* disk_usage.h - what containers and their images take on disk. Trees are walked when somebody asks,
 * and a result is used again for twenty times as long as it took to get: asking often costs a
 * twentieth of a processor at most. Threads: any. */
#pragma once

struct backend;
struct container;
struct err;
struct metrics;

int disk_usage_open(struct backend *backend);
void disk_usage_close(struct backend *backend);

/* Fills the numbers of disk. */
int disk_usage(struct container *container, struct metrics *ret, struct err *err);

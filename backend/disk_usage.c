#include "disk_usage.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/registry.h"
#include "container.h"
#include "disk_quota.h"
#include "linux/spawn.h"
#include "linux/sys.h"
#include "linux/usage.h"
#include "metrics.h"

/* The server walks small trees itself, in a few milliseconds; a larger one is a helper's work. */
#define MAX_NAMES 20000
#define REST_FACTOR 20

/* ---- one tree -------------------------------------------------------------------------------- */

/* "BYTES NAMES\n" */
static int parse_size(char *text, struct usage *ret)
{
	char *names = text, *bytes = strsep(&names, " ");

	if (!names)
		return -EPROTO;
	names[strcspn(names, "\n")] = '\0';
	return parse_u64(bytes, UINT64_MAX, &ret->n_bytes) < 0 ||
			parse_u64(names, UINT64_MAX, &ret->n_names) < 0
		? -EPROTO
		: 0;
}

static int count_by_helper(const struct backend *backend, int dir_fd, struct usage *ret)
{
	const char *argv[] = { "cloche", "tree", "size", "tree=.", NULL };
	struct spawn spawn = { .exe_fd = backend->config.self_exe_fd,
		.argv = argv,
		.stdin_fd = -1,
		.stderr_fd = -1,
		.extra_fd = dir_fd };
	int ends[2], status, r = 0;
	AUTO_FD int answer_fd = -1;
	char text[64];
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	answer_fd = ends[0];
	spawn.stdout_fd = ends[1];
	pid = spawn_program(&spawn);
	close(ends[1]);
	if (pid < 0)
		return pid;
	while (len < sizeof(text) - 1 &&
		(n = TEMP_FAILURE_RETRY(read(answer_fd, text + len, sizeof(text) - 1 - len))) > 0)
		len += (size_t)n;
	text[len] = '\0';
	while (waitpid(pid, &status, 0) < 0 && r == 0)
		r = errno == EINTR ? 0 : -errno;
	if (r == 0 && (!WIFEXITED(status) || WEXITSTATUS(status)))
		r = -ECHILD;
	return r < 0 ? r : parse_size(text, ret);
}

int disk_usage_of_tree(const struct backend *backend, int dir_fd, struct usage *ret)
{
	int r = usage_count(dir_fd, MAX_NAMES, ret);

	return r == -E2BIG ? count_by_helper(backend, dir_fd, ret) : r;
}

/* ---- images: they do not change -------------------------------------------------------------- */

int disk_usage_open(struct backend *backend)
{
	pthread_mutex_init(&backend->image_lock, NULL);
	backend->image_sizes = registry_new();
	return backend->image_sizes ? 0 : -ENOMEM;
}

static int free_size(const char *path, void *value, void *arg)
{
	(void)path;
	(void)arg;
	free(value);
	return 0;
}

void disk_usage_close(struct backend *backend)
{
	registry_each(backend->image_sizes, free_size, NULL);
	registry_free(backend->image_sizes);
	pthread_mutex_destroy(&backend->image_lock);
}

/* One that is not where it was is nothing: the container does well without. */
static int count_image_now(struct backend *backend, const char *lower, struct usage *ret)
{
	AUTO_FD int fd = sys_open_at(AT_FDCWD, lower, O_RDONLY | O_DIRECTORY, 0, 0);
	AUTO_FREE struct usage *copy = malloc(sizeof(*copy));
	int r = fd < 0 ? fd : copy ? disk_usage_of_tree(backend, fd, ret) : -ENOMEM;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*copy = *ret;
	if (registry_add(backend->image_sizes, lower, copy) == 0)
		(void)TAKE_PTR(copy);
	return 0;
}

int disk_usage_of_image(struct backend *backend, const char *lower, struct usage *ret)
{
	const struct usage *known;
	int r = 0;

	*ret = (struct usage){ 0 };
	pthread_mutex_lock(&backend->image_lock);
	known = registry_find(backend->image_sizes, lower);
	if (known)
		*ret = *known;
	else
		r = count_image_now(backend, lower, ret);
	pthread_mutex_unlock(&backend->image_lock);
	return r;
}

/* ---- containers ------------------------------------------------------------------------------ */

/* Where a container writes: its own layer, or the volume or directory that is its root. */
static int open_own(const struct container *container, bool is_copy)
{
	AUTO_FREE char *path = NULL;

	if (!is_copy)
		return sys_open_at(container->root_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
	if (asprintf(&path, "%s/%s/upper", container->backend->live_dir, container->id) < 0)
		return -ENOMEM;
	return sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0);
}

/* Lock of the disk held. */
static int count_own(struct container *container, bool is_copy, struct usage *ret)
{
	struct disk_cache *cache = &container->disk;
	int64_t start_ms = clock_ms();
	AUTO_FD int fd = -1;
	int r;

	if (cache->is_valid && start_ms < cache->until_ms) {
		*ret = cache->usage;
		return 0;
	}
	r = fd = open_own(container, is_copy);
	if (r >= 0 && is_copy)
		r = disk_usage_of_tree(container->backend, fd, ret);
	else if (r >= 0) /* the helper could not enter what is mounted in another namespace */
		r = usage_count(fd, UINT64_MAX, ret);
	if (r < 0)
		return r;
	cache->usage = *ret;
	cache->is_valid = true;
	cache->until_ms = clock_ms() + (clock_ms() - start_ms) * REST_FACTOR;
	return 0;
}

int disk_usage(struct container *container, struct metrics *ret, struct err *err)
{
	bool is_copy = container->root_uri && strncmp(container->root_uri, "raw://", 6);
	struct usage own = { 0 }, image = { 0 };
	int r;

	if (is_copy && disk_quota_usage(container, &own)) {
		r = 0;
	} else {
		pthread_mutex_lock(&container->disk.lock);
		r = count_own(container, is_copy, &own);
		pthread_mutex_unlock(&container->disk.lock);
	}
	if (r == 0 && container->lower)
		r = disk_usage_of_image(container->backend, container->lower, &image);
	if (r < 0)
		return err_system(err, r, "disk usage of %.200s", container->handle);
	metrics_set_disk(ret, &own, &image);
	return 0;
}

#include "volumes/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/sys.h"

/* So many levels at most are open; those above are found again from the base when they are needed. */
#define N_OPEN 256

struct place_level {
	size_t path_bytes; /* of the whole path down to here */
	int fd; /* -1: closed again */
};

int place_init(struct place *place, int root_fd, const char *base)
{
	*place = (struct place){ .root_fd = root_fd, .base = base };
	place->base_fd = sys_open_in_root(root_fd, *base ? base : ".", O_RDONLY | O_DIRECTORY, 0);
	return place->base_fd < 0 ? place->base_fd : 0;
}

static void leave_to(struct place *place, size_t n_levels)
{
	while (place->n_levels > n_levels)
		auto_fd(&place->levels[--place->n_levels].fd);
	place->path_bytes = n_levels ? place->levels[n_levels - 1].path_bytes : 0;
}

void place_reset(struct place *place)
{
	leave_to(place, 0);
}

void place_done(struct place *place)
{
	leave_to(place, 0);
	auto_fd(&place->base_fd);
	free(place->path);
	free(place->levels);
	*place = (struct place){ .base_fd = -1 };
}

static int make_room(struct place *place, size_t path_bytes)
{
	size_t size = place->path_size ? place->path_size : 256;
	void *space;

	if (place->n_levels == place->n_space) {
		size_t n = place->n_space ? 2 * place->n_space : 32;

		space = reallocarray(place->levels, n, sizeof(*place->levels));
		if (!space)
			return -ENOMEM;
		place->levels = space;
		place->n_space = n;
	}
	while (size < path_bytes)
		size *= 2;
	if (size > place->path_size) {
		space = realloc(place->path, size);
		if (!space)
			return -ENOMEM;
		place->path = space;
		place->path_size = size;
	}
	return 0;
}

/* How many levels of what is open lead to path as well. */
static size_t n_common(const struct place *place, const char *path, size_t n_bytes)
{
	size_t low = 0, high = place->n_levels, same = 0;

	while (same < n_bytes && same < place->path_bytes && path[same] == place->path[same])
		same++;
	while (low < high) {
		size_t middle = low + (high - low) / 2, end = place->levels[middle].path_bytes;

		if (end <= same && (end == n_bytes || path[end] == '/'))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* name is a link or is no directory. What a link means is known from the root on only; beyond
 * PATH_MAX no link is followed. */
static int follow(struct place *place, const char *path, size_t n_bytes)
{
	AUTO_FREE char *whole = NULL;

	if (n_bytes > PATH_MAX || asprintf(&whole, "%s/%.*s", place->base, (int)n_bytes, path) < 0)
		return n_bytes > PATH_MAX ? -ENAMETOOLONG : -ENOMEM;
	return sys_open_in_root(place->root_fd, whole, O_PATH | O_DIRECTORY, 0);
}

static int open_next(struct place *place, int parent_fd, const char *path, size_t start, size_t end,
	bool make_missing)
{
	char name[256];
	int fd;

	if (end - start >= sizeof(name))
		return -ENAMETOOLONG;
	memcpy(name, path + start, end - start);
	name[end - start] = '\0';
	fd = sys_open_beneath(parent_fd, name, O_PATH | O_DIRECTORY, 0);
	if (fd == -ENOENT && make_missing) {
		if (mkdirat(parent_fd, name, 0755) < 0)
			return -errno;
		fd = sys_open_beneath(parent_fd, name, O_PATH | O_DIRECTORY, 0);
	}
	return fd == -ELOOP || fd == -ENOTDIR ? follow(place, path, end) : fd;
}

static int current_fd(const struct place *place)
{
	return place->n_levels ? place->levels[place->n_levels - 1].fd : place->base_fd;
}

static int descend(struct place *place, const char *path, size_t n_bytes, bool make_missing)
{
	size_t start = place->path_bytes + (place->n_levels ? 1 : 0), end;
	int fd, r;

	while (start < n_bytes) {
		const char *slash = memchr(path + start, '/', n_bytes - start);

		end = slash ? (size_t)(slash - path) : n_bytes;
		r = make_room(place, end);
		if (r < 0)
			return r;
		fd = open_next(place, current_fd(place), path, start, end, make_missing);
		if (fd < 0)
			return fd;
		memcpy(place->path + place->path_bytes, path + place->path_bytes,
			end - place->path_bytes);
		place->path_bytes = end;
		place->levels[place->n_levels++] = (struct place_level){ end, fd };
		if (place->n_levels > N_OPEN)
			auto_fd(&place->levels[place->n_levels - 1 - N_OPEN].fd);
		start = end + 1;
	}
	return current_fd(place);
}

int place_enter(struct place *place, const char *path, size_t n_bytes, bool make_missing)
{
	leave_to(place, n_common(place, path, n_bytes));
	if (place->n_levels && current_fd(place) < 0)
		leave_to(place, 0);
	return descend(place, path, n_bytes, make_missing);
}

#include "image_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "linux/sys.h"
#include "program.h"

#define FILE_CAP_BYTES (4 << 20)
#define MAX_ENTRIES 10000

void image_map_done(struct image_map *map)
{
	for (size_t i = 0; i < map->n_entries; i++) {
		free(map->entries[i].uri);
		free(map->entries[i].path);
		free(map->entries[i].env_file);
	}
	free(map->entries);
	*map = (struct image_map){ 0 };
}

static int read_text(const char *path, char **ret_text, struct err *err)
{
	AUTO_FREE char *text = malloc(FILE_CAP_BYTES);
	ssize_t n = text ? sys_read_small(AT_FDCWD, path, 0, text, FILE_CAP_BYTES) : -ENOMEM;

	if (n < 0)
		return err_system(err, (int)n, "%.300s", path);
	if (strlen(text) != (size_t)n)
		return err_set(err, ERR_INVALID, EINVAL, "%.300s: a NUL in it", path);
	*ret_text = TAKE_PTR(text);
	return 0;
}

static const struct image_entry *find(const struct image_map *map, const char *uri, size_t n_bytes)
{
	for (size_t i = 0; i < map->n_entries; i++)
		if (strlen(map->entries[i].uri) == n_bytes &&
			!memcmp(map->entries[i].uri, uri, n_bytes))
			return &map->entries[i];
	return NULL;
}

const struct image_entry *image_map_find(
	const struct image_map *map, const char *uri, const char **ret_tag)
{
	const struct image_entry *entry = find(map, uri, strlen(uri));
	const char *hash = strchr(uri, '#');

	*ret_tag = NULL;
	if (entry || !hash)
		return entry;
	entry = find(map, uri, hash - uri);
	if (entry)
		*ret_tag = hash + 1;
	return entry;
}

/* 0; what is wrong with the line, else. */
static const char *check_parts(const struct image_map *map, const char *uri, const char *path,
	const char *env, bool is_all)
{
	if (!*uri || !path)
		return "expected URI<TAB>path<TAB>environment file";
	if (*path != '/')
		return "the path is not absolute";
	if (env && *env != '/')
		return "the environment file's path is not absolute";
	if (!is_all)
		return "more than three parts";
	if (find(map, uri, strlen(uri)))
		return "the URI has a line already";
	return map->n_entries == MAX_ENTRIES ? "too many lines" : NULL;
}

static int add(struct image_map *map, const char *uri, const char *path, const char *env)
{
	struct image_entry *more =
		reallocarray(map->entries, map->n_entries + 1, sizeof(*map->entries));

	if (!more)
		return -ENOMEM;
	map->entries = more;
	more += map->n_entries++;
	*more = (struct image_entry){
		.uri = strdup(uri), .path = strdup(path), .env_file = env ? strdup(env) : NULL
	};
	return more->uri && more->path && (!env || more->env_file) ? 0 : -ENOMEM;
}

static int add_line(
	struct image_map *map, char *line, const char *file, size_t number, struct err *err)
{
	char *rest = line, *uri = strsep(&rest, "\t"), *path = strsep(&rest, "\t"),
	     *env = strsep(&rest, "\t");
	const char *wrong;

	if (env && !*env)
		env = NULL;
	wrong = check_parts(map, uri, path, env, !rest);
	if (wrong)
		return err_set(
			err, ERR_INVALID, EINVAL, "%.200s, line %zu: %s", file, number, wrong);
	return add(map, uri, path, env) < 0 ? err_system(err, -ENOMEM, "%.200s", file) : 0;
}

int image_map_read(const char *path, struct image_map *ret_map, struct err *err)
{
	AUTO(image_map_done) struct image_map map = { 0 };
	AUTO_FREE char *text = NULL;
	size_t number = 0;
	char *rest, *line;
	int r = read_text(path, &text, err);

	rest = text;
	while (r == 0 && (line = strsep(&rest, "\n"))) {
		number++;
		if (*line && *line != '#')
			r = add_line(&map, line, path, number, err);
	}
	if (r < 0)
		return r;
	*ret_map = map;
	map = (struct image_map){ 0 };
	return 0;
}

int image_env_read(const char *path, struct strv *ret_env, struct err *err)
{
	AUTO_FREE char *text = NULL;
	char *rest, *line;
	int r = read_text(path, &text, err);

	rest = text;
	while (r == 0 && (line = strsep(&rest, "\n")))
		if (*line && strv_add(ret_env, line) < 0)
			r = err_system(err, -ENOMEM, "%.200s", path);
	if (r == 0 && program_check_env(ret_env, err) < 0)
		r = err_context(err, -EINVAL, "%.200s", path);
	return r;
}

#include "volumes/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "linux/sys.h"

/* So many directories at most are open; one further up is found again by "..". */
#define N_OPEN 128
#define DIRENTS_BYTES 65536
#define NAMES_CAP_BYTES (1024 * 1024 * 1024)
#define PATH_CAP_BYTES (256 * 1024 * 1024)

struct level {
	int fd, twin_fd; /* -1: closed for now */
	struct stat st, twin_st;
	struct buf names; /* of the directories in it, or of all before files_of has run */
	size_t next; /* in names */
	size_t path_bytes;
};

struct walker {
	const struct walk *walk;
	struct level *levels;
	size_t n_levels, n_space;
	struct buf path;
};

/* ---- names ----------------------------------------------------------------------------------- */

/* Each name is a byte of type (DT_*), its bytes, a NUL. */
static int list_names(int fd, struct buf *names)
{
	_Alignas(struct dirent64) char block[DIRENTS_BYTES];
	ssize_t n;

	while ((n = getdents64(fd, block, sizeof(block))) > 0)
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *entry = (const void *)(block + at);
			char type = (char)entry->d_type;

			at += entry->d_reclen;
			if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
				continue;
			buf_add(names, &type, 1);
			buf_add(names, entry->d_name, strlen(entry->d_name) + 1);
		}
	return n < 0 ? -errno : buf_failed(names);
}

static int push_path(struct walker *walker, const char *name)
{
	struct buf *path = &walker->path;

	if (path->len)
		buf_add(path, "/", 1);
	return buf_adds(path, name);
}

static void cut_path(struct walker *walker, size_t n_bytes)
{
	walker->path.failed = 0;
	walker->path.len = n_bytes;
	if (walker->path.data)
		walker->path.data[n_bytes] = '\0';
}

/* ---- items ----------------------------------------------------------------------------------- */

static struct level *last_level(struct walker *walker)
{
	return walker->n_levels ? &walker->levels[walker->n_levels - 1] : NULL;
}

static struct walk_item item_in(struct walker *walker, const char *name)
{
	const struct level *level = last_level(walker);

	return (struct walk_item){ .name = name,
		.path = buf_str(&walker->path),
		.path_bytes = walker->path.len,
		.dir_fd = level->fd,
		.fd = -1,
		.twin_dir_fd = level->twin_fd,
		.twin_fd = -1 };
}

static bool is_gone(int r)
{
	return r == -ENOENT || r == -ENOTDIR || r == -ELOOP;
}

/* What a link means, only its path from the root can say. */
static int open_followed(struct walker *walker, int flags)
{
	const struct walk *walk = walker->walk;
	AUTO_FREE char *whole = NULL;

	if (asprintf(&whole, "%s/%s", walk->follow_top, buf_str(&walker->path)) < 0)
		return -ENOMEM;
	return sys_open_in_root(walk->follow_fd, whole, flags, 0);
}

static bool is_inside_itself(const struct walker *walker, const struct stat *st)
{
	for (size_t i = 0; i < walker->n_levels; i++)
		if (walker->levels[i].st.st_ino == st->st_ino &&
			walker->levels[i].st.st_dev == st->st_dev)
			return true;
	return false;
}

/* Turns the link into what is behind it: 1, or 0 if there is nothing. */
static int follow(struct walker *walker, struct walk_item *item)
{
	AUTO_FD int fd = open_followed(walker, O_PATH);
	int r = fd;

	if (fd >= 0)
		r = fstat(fd, &item->st) < 0 ? -errno : 0;
	if (is_gone(r) || (r == 0 && is_inside_itself(walker, &item->st))) {
		walker->walk->lost(item->path);
		return 0;
	}
	if (r == 0 && S_ISREG(item->st.st_mode))
		r = item->fd = open_followed(walker, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	return r < 0 ? r : 1;
}

/* Tells an entry that is no directory; *ret_is_dir if it turns out to be one. */
static int visit(struct walker *walker, const char *name, bool *ret_is_dir)
{
	struct walk_item item = item_in(walker, name);
	int r = 1;

	if (fstatat(item.dir_fd, name, &item.st, AT_SYMLINK_NOFOLLOW) < 0)
		return is_gone(-errno) ? 0 : -errno;
	if (S_ISLNK(item.st.st_mode) && walker->walk->follow_top)
		r = follow(walker, &item);
	*ret_is_dir = r > 0 && S_ISDIR(item.st.st_mode);
	if (r > 0)
		r = *ret_is_dir ? 0 : walker->walk->file(walker->walk->context, &item);
	auto_fd(&item.fd);
	return r;
}

/* Tells the files of a directory just entered; what stays in its names are directories. */
static int visit_files(struct walker *walker)
{
	struct level *level = last_level(walker);
	size_t end = level->names.len, kept = 0;
	int r = 0;

	for (size_t at = 0; at < end && r == 0;) {
		char *entry = level->names.data + at;
		size_t n = strlen(entry + 1) + 2;
		bool is_dir = entry[0] == DT_DIR;

		if (!is_dir) {
			r = push_path(walker, entry + 1);
			if (r == 0)
				r = visit(walker, entry + 1, &is_dir);
			cut_path(walker, level->path_bytes);
		}
		if (is_dir) {
			memmove(level->names.data + kept, entry, n);
			kept += n;
		}
		at += n;
	}
	level->names.len = kept;
	return r;
}

/* ---- directories ----------------------------------------------------------------------------- */

static int add_level(struct walker *walker, int take_fd, const struct stat *st)
{
	AUTO_FD int fd = take_fd;

	if (walker->n_levels == walker->n_space) {
		size_t n = walker->n_space ? 2 * walker->n_space : 32;
		void *space = reallocarray(walker->levels, n, sizeof(*walker->levels));

		if (!space)
			return -ENOMEM;
		walker->levels = space;
		walker->n_space = n;
	}
	walker->levels[walker->n_levels++] = (struct level){
		.fd = TAKE_FD(fd), .twin_fd = -1, .st = *st, .path_bytes = walker->path.len
	};
	buf_init(&last_level(walker)->names, NAMES_CAP_BYTES);
	if (walker->n_levels > N_OPEN && !walker->walk->follow_top) {
		struct level *far = &walker->levels[walker->n_levels - 1 - N_OPEN];

		auto_fd(&far->fd);
		auto_fd(&far->twin_fd);
	}
	return 0;
}

static void drop_level(struct walker *walker)
{
	struct level *level = &walker->levels[--walker->n_levels];

	auto_fd(&level->fd);
	auto_fd(&level->twin_fd);
	buf_done(&level->names);
}

static int open_twin(struct level *level, int twin_dir_fd, const char *name)
{
	level->twin_fd = sys_open_at(twin_dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0);
	if (level->twin_fd < 0)
		return level->twin_fd;
	return fstat(level->twin_fd, &level->twin_st) < 0 ? -errno : 0;
}

/* The path is that of the directory. With item.dir_fd -1, take_fd is the top. */
static int enter(struct walker *walker, struct walk_item item, int take_fd)
{
	AUTO_FD int fd = take_fd;
	int r;

	if (fstat(fd, &item.st) < 0)
		return -errno;
	item.fd = fd;
	if (item.dir_fd < 0)
		item.dir_fd = fd;
	r = walker->walk->enter(walker->walk->context, &item);
	if (r == 0)
		r = add_level(walker, TAKE_FD(fd), &item.st);
	if (r == 0 && item.twin_dir_fd >= 0)
		r = open_twin(last_level(walker), item.twin_dir_fd, item.name);
	if (r == 0)
		r = list_names(last_level(walker)->fd, &last_level(walker)->names);
	return r < 0 ? r : visit_files(walker);
}

static int enter_next(struct walker *walker)
{
	const int flags = O_RDONLY | O_DIRECTORY;
	struct level *level = last_level(walker);
	const char *name = level->names.data + level->next + 1;
	size_t path_bytes = level->path_bytes;
	int fd, r;

	level->next += strlen(name) + 2;
	r = push_path(walker, name);
	if (r < 0)
		return r;
	fd = walker->walk->follow_top ? open_followed(walker, flags)
				      : sys_open_at(level->fd, name, flags | O_NOFOLLOW, 0, 0);
	if (fd < 0) {
		cut_path(walker, path_bytes);
		return is_gone(fd) ? 0 : fd;
	}
	/* The name lies in the level's buffer, which stays where it is. */
	return enter(walker, item_in(walker, name), fd);
}

static int reopen(int child_fd, const struct stat *st, int *fd)
{
	struct stat now;

	if (*fd >= 0 || child_fd < 0)
		return 0;
	*fd = sys_open_at(child_fd, "..", O_RDONLY | O_DIRECTORY, 0, 0);
	if (*fd < 0)
		return *fd;
	if (fstat(*fd, &now) < 0)
		return -errno;
	return now.st_ino == st->st_ino && now.st_dev == st->st_dev ? 0 : -ESTALE;
}

static int leave(struct walker *walker)
{
	struct level *level = last_level(walker);
	struct level *parent = walker->n_levels > 1 ? level - 1 : level;
	int r = reopen(level->fd, &parent->st, &parent->fd);

	if (r == 0)
		r = reopen(level->twin_fd, &parent->twin_st, &parent->twin_fd);
	if (r == 0 && walker->walk->leave) {
		struct walk_item item = { .path = buf_str(&walker->path),
			.path_bytes = walker->path.len,
			.st = level->st,
			.dir_fd = parent->fd,
			.fd = level->fd,
			.twin_dir_fd = parent->twin_fd,
			.twin_fd = level->twin_fd };

		item.name = item.path + (parent->path_bytes ? parent->path_bytes + 1 : 0);
		if (parent == level)
			item.name = ".";
		r = walker->walk->leave(walker->walk->context, &item);
	}
	cut_path(walker, parent->path_bytes);
	drop_level(walker);
	return r;
}

int walk_tree(const struct walk *walk, int top_fd, int twin_fd)
{
	struct walker walker = { .walk = walk };
	struct walk_item top = {
		.name = ".", .path = "", .dir_fd = -1, .twin_dir_fd = twin_fd, .twin_fd = -1
	};
	int fd, r;

	buf_init(&walker.path, PATH_CAP_BYTES);
	r = fd = sys_open_at(top_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
	if (r >= 0)
		r = enter(&walker, top, fd);
	while (r == 0 && walker.n_levels) {
		const struct level *level = last_level(&walker);

		r = level->next < level->names.len ? enter_next(&walker) : leave(&walker);
	}
	while (walker.n_levels)
		drop_level(&walker);
	free(walker.levels);
	buf_done(&walker.path);
	return r;
}

#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/strv.h"
#include "linux/spawn.h"
#include "linux/sys.h"

void rootfs_done(struct rootfs *rootfs)
{
	free(rootfs->lower);
	free(rootfs->raw);
	volume_mount_done(&rootfs->volume);
	*rootfs = (struct rootfs){ 0 };
}

/* The one true name of what fd is open on. */
static int name_of(int fd, char **ret_path)
{
	char link[64], path[4096];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path));
	if (n < 0)
		return -errno;
	if (n == sizeof(path))
		return -ENAMETOOLONG;
	*ret_path = strndup(path, n);
	return *ret_path ? 0 : -ENOMEM;
}

static bool is_below(const char *path, const char *parent)
{
	size_t len = strlen(parent);

	while (len > 1 && parent[len - 1] == '/')
		len--;
	return !strncmp(path, parent, len) && (len == 1 || path[len] == '/' || path[len] == '\0');
}

static bool is_allowed(const struct rootfs_config *config, const char *path)
{
	for (size_t i = 0; config->allow_raw && i < config->allow_raw->n_items; i++) {
		AUTO_FREE char *parent = NULL;
		AUTO_FD int fd = sys_open_at(
			AT_FDCWD, config->allow_raw->items[i], O_PATH | O_DIRECTORY, 0, 0);

		if (fd >= 0 && name_of(fd, &parent) == 0 && is_below(path, parent))
			return true;
	}
	return false;
}

static int resolve_raw(
	struct rootfs_config *config, const char *path, char **ret_raw, struct err *err)
{
	AUTO_FD int fd = sys_open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0);
	AUTO_FREE char *name = NULL;
	int r = fd;

	if (r >= 0)
		r = name_of(fd, &name);
	if (r < 0)
		return err_system(err, r, "rootfs raw://%.200s", path);
	if (!is_allowed(config, name))
		return err_set(err, ERR_INVALID, EPERM,
			"rootfs raw://%.150s: not below a directory that --allow-raw names "
			"(set-uid files that a container makes there are real ones)",
			path);
	*ret_raw = TAKE_PTR(name);
	return 0;
}

/* ---- archives -------------------------------------------------------------------------------- */

/* What the helper has to say, at most one line; returns its exit status, or -errno. */
static int run_unpacker(const struct rootfs_config *config, int archive_fd, int target_fd,
	char *text, size_t text_bytes)
{
	const char *argv[] = { "cloche", "tree", "in", "tree=.", "path=", "encoding=auto", NULL };
	struct spawn spawn = { config->self_exe_fd, argv, archive_fd, -1, -1, target_fd, 0 };
	int ends[2], status;
	AUTO_FD int text_fd = -1;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	text_fd = ends[0];
	spawn.stderr_fd = ends[1];
	pid = spawn_program(&spawn);
	close(ends[1]);
	if (pid < 0)
		return pid;
	while (len < text_bytes - 1 && (n = read(text_fd, text + len, text_bytes - 1 - len)) > 0)
		len += n;
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

static int unpack_into(const struct rootfs_config *config, const char *uri, int archive_fd,
	const char *dir, struct err *err)
{
	AUTO_FD int target_fd = -1;
	char text[256];
	int r;

	if (mkdir(dir, 0755) < 0)
		return err_system(err, -errno, "unpack %.200s", uri);
	target_fd = sys_open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0, 0);
	r = target_fd < 0 ? target_fd
			  : run_unpacker(config, archive_fd, target_fd, text, sizeof(text));
	if (r < 0)
		return err_system(err, r, "unpack %.200s", uri);
	return r ? err_set(err, ERR_INVALID, EINVAL, "rootfs %.200s: %s", uri, text) : 0;
}

/* The same file, unchanged, has the same name in the cache. The rename is the commit; what a crash
 * leaves is swept at start. */
static int unpack_once(struct rootfs_config *config, const char *uri, int fd, const struct stat *st,
	bool only_look, char **ret_dir, struct err *err)
{
	AUTO_FREE char *dir = NULL, *temporary = NULL, *dead = NULL;
	struct stat there;
	char nonce[17];
	int r;

	if (random_hex(nonce, 8) < 0 ||
		asprintf(&dir, "%s/%lx-%lx-%lx-%lx.%lx", config->images_dir, (long)st->st_dev,
			(long)st->st_ino, (long)st->st_size, (long)st->st_mtim.tv_sec,
			(long)st->st_mtim.tv_nsec) < 0 ||
		asprintf(&temporary, "%s/tmp-%s", config->images_dir, nonce) < 0 ||
		asprintf(&dead, "%s/%s", config->dead_dir, nonce) < 0)
		return err_system(err, -ENOMEM, "unpack %.200s", uri);
	if (stat(dir, &there) == 0) {
		*ret_dir = TAKE_PTR(dir);
		return 0;
	}
	if (only_look)
		return -ENOENT;
	r = unpack_into(config, uri, fd, temporary, err);
	if (r < 0) {
		rename(temporary, dead);
		return r;
	}
	if (rename(temporary, dir) < 0)
		return err_system(err, -errno, "unpack %.200s", uri);
	*ret_dir = TAKE_PTR(dir);
	return 0;
}

static int resolve_path(
	struct rootfs_config *config, const char *path, char **ret_lower, struct err *err)
{
	AUTO_FD int fd = sys_open_at(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);
	struct stat st;
	int r = fd;

	if (r >= 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r >= 0 && S_ISDIR(st.st_mode))
		r = name_of(fd, ret_lower);
	if (r < 0)
		return err_system(err, r, "rootfs %.300s", path);
	if (S_ISDIR(st.st_mode))
		return 0;
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID, EINVAL,
			"rootfs %.300s: neither a directory nor an archive", path);
	r = unpack_once(config, path, fd, &st, true, ret_lower, err);
	if (r != -ENOENT)
		return r;
	pthread_mutex_lock(&config->unpack_lock);
	r = unpack_once(config, path, fd, &st, false, ret_lower, err);
	pthread_mutex_unlock(&config->unpack_lock);
	return r;
}

int rootfs_resolve(
	struct rootfs_config *config, const char *uri, struct rootfs *ret_rootfs, struct err *err)
{
	*ret_rootfs = (struct rootfs){ 0 };
	if (!strncmp(uri, "raw://", 6))
		return resolve_raw(config, uri + 6, &ret_rootfs->raw, err);
	if (strstr(uri, "://"))
		return err_set(err, ERR_UNSUPPORTED, ENOSYS,
			"image %.300s: unknown image (images by URI are not built yet)", uri);
	if (uri[0] != '/')
		return err_set(
			err, ERR_INVALID, EINVAL, "rootfs %.300s: not an absolute path", uri);
	return resolve_path(config, uri, &ret_rootfs->lower, err);
}

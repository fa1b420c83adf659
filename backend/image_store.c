#include "image_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "linux/spawn.h"
#include "linux/sys.h"
#include "rootfs.h"

void image_name_of_file(const struct stat *st, char ret_name[IMAGE_NAME_SIZE])
{
	snprintf(ret_name, IMAGE_NAME_SIZE, "%lx-%lx-%lx-%lx.%lx", (long)st->st_dev,
		(long)st->st_ino, (long)st->st_size, (long)st->st_mtim.tv_sec,
		(long)st->st_mtim.tv_nsec);
}

/* What the helper has to say, at most one line; returns its exit status, or -errno. */
static int run_unpacker(const struct rootfs_config *config, int archive_fd, int target_fd,
	const char *layer, char *text, size_t text_bytes)
{
	const char *argv[] = { "cloche", "tree", "in", "tree=.", "path=", "encoding=auto", layer,
		NULL };
	struct spawn spawn = { config->self_exe_fd, argv, archive_fd, -1, -1, target_fd, 0, NULL };
	int ends[2], status;
	AUTO_FD int text_fd = -1;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (lseek(archive_fd, 0, SEEK_SET) < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	text_fd = ends[0];
	spawn.stderr_fd = ends[1];
	pid = spawn_program(&spawn);
	close(ends[1]);
	if (pid < 0)
		return pid;
	while (len < text_bytes - 1 &&
		(n = TEMP_FAILURE_RETRY(read(text_fd, text + len, text_bytes - 1 - len))) > 0)
		len += n;
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

/* The last round is that of the content. */
static int unpack_archive(const struct rootfs_config *config, const struct image_source *source,
	int archive_fd, int target_fd, struct err *err)
{
	static const char *const plain[] = { NULL },
				 *const layer[] = { "layer=whiteouts", "layer=content" };
	const char *const *rounds = source->are_layers ? layer : plain;
	size_t n_rounds = source->are_layers ? N_ELEMENTS(layer) : N_ELEMENTS(plain);
	char text[256];

	for (size_t i = 0; i < n_rounds; i++) {
		int r = run_unpacker(config, archive_fd, target_fd, rounds[i], text, sizeof(text));

		if (r < 0)
			return err_system(err, r, "unpack %.200s", source->what);
		if (r)
			return err_set(
				err, ERR_INVALID, EINVAL, "rootfs %.200s: %s", source->what, text);
	}
	return 0;
}

static int unpack_all(const struct rootfs_config *config, const struct image_source *source,
	const char *dir, struct err *err)
{
	AUTO_FD int target_fd = -1;
	int r = 0;

	if (mkdir(dir, 0755) < 0)
		return err_system(err, -errno, "unpack %.200s", source->what);
	target_fd = sys_open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0, 0);
	if (target_fd < 0)
		return err_system(err, target_fd, "unpack %.200s", source->what);
	for (size_t i = 0; i < source->n_archives && r == 0; i++) {
		AUTO_FD int archive_fd = source->open(source->arg, i, err);

		r = archive_fd < 0 ? archive_fd
				   : unpack_archive(config, source, archive_fd, target_fd, err);
	}
	/* a name that is there after a power cut has all of its files */
	if (r == 0 && syncfs(target_fd) < 0)
		r = err_system(err, -errno, "unpack %.200s", source->what);
	return r;
}

/* The rename is the commit; what a crash leaves is swept at start. */
static int unpack_as(const struct rootfs_config *config, const struct image_source *source,
	const char *dir, struct err *err)
{
	AUTO_FREE char *temporary = NULL, *dead = NULL;
	AUTO_FD int images_fd = -1;
	char nonce[17];
	int r;

	if (random_hex(nonce, 8) < 0 ||
		asprintf(&temporary, "%s/tmp-%s", config->images_dir, nonce) < 0 ||
		asprintf(&dead, "%s/%s", config->dead_dir, nonce) < 0)
		return err_system(err, -ENOMEM, "unpack %.200s", source->what);
	r = unpack_all(config, source, temporary, err);
	if (r == 0 && rename(temporary, dir) < 0)
		r = err_system(err, -errno, "unpack %.200s", source->what);
	if (r < 0) {
		rename(temporary, dead);
		return r;
	}
	images_fd = sys_open_at(AT_FDCWD, config->images_dir, O_RDONLY | O_DIRECTORY, 0, 0);
	if (images_fd >= 0)
		fsync(images_fd); /* without it the image is unpacked again some day */
	return 0;
}

int image_have(struct rootfs_config *config, const char *name, const struct image_source *source,
	char **ret_dir, struct err *err)
{
	AUTO_FREE char *dir = NULL;
	struct stat there;
	int r = 0;

	if (asprintf(&dir, "%s/%s", config->images_dir, name) < 0)
		return err_system(err, -ENOMEM, "unpack %.200s", source->what);
	if (stat(dir, &there) < 0) {
		pthread_mutex_lock(&config->unpack_lock);
		if (stat(dir, &there) < 0)
			r = unpack_as(config, source, dir, err);
		pthread_mutex_unlock(&config->unpack_lock);
	}
	if (r == 0)
		*ret_dir = TAKE_PTR(dir);
	return r;
}

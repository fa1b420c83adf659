#include "volumes/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/caps.h"
#include "linux/sys.h"

#define TARGET_FD 3
#define BLOCK_BYTES (256 * 1024)
#define CAP(name) (UINT64_C(1) << CAP_##name)

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why ? why : "unknown error");
	return 1;
}

/* ---- confinement ----------------------------------------------------------------------------- */

/* The descriptor belongs to the mount namespace that we leave; the working directory comes along.
 */
static int confine(void)
{
	AUTO_FD int tree_fd = -1;
	AUTO_FD int here_fd = -1;
	int r = fchdir(TARGET_FD) < 0 ? -errno : 0;

	if (r == 0)
		r = sys_unshare(
			CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);
	if (r == 0)
		r = sys_make_private("/");
	if (r == 0)
		r = here_fd = sys_open_at(AT_FDCWD, ".", O_PATH | O_DIRECTORY, 0, 0);
	if (r >= 0)
		r = tree_fd = sys_open_tree(here_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
	if (r >= 0)
		r = sys_move_mount(tree_fd, here_fd);
	if (r == 0)
		r = sys_pivot_into(tree_fd);
	if (r < 0)
		return r;
	close(TARGET_FD);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	r = caps_limit(0);
	return r < 0 ? r
		     : caps_set(CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) |
			       CAP(SETFCAP));
}

/* ---- entries --------------------------------------------------------------------------------- */

/* What a container cannot use, or what would mean something to the overlay above, stays behind. */
static bool xattr_is_kept(const char *name)
{
	return !strcmp(name, "security.capability") ||
		(!strncmp(name, "user.", 5) && strncmp(name, "user.overlay.", 13));
}

static void filter_xattrs(struct archive_entry *entry)
{
	struct archive_entry *copy = archive_entry_clone(entry);
	const char *name;
	const void *value;
	size_t n_bytes;

	archive_entry_xattr_clear(entry);
	archive_entry_acl_clear(entry);
	archive_entry_xattr_reset(copy);
	while (archive_entry_xattr_next(copy, &name, &value, &n_bytes) == ARCHIVE_OK)
		if (xattr_is_kept(name))
			archive_entry_xattr_add_entry(entry, name, value, n_bytes);
	archive_entry_free(copy);
}

/* "/etc/x" and "./etc/x" are "etc/x"; "" is the root itself, whose mode and owner are taken. */
static void make_relative(struct archive_entry *entry)
{
	const char *path = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);

	if (path && path[0] == '/') {
		path += strspn(path, "/");
		archive_entry_copy_pathname(entry, *path ? path : ".");
	}
	if (link && link[0] == '/')
		archive_entry_copy_hardlink(entry, link + strspn(link, "/"));
}

static bool is_passed_over(struct archive_entry *entry)
{
	mode_t type = archive_entry_filetype(entry);

	return !archive_entry_hardlink(entry) && (type == AE_IFCHR || type == AE_IFBLK);
}

static int copy_data(struct archive *from, struct archive *to)
{
	const void *data;
	size_t n_bytes;
	la_int64_t offset;
	int r;

	while ((r = archive_read_data_block(from, &data, &n_bytes, &offset)) == ARCHIVE_OK)
		if (archive_write_data_block(to, data, n_bytes, offset) < ARCHIVE_WARN)
			return fail("write", archive_error_string(to));
	return r == ARCHIVE_EOF ? 0 : fail("read", archive_error_string(from));
}

static int unpack_entry(struct archive *from, struct archive *to, struct archive_entry *entry)
{
	make_relative(entry);
	filter_xattrs(entry);
	if (archive_write_header(to, entry) < ARCHIVE_WARN)
		return fail(archive_entry_pathname(entry), archive_error_string(to));
	if (archive_entry_size(entry) > 0 && copy_data(from, to))
		return 1;
	return archive_write_finish_entry(to) < ARCHIVE_WARN
		? fail(archive_entry_pathname(entry), archive_error_string(to))
		: 0;
}

static int unpack_all(struct archive *from, struct archive *to)
{
	struct archive_entry *entry;
	int r;

	while ((r = archive_read_next_header(from, &entry)) == ARCHIVE_OK || r == ARCHIVE_WARN)
		if (!is_passed_over(entry) && unpack_entry(from, to, entry))
			return 1;
	if (r != ARCHIVE_EOF)
		return fail("not a tar archive, or a damaged one", archive_error_string(from));
	return archive_write_close(to) < ARCHIVE_WARN ? fail("write", archive_error_string(to)) : 0;
}

static int unpack(void)
{
	int flags = ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |
		ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_UNLINK | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
		ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS;
	struct archive *from = archive_read_new(), *to = archive_write_disk_new();
	int r;

	if (!from || !to)
		return fail("unpack", "out of memory");
	archive_read_support_filter_gzip(from);
	archive_read_support_filter_zstd(from);
	archive_read_support_format_tar(from);
	archive_write_disk_set_options(to, flags);
	if (archive_read_open_fd(from, 0, BLOCK_BYTES) != ARCHIVE_OK)
		return fail("not a tar archive", archive_error_string(from));
	r = unpack_all(from, to);
	archive_write_free(to);
	archive_read_free(from);
	return r;
}

/* The parser runs in a pid namespace of its own, where there is nobody it could signal. Neither
 * process outlives the server's thread that waits for it. */
int unpack_main(void)
{
	int r, status;
	pid_t pid;

	umask(022);
	r = confine();
	if (r < 0)
		return fail("confine", strerrordesc_np(-r));
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	pid = fork();
	if (pid < 0)
		return fail("fork", strerrordesc_np(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		_exit(unpack());
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return fail("unpack", "the helper was killed");
	return WEXITSTATUS(status);
}

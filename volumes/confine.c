#include "volumes/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "linux/caps.h"
#include "linux/landlock.h"
#include "linux/sys.h"

#define PAGE_BYTES 4096

/* ---- trees ----------------------------------------------------------------------------------- */

/* A detached mount of the directory. Nothing in it is a device or set-uid to anybody. */
static int clone_tree(int dir_fd, unsigned recursive, bool writable)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
			MOUNT_ATTR_NOEXEC | (writable ? 0 : MOUNT_ATTR_RDONLY) };
	AUTO_FD int fd = sys_open_tree(dir_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | recursive);
	int r = fd;

	if (r >= 0)
		r = sys_mount_setattr(fd, recursive, &attr);
	return r < 0 ? r : TAKE_FD(fd);
}

static int mount_plain(int store_fd, const struct confine_spec *spec, struct err *err)
{
	AUTO_FD int dir_fd = sys_open_beneath(store_fd, spec->tree, O_PATH | O_DIRECTORY, 0);
	AUTO_FD int fd = -1;
	int r = dir_fd;

	if (r >= 0)
		r = fd = clone_tree(dir_fd, 0, spec->writable);
	if (r >= 0)
		r = sys_move_mount(fd, dir_fd);
	return r < 0 ? err_system(err, r, "tree %.200s", spec->tree) : TAKE_FD(fd);
}

/* The mount hides its own top layer, which has been resolved by then. Without an upper layer the
 * kernel wants two lower ones. */
static int mount_overlay(int store_fd, const struct confine_spec *spec, struct err *err)
{
	char options[PAGE_BYTES], top[PAGE_BYTES];
	int n, r;

	snprintf(top, sizeof(top), "%.*s", (int)strcspn(spec->lower, ":"), spec->lower);
	if (!spec->upper && !strchr(spec->lower, ':')) {
		struct confine_spec plain = { .tree = top };

		return mount_plain(store_fd, &plain, err);
	}
	n = spec->upper ? snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s",
				  spec->lower, spec->upper, spec->work ? spec->work : "")
			: snprintf(options, sizeof(options), "lowerdir=%s", spec->lower);
	r = (size_t)n < sizeof(options)
		? sys_mount_overlay(top, options, MS_NOSUID | MS_NODEV | MS_NOEXEC)
		: -ENAMETOOLONG;
	if (r == 0)
		r = sys_open_beneath(store_fd, top, O_PATH | O_DIRECTORY, 0);
	return r < 0 ? err_system(err, r, "overlay of %.200s", spec->lower) : r;
}

static int open_source(
	int store_fd, const struct confine_spec *spec, struct confined *ret, struct err *err)
{
	AUTO_FD int dir_fd = spec->source[0] == '/'
		? sys_open_at(AT_FDCWD, spec->source, O_PATH | O_DIRECTORY, 0, 0)
		: sys_open_beneath(store_fd, spec->source, O_PATH | O_DIRECTORY, 0);
	AUTO_FD int top_fd = -1;
	int r = dir_fd;

	if (r >= 0 && spec->source_links) {
		r = top_fd = sys_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
		if (r >= 0)
			r = ret->source_root_fd = clone_tree(top_fd, AT_RECURSIVE, false);
		if (r >= 0)
			r = ret->source_fd = sys_open_in_root(
				ret->source_root_fd, spec->source, O_RDONLY | O_DIRECTORY, 0);
	} else if (r >= 0) {
		AUTO_FD int tree_fd = clone_tree(dir_fd, AT_RECURSIVE, false);

		r = tree_fd;
		if (r >= 0)
			r = ret->source_fd =
				sys_open_at(tree_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
	}
	return r < 0 ? err_system(err, r, "source %.200s", spec->source) : 0;
}

/* ---- rights ---------------------------------------------------------------------------------- */

static int give_up_rights(const struct confine_spec *spec, const struct confined *confined)
{
	AUTO_FD int root_fd = sys_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
	struct landlock_tree trees[] = { { root_fd, spec->writable },
		{ confined->source_root_fd >= 0 ? confined->source_root_fd : confined->source_fd,
			false } };
	int r = root_fd;

	if (r >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	if (r >= 0)
		r = landlock_confine(trees, confined->source_fd >= 0 ? 2 : 1);
	if (r == 0)
		r = caps_limit(0);
	return r == 0 && GUARD(TREE_CAPS) ? caps_set(spec->caps) : r;
}

/* A descriptor belongs to the mount namespace that we leave; the working directory comes along. */
static int enter_namespaces(int store_fd, struct err *err)
{
	int r = fchdir(store_fd) < 0 ? -errno : 0;

	close(store_fd);
	if (r == 0)
		r = sys_unshare(
			CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);
	if (r == 0)
		r = sys_make_private("/");
	if (r == 0)
		r = sys_open_at(AT_FDCWD, ".", O_PATH | O_DIRECTORY, 0, 0);
	return r < 0 ? err_system(err, r, "namespaces") : r;
}

int confine(int store_fd, const struct confine_spec *spec, struct confined *ret, struct err *err)
{
	AUTO_FD int here_fd = enter_namespaces(store_fd, err);
	AUTO_FD int root_fd = -1;
	int r = here_fd;

	*ret = (struct confined){ -1, -1 };
	if (r >= 0 && spec->source)
		r = open_source(here_fd, spec, ret, err);
	if (r >= 0)
		r = root_fd = spec->tree ? mount_plain(here_fd, spec, err)
					 : mount_overlay(here_fd, spec, err);
	if (r < 0)
		return r;
	r = sys_pivot_into(root_fd);
	if (r == 0)
		r = give_up_rights(spec, ret);
	return r < 0 ? err_system(err, r, "confine") : 0;
}

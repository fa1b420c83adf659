/* Runs in a child of the shim: system calls only (tests/lint/child.allow). */
#include "shim/builder_work.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/guard.h"
#include "linux/sys.h"
#include "shim/builder_process.h"
#include "shim/init.h"

static int result(int r)
{
	return r < 0 ? -errno : r;
}

static int op_cgroup_join(struct work *work, const struct op_wire *op)
{
	return sys_write_file(AT_FDCWD, text(work, op->a), "0");
}

static int open_own_mounts(const struct work *work)
{
	return sys_open_at(work->builder->proc_fd, "self/ns/mnt", O_RDONLY, 0, 0);
}

static int op_unshare(struct work *work, const struct op_wire *op)
{
	int r = 0;

	if (op->number & CLONE_NEWNS)
		r = work->host_mnt_fd = open_own_mounts(work);
	if (r >= 0)
		r = sys_unshare((int)op->number);
	if (r < 0 || !(op->number & CLONE_NEWNS))
		return r;
	r = work->own_mnt_fd = open_own_mounts(work);
	return r < 0 ? r : sys_make_private("/");
}

/* The kernel counts what a user namespace's users hold (inotify instances, queued signals, locked memory)
 * against whoever made the namespace, too: were that root for all of them, one container could use up
 * what the others and the host have. */
static pid_t clone_as_owner(const struct work *work, struct clone_args *args)
{
	pid_t pid;

	if (!(args->flags & CLONE_NEWUSER) || !GUARD(OWNER))
		return sys_clone3(args);
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ||
		setresuid((uid_t)-1, work->plan->root_uid, (uid_t)-1) < 0 ||
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) <
			0) /* else init's own files in /proc are not its own */
		return -errno;
	pid = sys_clone3(args);
	if (pid == 0)
		return 0; /* its capabilities are those of the new namespace */
	if (setresuid((uid_t)-1, 0, (uid_t)-1) < 0 || prctl(PR_SET_SECUREBITS, 0, 0, 0, 0) < 0)
		_exit(1);
	return pid;
}

static int op_init(struct work *work, const struct op_wire *op)
{
	const char *cgroup = text(work, op->a);
	struct clone_args args = { .flags = op->number | CLONE_PARENT | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&work->init_pid_fd };
	AUTO_FD int cgroup_fd = -1;

	if (*cgroup) {
		cgroup_fd = sys_open_at(AT_FDCWD, cgroup, O_RDONLY | O_DIRECTORY, 0, 0);
		if (cgroup_fd < 0)
			return cgroup_fd;
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = cgroup_fd;
	}
	work->init_pid = clone_as_owner(work, &args);
	if (work->init_pid == 0)
		init_main(work->builder->init_fd, work->builder->argv0);
	return work->init_pid < 0 ? work->init_pid : 0;
}

int builder_open_init_proc(const struct work *work, const char *name, int flags)
{
	return process_open(work->builder->proc_fd, work->init_pid, name, flags);
}

static int write_map(const struct work *work, const char *name, const char *map)
{
	AUTO_FD int fd = builder_open_init_proc(work, name, O_WRONLY);
	size_t len = strlen(map);

	if (fd < 0)
		return fd;
	return write(fd, map, len) == (ssize_t)len ? 0 : -errno;
}

static int op_id_map(struct work *work, const struct op_wire *op)
{
	int r = write_map(work, "uid_map", text(work, op->a));

	if (r == 0)
		r = write_map(work, "gid_map", text(work, op->a));
	if (r < 0)
		return r;
	work->userns_fd = builder_open_init_proc(work, "ns/user", O_RDONLY);
	return work->userns_fd < 0 ? work->userns_fd : 0;
}

static int configure(int fs_fd, const char *options)
{
	char option[512], *value;

	while (*options) {
		size_t n = strcspn(options, ",");
		int r;

		if (n >= sizeof(option))
			return -ENAMETOOLONG;
		memcpy(option, options, n);
		option[n] = '\0';
		value = strchr(option, '=');
		if (value) {
			*value++ = '\0';
			r = sys_fsconfig_string(fs_fd, option, value);
		} else {
			r = sys_fsconfig_flag(fs_fd, option);
		}
		if (r < 0)
			return r;
		options += n + (options[n] == ',');
	}
	return 0;
}

static int make_mount(const char *type, const char *options, uint64_t attrs)
{
	AUTO_FD int fs_fd = sys_fsopen(type);
	int r;

	if (fs_fd < 0)
		return fs_fd;
	r = configure(fs_fd, options);
	if (r == 0)
		r = sys_fsconfig_create(fs_fd);
	return r < 0 ? r : sys_fsmount(fs_fd, attrs);
}

static int op_skeleton(struct work *work, const struct op_wire *op)
{
	AUTO_FD int at_fd = sys_open_at(AT_FDCWD, text(work, op->a), O_PATH | O_DIRECTORY, 0, 0);
	AUTO_FD int mount_fd = make_mount("tmpfs", "mode=700", MOUNT_ATTR_NOSUID);
	int r;

	if (at_fd < 0 || mount_fd < 0)
		return at_fd < 0 ? at_fd : mount_fd;
	r = sys_move_mount(mount_fd, at_fd);
	if (r < 0)
		return r;
	work->skeleton_fd = TAKE_FD(mount_fd);
	return result(fchdir(work->skeleton_fd)); /* overlay layers are named by short paths */
}

static int op_mount(struct work *work, const struct op_wire *op)
{
	const char *spec = text(work, op->b), *options = strchrnul(spec, ' ');
	AUTO_FD int mount_fd = -1;
	char type[32];

	if (options - spec >= (ptrdiff_t)sizeof(type))
		return -ENAMETOOLONG;
	memcpy(type, spec, options - spec);
	type[options - spec] = '\0';
	mount_fd = make_mount(type, *options ? options + 1 : options, op->attrs);
	return mount_fd < 0 ? mount_fd : place_attach(work, op, mount_fd, text(work, op->a));
}

static int give_to_root(const struct work *work, const char *path)
{
	return result(fchownat(work->skeleton_fd, path, work->plan->root_uid, work->plan->root_gid,
		AT_SYMLINK_NOFOLLOW));
}

/* The umask takes bits away. */
static int op_mkdir(struct work *work, const struct op_wire *op)
{
	const char *path = text(work, op->a);

	if (mkdirat(work->skeleton_fd, path, (mode_t)op->number) < 0)
		return -errno;
	if (!(op->flags & OPF_GIVEN))
		return 0;
	if (fchmodat(work->skeleton_fd, path, (mode_t)op->number, 0) < 0)
		return -errno;
	return give_to_root(work, path);
}

/* The umask would take bits away, and a device must be what we asked for. */
static int op_mknod(struct work *work, const struct op_wire *op)
{
	const char *path = text(work, op->a);
	struct stat st;

	if (mknodat(work->skeleton_fd, path, S_IFCHR | 0666, op->number) < 0 ||
		fchmodat(work->skeleton_fd, path, 0666, 0) < 0 || give_to_root(work, path) < 0 ||
		fstatat(work->skeleton_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return S_ISCHR(st.st_mode) && st.st_rdev == op->number ? 0 : -EINVAL;
}

static int op_symlink(struct work *work, const struct op_wire *op)
{
	if (symlinkat(text(work, op->b), work->skeleton_fd, text(work, op->a)) < 0)
		return -errno;
	return give_to_root(work, text(work, op->a));
}

static int op_file(struct work *work, const struct op_wire *op)
{
	const char *content = text(work, op->b);
	AUTO_FD int fd = sys_open_beneath(
		work->skeleton_fd, text(work, op->a), O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		return fd;
	if (write(fd, content, strlen(content)) != (ssize_t)strlen(content) || fchmod(fd, 0644) < 0)
		return -EIO;
	return give_to_root(work, text(work, op->a));
}

/* Links in a volume mean what they mean inside of it. */
static int open_part(const struct work *work, const char *source)
{
	size_t n = strcspn(source, "/");
	AUTO_FD int place_fd = -1;
	char place[64];

	if (n >= sizeof(place))
		return -ENAMETOOLONG;
	memcpy(place, source, n);
	place[n] = '\0';
	place_fd = place_open_skeleton(work, place, 0);
	return place_fd < 0
		? place_fd
		: sys_open_in_root(place_fd, source + n + (source[n] == '/'), O_PATH, 0);
}

/* As the host sees it now: it may have mounted something since we took a copy of its mounts. */
static int clone_of_host(const struct work *work, const char *path, unsigned flags)
{
	AUTO_FD int tree_fd = -1;
	int r;

	if (work->host_mnt_fd < 0)
		return sys_open_tree(AT_FDCWD, path, flags);
	r = sys_setns(work->host_mnt_fd, CLONE_NEWNS);
	if (r < 0)
		return r;
	tree_fd = sys_open_tree(AT_FDCWD, path, flags);
	r = sys_setns(work->own_mnt_fd, CLONE_NEWNS);
	if (r == 0 && work->skeleton_fd >= 0)
		r = result(fchdir(work->skeleton_fd));
	return r < 0 ? r : TAKE_FD(tree_fd);
}

static int clone_source(const struct work *work, const struct op_wire *op)
{
	unsigned flags =
		OPEN_TREE_CLONE | AT_EMPTY_PATH | (op->flags & OPF_RECURSIVE ? AT_RECURSIVE : 0);
	AUTO_FD int source_fd = -1;

	if (op->flags & OPF_PART)
		source_fd = open_part(work, text(work, op->a));
	else if (op->flags & OPF_ROOT_SRC)
		source_fd = place_open_root_source(work, text(work, op->a));
	else if (op->flags & OPF_SKELETON_SRC) /* nobody else has been there yet */
		return sys_open_tree(work->skeleton_fd, text(work, op->a),
			OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW);
	else
		return clone_of_host(work, text(work, op->a), flags & ~(unsigned)AT_EMPTY_PATH);
	return source_fd < 0 ? source_fd : sys_open_tree(source_fd, "", flags);
}

static int op_bind(struct work *work, const struct op_wire *op)
{
	struct mount_attr attr = { .attr_set = op->attrs, .propagation = MS_PRIVATE };
	AUTO_FD int tree_fd = clone_source(work, op);
	int r;

	if (tree_fd < 0)
		return tree_fd;
	if (op->flags & OPF_IDMAP && work->userns_fd >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = work->userns_fd;
	}
	r = sys_mount_setattr(tree_fd, op->flags & OPF_RECURSIVE ? AT_RECURSIVE : 0, &attr);
	return r < 0 ? r : place_attach(work, op, tree_fd, text(work, op->b));
}

static int op_move(struct work *work, const struct op_wire *op)
{
	AUTO_FD int from_fd = place_open_skeleton(work, text(work, op->a), 0);

	return from_fd < 0 ? from_fd : place_move(work, from_fd, text(work, op->b));
}

/* What a kernel whose overlays make no files without names can do instead. */
static int probe_by_chmod(int mount_fd)
{
	struct stat st;

	if (fstatat(mount_fd, ".", &st, 0) < 0)
		return -errno;
	return result(fchmodat(mount_fd, ".", st.st_mode & 07777, 0));
}

/* An overlay made with an fsuid that its layers do not map turns read-only without a word. A kill leaves nothing
 * of the probe in the tree, which may be a volume's. */
static int probe_writable(int mount_fd)
{
	AUTO_FD int fd = sys_open_beneath(mount_fd, ".", O_WRONLY | O_TMPFILE, 0600);

	return fd >= 0 ? 0 : fd == -EOPNOTSUPP ? probe_by_chmod(mount_fd) : fd;
}

static int op_overlay(struct work *work, const struct op_wire *op)
{
	AUTO_FD int mount_fd = -1;
	int r = place_become_root(work);

	if (r < 0)
		return r;
	mount_fd = make_mount("overlay", text(work, op->b), op->attrs);
	if (mount_fd < 0)
		return mount_fd;
	r = op->attrs & MOUNT_ATTR_RDONLY ? 0 : probe_writable(mount_fd);
	return r < 0 ? r : place_attach(work, op, mount_fd, text(work, op->a));
}

static int op_userns(struct work *work, const struct op_wire *op)
{
	(void)op;
	work->userns_fd = builder_open_init_proc(work, "ns/user", O_RDONLY);
	return work->userns_fd < 0 ? work->userns_fd : 0;
}

static int op_take(struct work *work, const struct op_wire *op)
{
	struct mount_attr attr = { .attr_set = op->attrs, .propagation = MS_PRIVATE };
	int fd = clone_source(work, op);

	work->slots[op->number] = fd;
	return fd < 0 ? fd : sys_mount_setattr(fd, 0, &attr);
}

static int op_enter(struct work *work, const struct op_wire *op)
{
	AUTO_FD int ns_fd = builder_open_init_proc(work, "ns/mnt", O_RDONLY);
	int r = ns_fd < 0 ? ns_fd : sys_setns(ns_fd, CLONE_NEWNS);

	(void)op;
	if (r < 0)
		return r;
	work->root_fd = sys_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
	return work->root_fd < 0 ? work->root_fd : 0;
}

static int op_keep(struct work *work, const struct op_wire *op)
{
	struct mount_attr attr = { .attr_set = op->attrs, .propagation = MS_PRIVATE };
	AUTO_FD int at_fd = op->flags & OPF_ROOT_SRC
		? place_open_root_source(work, text(work, op->a))
		: sys_open_in_root(work->root_fd, text(work, op->a), O_PATH, 0);
	int fd = at_fd < 0
		? at_fd
		: sys_open_tree(at_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);

	work->slots[op->number] = fd;
	if (fd < 0)
		return fd;
	return op->attrs ? sys_mount_setattr(fd, AT_RECURSIVE, &attr) : 0;
}

/* What was not there to be kept is not there. */
static int op_put(struct work *work, const struct op_wire *op)
{
	int fd = work->slots[op->number];

	if (fd < 0)
		return op->flags & OPF_OPTIONAL ? -ENOENT : -EBADF;
	return op->flags & OPF_IN_ROOT ? place_attach(work, op, fd, text(work, op->a))
				       : place_move(work, fd, text(work, op->a));
}

/* A shim of an older commit has to be told before it leaves (number 0). */
static int op_home(struct work *work, const struct op_wire *op)
{
	int r;

	if (op->number == 0)
		return 0;
	auto_fd(&work->root_fd); /* the container's */
	r = sys_setns(work->own_mnt_fd, CLONE_NEWNS);
	return r < 0 ? r : result(fchdir(work->skeleton_fd));
}

static int op_join(struct work *work, const struct op_wire *op)
{
	return sys_setns(work->init_pid_fd, (int)op->number);
}

static int op_pivot(struct work *work, const struct op_wire *op)
{
	(void)op;
	return sys_pivot_into(work->root_fd);
}

int (*const builder_run[N_OPS])(struct work *, const struct op_wire *) = {
	[OP_CGROUP_JOIN] = op_cgroup_join,
	[OP_UNSHARE] = op_unshare,
	[OP_INIT] = op_init,
	[OP_ID_MAP] = op_id_map,
	[OP_SKELETON] = op_skeleton,
	[OP_MOUNT] = op_mount,
	[OP_MKDIR] = op_mkdir,
	[OP_MKNOD] = op_mknod,
	[OP_SYMLINK] = op_symlink,
	[OP_FILE] = op_file,
	[OP_BIND] = op_bind,
	[OP_MOVE] = op_move,
	[OP_OVERLAY] = op_overlay,
	[OP_PIVOT] = op_pivot,
	[OP_USERNS] = op_userns,
	[OP_TAKE] = op_take,
	[OP_ENTER] = op_enter,
	[OP_KEEP] = op_keep,
	[OP_PUT] = op_put,
	[OP_HOME] = op_home,
	[OP_JOIN] = op_join,
	[OP_PROGRAM] = program_make,
	[OP_SYSCTL] = builder_sysctl,
	[OP_VETH] = builder_veth,
	[OP_ADDRESS] = builder_address,
	[OP_ROUTE] = builder_route,
	[OP_MAC] = builder_mac,
};

/* Runs in a child of the shim: system calls only (tests/lint/child.allow). It stays in the host's
 * user namespace, so every mount that it makes is locked for the container, whose own mount tree is
 * a copy. */
#include "shim/builder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/msg.h"
#include "linux/sys.h"
#include "shim/init.h"
#include "shim/protocol.h"

#define MAX_LINKS 8 /* of those that lead nowhere, one after the other */

struct work {
	const struct builder *builder;
	const struct plan_wire *plan;
	int skeleton_fd, root_fd, init_pid_fd, userns_fd;
	pid_t init_pid;
	struct msg_built *report; /* shared with the helper */
	int *slots; /* MAX_SLOTS mounts that are attached nowhere; -1: none */
};

static unsigned char space[MSG_INLINE_BYTES] __attribute__((aligned(16)));

static const char *text(const struct work *work, uint32_t offset)
{
	return (const char *)work->plan + offset;
}

static int result(int r)
{
	return r < 0 ? -errno : r;
}

/* ---- where things go ------------------------------------------------------------------------- */

static int open_skeleton(const struct work *work, const char *path, int flags)
{
	return sys_open_beneath(work->skeleton_fd, path, O_PATH | flags, 0);
}

static int open_or_make_in_root(const struct work *work, const char *path, bool is_dir, int depth);

/* part is a link that leads nowhere: makes what it names, inside of the root like everything else.
 */
static int make_link_target(const struct work *work, int parent_fd, const char *part,
	size_t name_at, bool is_dir, int depth)
{
	char target[4096];
	AUTO_FD int fd = -1;
	ssize_t n;

	if (depth == 0)
		return -ELOOP;
	n = readlinkat(parent_fd, part + name_at, target, sizeof(target) - 1);
	if (n < 0)
		return errno == EINVAL ? -ELOOP : -errno;
	target[n] = '\0';
	if (target[0] != '/') {
		if (name_at + n >= sizeof(target))
			return -ENAMETOOLONG;
		memmove(target + name_at, target, n + 1);
		memcpy(target, part, name_at);
	}
	fd = open_or_make_in_root(work, target, is_dir, depth - 1);
	return fd < 0 ? fd : 0;
}

/* One component that is missing. */
static int make_part(const struct work *work, int parent_fd, const char *part, size_t name_at,
	bool is_dir, int depth)
{
	int r = is_dir ? mkdirat(parent_fd, part + name_at, 0755)
		       : mknodat(parent_fd, part + name_at, S_IFREG | 0644, 0);

	if (r == 0)
		return 0;
	return errno == EEXIST ? make_link_target(work, parent_fd, part, name_at, is_dir, depth)
			       : -errno;
}

/* Opens path in the root, making what is missing: directories, and at the end a file if !is_dir.
 * Each part is looked up as the container would see it. */
static int open_or_make_in_root(const struct work *work, const char *path, bool is_dir, int depth)
{
	AUTO_FD int parent_fd = sys_open_in_root(work->root_fd, "/", O_PATH | O_DIRECTORY, 0);
	size_t len = strlen(path), start = strspn(path, "/");
	char part[4096];

	if (len >= sizeof(part))
		return -ENAMETOOLONG;
	while (parent_fd >= 0 && start < len) {
		size_t end = start + strcspn(path + start, "/");
		size_t next = end + strspn(path + end, "/");
		int fd, r = 0;

		memcpy(part, path, end);
		part[end] = '\0';
		fd = sys_open_in_root(work->root_fd, part, O_PATH, 0);
		if (fd == -ENOENT) {
			r = make_part(work, parent_fd, part, start, next < len || is_dir, depth);
			fd = r < 0 ? r : sys_open_in_root(work->root_fd, part, O_PATH, 0);
		}
		auto_fd(&parent_fd);
		parent_fd = fd;
		start = next;
	}
	return TAKE_FD(parent_fd);
}

/* A link of the image may have led a mount of the user's onto one of ours. */
static int refuse_kernel_trees(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	switch ((unsigned long)fs.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
		return -EPERM;
	default:
		return 0;
	}
}

static bool is_dir_fd(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static int open_target(
	const struct work *work, const struct op_wire *op, const char *path, bool is_dir)
{
	AUTO_FD int fd = -1;
	int r;

	if (!(op->flags & OPF_IN_ROOT))
		return open_skeleton(work, path, 0);
	fd = open_or_make_in_root(work, path, is_dir, MAX_LINKS);
	if (fd < 0)
		return fd;
	r = refuse_kernel_trees(fd);
	return r < 0 ? r : TAKE_FD(fd);
}

/* From here on the builder makes files as the container's root, and keeps its capabilities. */
static int become_container_root(const struct work *work)
{
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
		return -errno;
	setfsgid(work->plan->root_gid);
	setfsuid(work->plan->root_uid);
	return 0;
}

static int attach(struct work *work, const struct op_wire *op, int mount_fd, const char *path)
{
	AUTO_FD int target_fd = open_target(work, op, path, is_dir_fd(mount_fd));
	int r;

	if (target_fd < 0)
		return target_fd;
	r = sys_move_mount(mount_fd, target_fd);
	if (r < 0 || !(op->flags & OPF_ROOT_ITSELF))
		return r;
	work->root_fd = fcntl(mount_fd, F_DUPFD_CLOEXEC, 3);
	return work->root_fd < 0 ? -errno : become_container_root(work);
}

/* ---- operations: each 0 or -errno ------------------------------------------------------------ */

static int op_cgroup_join(struct work *work, const struct op_wire *op)
{
	return sys_write_file(AT_FDCWD, text(work, op->a), "0");
}

static int op_unshare(struct work *work, const struct op_wire *op)
{
	int r = sys_unshare((int)op->number);

	(void)work;
	if (r == 0 && op->number & CLONE_NEWNS)
		r = sys_make_private("/");
	return r;
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
	work->init_pid = sys_clone3(&args);
	if (work->init_pid == 0)
		init_main(work->builder->init_fd, work->builder->argv0);
	return work->init_pid < 0 ? work->init_pid : 0;
}

/* "123/<name>" below our procfs */
static int open_init_proc(const struct work *work, const char *name, int flags)
{
	char path[64], digits[16];
	size_t n = 0, len = 0;

	for (pid_t pid = work->init_pid; pid; pid /= 10)
		digits[n++] = (char)('0' + pid % 10);
	while (n)
		path[len++] = digits[--n];
	path[len++] = '/';
	memcpy(path + len, name, strlen(name) + 1);
	return sys_open_at(work->builder->proc_fd, path, flags, 0, 0);
}

static int write_map(const struct work *work, const char *name, const char *map)
{
	AUTO_FD int fd = open_init_proc(work, name, O_WRONLY);
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
	work->userns_fd = open_init_proc(work, "ns/user", O_RDONLY);
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
	AUTO_FD int mount_fd =
		make_mount("tmpfs", "mode=700,size=1m,nr_inodes=4k", MOUNT_ATTR_NOSUID);
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
	return mount_fd < 0 ? mount_fd : attach(work, op, mount_fd, text(work, op->a));
}

static int op_mkdir(struct work *work, const struct op_wire *op)
{
	return result(mkdirat(work->skeleton_fd, text(work, op->a), (mode_t)op->number));
}

static int give_to_root(const struct work *work, const char *path)
{
	return result(fchownat(work->skeleton_fd, path, work->plan->root_uid, work->plan->root_gid,
		AT_SYMLINK_NOFOLLOW));
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
	place_fd = open_skeleton(work, place, 0);
	return place_fd < 0
		? place_fd
		: sys_open_in_root(place_fd, source + n + (source[n] == '/'), O_PATH, 0);
}

static int clone_source(const struct work *work, const struct op_wire *op)
{
	unsigned flags =
		OPEN_TREE_CLONE | AT_EMPTY_PATH | (op->flags & OPF_RECURSIVE ? AT_RECURSIVE : 0);
	AUTO_FD int source_fd = -1;

	if (op->flags & OPF_PART)
		source_fd = open_part(work, text(work, op->a));
	else if (op->flags & OPF_SKELETON_SRC)
		source_fd = open_skeleton(work, text(work, op->a), 0);
	else
		return sys_open_tree(AT_FDCWD, text(work, op->a), flags & ~(unsigned)AT_EMPTY_PATH);
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
	return r < 0 ? r : attach(work, op, tree_fd, text(work, op->b));
}

/* Our own /dev, /proc and /sys go onto real directories of the image or onto new ones: a link or a
 * file in their place is refused (CVE-2019-19921 and its kin). */
static int op_move(struct work *work, const struct op_wire *op)
{
	const char *name = text(work, op->b);
	AUTO_FD int from_fd = open_skeleton(work, text(work, op->a), 0);
	AUTO_FD int to_fd = -1;

	if (from_fd < 0)
		return from_fd;
	if (mkdirat(work->root_fd, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	to_fd = sys_open_beneath(work->root_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	return to_fd < 0 ? to_fd : sys_move_mount(from_fd, to_fd);
}

/* An overlay made with an fsuid that its layers do not map turns read-only without a word. */
static int probe_writable(int mount_fd)
{
	static const char name[] = ".cloche-probe";
	AUTO_FD int fd = sys_open_beneath(mount_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	if (fd < 0)
		return fd;
	return result(unlinkat(mount_fd, name, 0));
}

static int op_overlay(struct work *work, const struct op_wire *op)
{
	AUTO_FD int mount_fd = -1;
	int r = become_container_root(work);

	if (r < 0)
		return r;
	mount_fd = make_mount("overlay", text(work, op->b), op->attrs);
	if (mount_fd < 0)
		return mount_fd;
	r = op->attrs & MOUNT_ATTR_RDONLY ? 0 : probe_writable(mount_fd);
	return r < 0 ? r : attach(work, op, mount_fd, text(work, op->a));
}

static int op_userns(struct work *work, const struct op_wire *op)
{
	(void)op;
	work->userns_fd = open_init_proc(work, "ns/user", O_RDONLY);
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
	AUTO_FD int ns_fd = open_init_proc(work, "ns/mnt", O_RDONLY);
	int r = ns_fd < 0 ? ns_fd : sys_setns(ns_fd, CLONE_NEWNS);

	(void)op;
	if (r < 0)
		return r;
	work->root_fd = sys_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
	return work->root_fd < 0 ? work->root_fd : 0;
}

static int op_keep(struct work *work, const struct op_wire *op)
{
	AUTO_FD int at_fd = sys_open_in_root(work->root_fd, text(work, op->a), O_PATH, 0);
	int fd = at_fd < 0
		? at_fd
		: sys_open_tree(at_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);

	work->slots[op->number] = fd;
	return fd < 0 ? fd : 0;
}

static int op_put(struct work *work, const struct op_wire *op)
{
	int fd = work->slots[op->number];

	return fd < 0 ? -EBADF : attach(work, op, fd, text(work, op->a));
}

static int op_pivot(struct work *work, const struct op_wire *op)
{
	(void)op;
	return sys_pivot_into(work->root_fd);
}

static int (*const run[N_OPS])(struct work *, const struct op_wire *) = {
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
};

/* ---- walking a plan -------------------------------------------------------------------------- */

static int walk(struct work *work, uint32_t *step, bool in_helper)
{
	const struct plan_wire *plan = work->plan;
	int r = 0;

	for (; *step < plan->n_ops && r == 0; ++*step) {
		const struct op_wire *op = &plan->ops[*step];

		if (!(op->flags & OPF_IN_HELPER) == in_helper)
			break;
		r = run[op->code](work, op);
		if (r == -ENOENT && op->flags & OPF_OPTIONAL)
			r = 0;
		work->report->step = *step;
	}
	return work->report->code = r;
}

/* A child of ours is born into the container's pid namespace; the network and ipc ones it enters.
 */
static int walk_in_helper(struct work *work, uint32_t *step)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return work->report->code = -errno;
	if (pid == 0) {
		work->report->code = sys_setns(work->init_pid_fd, CLONE_NEWNET | CLONE_NEWIPC);
		if (work->report->code == 0)
			walk(work, step, true);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		return work->report->code = -ECHILD;
	while (*step < work->plan->n_ops && work->plan->ops[*step].flags & OPF_IN_HELPER)
		++*step;
	return work->report->code;
}

static void walk_all(struct work *work, const struct plan_wire *plan)
{
	uint32_t step = 0;
	int r = 0;

	work->plan = plan;
	work->report->step = 0;
	work->report->code = 0;
	while (step < plan->n_ops && r == 0)
		r = plan->ops[step].flags & OPF_IN_HELPER ? walk_in_helper(work, &step)
							  : walk(work, &step, false);
	work->report->init_pid = work->init_pid;
	if (msg_send(work->builder->report_fd,
		    &(struct msg){ .type = MSG_BUILT,
			    .body = work->report,
			    .body_bytes = sizeof(*work->report) }) < 0 ||
		r < 0)
		_exit(1);
}

static void prepare(struct work *work, const struct builder *builder)
{
	static int slots[MAX_SLOTS];

	*work = (struct work){ .builder = builder,
		.skeleton_fd = -1,
		.root_fd = -1,
		.init_pid_fd = -1,
		.userns_fd = -1,
		.slots = slots };
	for (int i = 0; i < MAX_SLOTS; i++)
		slots[i] = -1;
	umask(022);
	work->report = mmap(NULL, sizeof(*work->report), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (work->report == MAP_FAILED)
		_exit(1);
}

_Noreturn void builder_refresh(const struct builder *builder, pid_t init_pid)
{
	struct work work;

	prepare(&work, builder);
	work.init_pid = init_pid;
	walk_all(&work, builder->prepare);
	_exit(0);
}

_Noreturn void builder_main(const struct builder *builder)
{
	struct work work;
	struct msg msg;

	prepare(&work, builder);
	walk_all(&work, builder->prepare);
	if (msg_recv(builder->report_fd, &msg, space, 0) < 0 || msg.type != MSG_BIRTH ||
		plan_check(msg.body, msg.body_bytes) < 0)
		_exit(1);
	walk_all(&work, msg.body);
	_exit(0);
}

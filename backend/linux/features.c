#include "linux/features.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/parse.h"
#include "linux/devices.h"
#include "linux/features_internal.h"
#include "linux/landlock.h"
#include "linux/sys.h"
#include "linux/tree.h"

#define SITE ".cloche-doctor-" /* and a pid */
#define GROUP "cloche-doctor-"

int feature_lacks(struct trial *trial, int code, const char *fmt, ...)
{
	char *reason = trial->feature->reason;
	size_t room = sizeof(trial->feature->reason);
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(reason, room, fmt, args);
	va_end(args);
	if (code < 0 && n >= 0 && (size_t)n < room)
		snprintf(reason + n, room - n, ": %s", strerrordesc_np(-code));
	return code < 0 ? code : -ENOTSUP;
}

/* What those have left in a directory that were killed: names of a prefix and a pid. */
static void remove_old(
	int dir_fd, const char *prefix, void (*take_away)(int dir_fd, const char *name))
{
	int fd = sys_open_at(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	uint64_t pid;

	if (!dir && fd >= 0)
		close(fd);
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)) &&
			parse_u64(entry->d_name + strlen(prefix), INT32_MAX, &pid) == 0 && pid &&
			kill((pid_t)pid, 0) < 0 && errno == ESRCH)
			take_away(dir_fd, entry->d_name);
	if (dir)
		closedir(dir);
}

/* ---- processes and mounts -------------------------------------------------------------------- */

int probe_capabilities(struct trial *trial)
{
	static const struct {
		int number;
		const char *name;
	} needed[] = { { CAP_CHOWN, "CHOWN" }, { CAP_DAC_OVERRIDE, "DAC_OVERRIDE" },
		{ CAP_FOWNER, "FOWNER" }, { CAP_KILL, "KILL" }, { CAP_SETGID, "SETGID" },
		{ CAP_SETUID, "SETUID" }, { CAP_SETPCAP, "SETPCAP" }, { CAP_MKNOD, "MKNOD" },
		{ CAP_SYS_ADMIN, "SYS_ADMIN" }, { CAP_SYS_CHROOT, "SYS_CHROOT" } };
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	char missing[128] = "";
	size_t len = 0;

	if (syscall(SYS_capget, &head, data) < 0)
		return feature_lacks(trial, -errno, "capget");
	for (size_t i = 0; i < N_ELEMENTS(needed); i++)
		if (!(data[0].effective >> needed[i].number & 1))
			len += snprintf(
				missing + len, sizeof(missing) - len, " CAP_%s", needed[i].name);
	return len ? feature_lacks(trial, 0, "missing:%s; it must run as root", missing) : 0;
}

static int write_map(int proc_fd, const char *file, uint32_t base)
{
	char map[64];

	snprintf(map, sizeof(map), "0 %u 65536\n", base);
	return sys_write_file(proc_fd, file, map);
}

/* Maps the ids of a waiting child and takes hold of its user namespace. */
static int take_userns(struct trial *trial, pid_t pid)
{
	char path[32];
	AUTO_FD int proc_fd = -1;
	int r;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	proc_fd = sys_open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0);
	if (proc_fd < 0)
		return feature_lacks(trial, proc_fd, "%s", path);
	r = write_map(proc_fd, "uid_map", trial->input->id_base);
	if (r == 0)
		r = write_map(proc_fd, "gid_map", trial->input->id_base);
	if (r < 0)
		return feature_lacks(trial, r, "a map of ids from %u on", trial->input->id_base);
	trial->userns_fd = sys_open_at(proc_fd, "ns/user", O_RDONLY, 0, 0);
	return trial->userns_fd < 0 ? feature_lacks(trial, trial->userns_fd, "%s/ns/user", path)
				    : 0;
}

static _Noreturn void wait_for_the_end(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

int probe_namespaces(struct trial *trial)
{
	struct clone_args args = { .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID |
			CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
		.exit_signal = SIGCHLD };
	pid_t pid = sys_clone3(&args);
	int r;

	if (pid == 0)
		wait_for_the_end();
	if (pid < 0)
		return feature_lacks(trial, pid,
			"clone3 with all of them (see /proc/sys/user/max_*_namespaces)");
	r = take_userns(trial, pid);
	kill(pid, SIGKILL);
	TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
	return r;
}

int probe_idmap(struct trial *trial)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	AUTO_FD int tree_fd = -1;
	int r;

	if (trial->work_fd < 0)
		return feature_lacks(trial, trial->work_fd, "%s", trial->input->work_dir);
	if (trial->userns_fd < 0)
		return feature_lacks(trial, 0, "there is no user namespace to map to");
	tree_fd = sys_open_tree(trial->work_fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
	if (tree_fd < 0)
		return feature_lacks(trial, tree_fd, "open_tree");
	attr.userns_fd = trial->userns_fd;
	r = sys_mount_setattr(tree_fd, AT_EMPTY_PATH, &attr);
	return r < 0 ? feature_lacks(trial, r, "mount_setattr (its file system cannot be mapped)")
		     : 0;
}

/* In a child with a mount namespace of its own, below a directory that the parent removes. */
static int mount_overlay(int site_fd)
{
	int r = fchdir(site_fd) < 0 ? -errno : sys_unshare(CLONE_NEWNS); /* which moves along */

	if (r == 0)
		r = sys_make_private("/");
	if (r == 0)
		r = sys_mount_overlay("m", "lowerdir=l,upperdir=u,workdir=w", MS_NODEV | MS_NOSUID);
	if (r < 0)
		return r;
	return mkdir("m/d", 0700) < 0 || unlink("m/f") < 0 ? -errno : 0;
}

int feature_run_in_child(int (*body)(int), int fd)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	pid_t pid = sys_clone3(&args);
	int status;

	if (pid == 0)
		_exit(-body(fd) & 255);
	if (pid < 0)
		return pid;
	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) < 0 || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

static const char *const site_dirs[] = { "l", "u", "w", "m" };

static int make_site(int work_fd, const char *name)
{
	AUTO_FD int site_fd = -1;
	int fd;

	if (mkdirat(work_fd, name, 0700) < 0)
		return -errno;
	site_fd = sys_open_beneath(work_fd, name, O_RDONLY | O_DIRECTORY, 0);
	for (size_t i = 0; i < N_ELEMENTS(site_dirs) && site_fd >= 0; i++)
		if (mkdirat(site_fd, site_dirs[i], 0700) < 0)
			return -errno;
	if (site_fd >= 0) {
		fd = sys_open_beneath(site_fd, "l/f", O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd < 0)
			return fd;
		close(fd);
	}
	return TAKE_FD(site_fd);
}

static void remove_site(int work_fd, const char *name)
{
	AUTO_FD int site_fd = sys_open_beneath(work_fd, name, O_RDONLY | O_DIRECTORY, 0);

	if (site_fd >= 0)
		tree_empty(site_fd, -1);
	unlinkat(work_fd, name, AT_REMOVEDIR);
}

int probe_overlay(struct trial *trial)
{
	AUTO_FD int site_fd = -1;
	char name[48];
	int r;

	if (trial->work_fd < 0)
		return feature_lacks(trial, trial->work_fd, "%s", trial->input->work_dir);
	remove_old(trial->work_fd, SITE, remove_site);
	snprintf(name, sizeof(name), SITE "%d", getpid());
	site_fd = make_site(trial->work_fd, name);
	r = site_fd < 0 ? site_fd : feature_run_in_child(mount_overlay, site_fd);
	remove_site(trial->work_fd, name);
	return r < 0 ? feature_lacks(
			       trial, r, "%s", site_fd < 0 ? "make directories" : "mount and write")
		     : 0;
}

int probe_seccomp(struct trial *trial)
{
	uint32_t action = SECCOMP_RET_ERRNO;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0
		? feature_lacks(trial, -errno, "seccomp(2)")
		: 0;
}

/* ---- cgroups --------------------------------------------------------------------------------- */

static void add_words(char *words, size_t size, const char *more)
{
	size_t len = strlen(words);

	snprintf(words + len, size - len, " %.*s ", (int)strcspn(more, "\n"), more);
	for (char *p = words; (p = strchr(p, ','));)
		*p = ' ';
}

/* One line of mountinfo, as in cgroup.c. */
static void learn_mount(struct trial *trial, char *line)
{
	char *rest = strstr(line, " - cgroup"), *fields[5], path[320], words[512];
	bool is_v2 = rest && rest[9] == '2';

	if (!rest || (is_v2 && trial->has_v2))
		return;
	if (!is_v2)
		add_words(trial->v1, sizeof(trial->v1), strrchr(rest, ' ') + 1);
	for (int i = 0; i < 5; i++)
		fields[i] = strsep(&line, " ");
	if (is_v2 || !*trial->mount)
		snprintf(trial->mount, sizeof(trial->mount), "%s", fields[4]);
	if (!is_v2)
		return;
	trial->has_v2 = true;
	snprintf(path, sizeof(path), "%s/cgroup.controllers", trial->mount);
	if (sys_read_small(AT_FDCWD, path, 0, words, sizeof(words)) > 0)
		add_words(trial->v2, sizeof(trial->v2), words);
}

static void learn_cgroups(struct trial *trial)
{
	AUTO_FREE char *mounts = calloc(1, 1 << 20);
	char *rest = mounts, *line;

	if (!mounts || sys_read_small(AT_FDCWD, "/proc/self/mountinfo", 0, mounts, 1 << 20) < 0)
		return;
	while ((line = strsep(&rest, "\n")))
		learn_mount(trial, line);
}

static bool has_word(const char *words, const char *word)
{
	char text[32];

	snprintf(text, sizeof(text), " %s ", word);
	return strstr(words, text) != NULL;
}

static void remove_group(int mount_fd, const char *name)
{
	unlinkat(mount_fd, name, AT_REMOVEDIR);
}

int probe_cgroup(struct trial *trial)
{
	AUTO_FD int mount_fd = -1;
	char name[48];

	if (!*trial->mount)
		return feature_lacks(trial, 0, "no hierarchy is mounted");
	mount_fd = sys_open_at(AT_FDCWD, trial->mount, O_RDONLY | O_DIRECTORY, 0, 0);
	if (mount_fd < 0)
		return feature_lacks(trial, mount_fd, "%s", trial->mount);
	remove_old(mount_fd, GROUP, remove_group);
	snprintf(name, sizeof(name), GROUP "%d", getpid());
	if (mkdirat(mount_fd, name, 0755) < 0)
		return feature_lacks(trial, -errno, "make a group in %s", trial->mount);
	remove_group(mount_fd, name);
	return 0;
}

int probe_unified(struct trial *trial)
{
	return trial->has_v2 ? 0 : feature_lacks(trial, 0, "it is not mounted");
}

static int probe_controller(struct trial *trial, const char *v1_name, const char *v2_name)
{
	return has_word(trial->v1, v1_name) || has_word(trial->v2, v2_name)
		? 0
		: feature_lacks(
			  trial, 0, "no controller %s, and none %s of version 1", v2_name, v1_name);
}

#define CONTROLLER(probe, v1_name, v2_name)                                                        \
	int probe_##probe(struct trial *trial)                                                     \
	{                                                                                          \
		return probe_controller(trial, v1_name, v2_name);                                  \
	}
CONTROLLER(memory, "memory", "memory")
CONTROLLER(cpu, "cpu", "cpu")
CONTROLLER(pids, "pids", "pids")
CONTROLLER(io, "blkio", "io")

int probe_devices(struct trial *trial)
{
	int r = has_word(trial->v1, "devices") ? 0 : device_program_try();

	return r < 0
		? feature_lacks(trial, r, "no version 1 controller, and bpf(2) refused the program")
		: 0;
}

/* ---- the rest -------------------------------------------------------------------------------- */

int probe_landlock(struct trial *trial)
{
	int version = landlock_version();

	if (version < 0)
		return feature_lacks(trial, version, "landlock_create_ruleset");
	return version >= 2 ? 0 : feature_lacks(trial, 0, "version %d, 2 is needed", version);
}

int probe_resource(struct trial *trial)
{
	struct rlimit limit;

	if (prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1)
		return 0;
	getrlimit(RLIMIT_NOFILE, &limit);
	return feature_lacks(trial, 0, "not in the bounding set; at most %llu open files a process",
		(unsigned long long)limit.rlim_max);
}

int probe_files(struct trial *trial)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return feature_lacks(trial, -errno, "getrlimit");
	return limit.rlim_max >= 65536 ? 0
				       : feature_lacks(trial, 0, "the hard limit is %llu",
						 (unsigned long long)limit.rlim_max);
}

static int open_device(struct trial *trial, const char *path)
{
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 ? feature_lacks(trial, -errno, "open %s", path) : 0;
}

int probe_fuse(struct trial *trial)
{
	return open_device(trial, "/dev/fuse");
}

int probe_tun(struct trial *trial)
{
	return open_device(trial, "/dev/net/tun");
}

/* The directory, or what exists above it. */
static int open_above(const char *path)
{
	AUTO_FREE char *above = strdup(path);
	int fd = above ? -ENOENT : -ENOMEM;

	while (fd == -ENOENT) {
		char *slash;

		fd = sys_open_at(AT_FDCWD, *above ? above : "/", O_RDONLY | O_DIRECTORY, 0, 0);
		slash = strrchr(above, '/');
		if (fd != -ENOENT || !slash)
			break;
		*slash = '\0';
	}
	return fd;
}

void features_probe(const struct features_input *input,
	void (*visit)(const struct feature *feature, void *arg), void *arg)
{
	static const struct {
		int (*probe)(struct trial *trial);
		enum feature_need need;
		const char *name, *loss;
	} rows[] = {
#define FEATURE(probe, need, name, loss) { probe_##probe, FEATURE_##need, name, loss },
#include "linux/features.def"
#undef FEATURE
	};
	struct trial trial = {
		.input = input, .work_fd = open_above(input->work_dir), .userns_fd = -1
	};

	learn_cgroups(&trial);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct feature feature = {
			.name = rows[i].name, .loss = rows[i].loss, .need = rows[i].need
		};

		trial.feature = &feature;
		feature.code = rows[i].probe(&trial);
		visit(&feature, arg);
	}
	auto_fd(&trial.work_fd);
	auto_fd(&trial.userns_fd);
}

#include "linux/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/parse.h"
#include "base/strv.h"
#include "linux/cgroup_base.h"
#include "linux/devices.h"
#include "linux/sys.h"

/* The v1 controllers that limits, metrics and devices need. cpuset wants to be filled before use,
 * and nothing of ours does. freezer only where there is no v2 tree to freeze with. */
static const char *const wanted[] = { "cpu", "cpuacct", "memory", "devices", "pids", "blkio" };

static bool is_wanted(const char *controllers)
{
	for (size_t i = 0; i < N_ELEMENTS(wanted); i++) {
		size_t len = strlen(wanted[i]);

		for (const char *p = controllers; (p = strstr(p, wanted[i])); p += len)
			if ((p == controllers || p[-1] == ',') && (p[len] == '\0' || p[len] == ','))
				return true;
	}
	return false;
}

/* "5:devices:/own/path" or "0::/own/path" of /proc/self/cgroup; own is where the path is copied */
static bool own_group(char *table, const char *controllers, char *own, size_t own_bytes)
{
	size_t len = strlen(controllers);

	for (char *line = table; line && *line;
		line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char *names = strchr(line, ':');
		size_t n;

		if (!names || strncmp(names + 1, controllers, len) || names[1 + len] != ':')
			continue;
		n = strcspn(names + 2 + len, "\n");
		if (n >= own_bytes)
			return false;
		memcpy(own, names + 2 + len, n);
		own[n] = '\0';
		return true;
	}
	return false;
}

/* What is known while the hierarchies are looked for. */
struct search {
	struct cgroups *groups;
	char *table; /* /proc/self/cgroup */
	const char *instance, *v2_parent;
	const struct strv *recorded;
	struct err *err;
};

/* The parent group of before in this hierarchy, if there are still groups in it. NULL: none, or it
 * has just been removed. */
static const char *find_recorded(const struct search *search, const char *mount)
{
	size_t len = strlen(mount);

	for (size_t i = 0; i < search->recorded->n_items; i++) {
		const char *path = search->recorded->items[i];

		if (!strncmp(path, mount, len) && path[len] == '/' && rmdir(path) < 0 &&
			errno != ENOENT)
			return path;
	}
	return NULL;
}

/* Where a hierarchy's parent group lies: below the server's own in v1. */
static int find_base(const struct search *search, const char *mount, const char *own, bool is_v2,
	char **ret_base)
{
	struct cgroups *groups = search->groups;
	struct cgroup_base base;
	int r;

	if (!is_v2)
		return asprintf(ret_base, "%s%s", mount, own[1] ? own : "") < 0
			? err_system(search->err, -ENOMEM, "cgroups")
			: 0;
	r = cgroup_base_find(&base, mount, own, search->v2_parent, search->err);
	if (r < 0)
		return r;
	*ret_base = base.path;
	groups->is_chosen = base.is_chosen;
	snprintf(groups->reason, sizeof(groups->reason), "%s", base.reason);
	return 0;
}

static int find_parent(const struct search *search, const char *mount, const char *own, bool is_v2,
	char **ret_parent)
{
	const char *recorded = find_recorded(search, mount);
	AUTO_FREE char *base = NULL;
	int r = 0;

	if (!recorded)
		r = find_base(search, mount, own, is_v2, &base);
	if (r < 0)
		return r;
	*ret_parent = recorded ? strdup(recorded) : NULL;
	if (recorded && is_v2 && search->v2_parent) /* it may be the very one */
		snprintf(search->groups->reason, sizeof(search->groups->reason),
			"%.200s still holds containers", recorded);
	if (!recorded && asprintf(ret_parent, "%s/cloche-%s", base, search->instance) < 0)
		*ret_parent = NULL;
	return *ret_parent ? 0 : err_system(search->err, -ENOMEM, "cgroups");
}

static int add_hierarchy(const struct search *search, const char *mount, const char *name)
{
	struct cgroups *groups = search->groups;
	struct hierarchy *hierarchy = &groups->all[groups->n_all];
	char own[2048];
	int r;

	if (groups->n_all == MAX_HIERARCHIES || strlen(name) >= sizeof(hierarchy->name))
		return err_system(search->err, -E2BIG, "cgroup hierarchy at %.200s", mount);
	if (!own_group(search->table, name, own, sizeof(own)))
		return 0;
	r = find_parent(search, mount, own, !*name, &hierarchy->parent);
	if (r < 0)
		return r;
	snprintf(hierarchy->name, sizeof(hierarchy->name), "%s", name);
	hierarchy->is_v2 = !*name;
	hierarchy->joins = !hierarchy->is_v2;
	if (hierarchy->is_v2)
		groups->v2 = groups->n_all;
	groups->n_all++;
	return 0;
}

/* One line of mountinfo: ... mountpoint opts [tags] - type source superopts. The controllers of v1
 * are among the superopts; those of a hierarchy that we do not want are passed over. */
static int add_mount(const struct search *search, char *line)
{
	char *rest = strstr(line, " - "), *fields[5], *save = line, controllers[256] = "";
	char *type, *options;

	if (!rest)
		return 0;
	for (int i = 0; i < 5; i++)
		fields[i] = strsep(&save, " ");
	*rest = '\0';
	rest += 3;
	type = strsep(&rest, " ");
	if (!strcmp(type, "cgroup2"))
		return search->groups->v2 >= 0 ? 0 : add_hierarchy(search, fields[4], "");
	if (strcmp(type, "cgroup") || !strsep(&rest, " "))
		return 0;
	for (options = rest; options;) {
		const char *option = strsep(&options, ",");

		if (!strcmp(option, "rw") || !strcmp(option, "ro"))
			continue;
		if (strlen(controllers) + strlen(option) + 2 > sizeof(controllers))
			return err_system(
				search->err, -E2BIG, "cgroup hierarchy at %.200s", fields[4]);
		snprintf(controllers + strlen(controllers),
			sizeof(controllers) - strlen(controllers), "%s%s", *controllers ? "," : "",
			option);
	}
	return is_wanted(controllers) ? add_hierarchy(search, fields[4], controllers) : 0;
}

int cgroups_find(struct cgroups *groups, const char *instance, const char *v2_parent,
	const struct strv *recorded, struct err *err)
{
	AUTO_FREE char *table = calloc(1, 65536), *mounts = calloc(1, 1 << 20);
	struct search search = { groups, table, instance, v2_parent, recorded, err };
	char *rest = mounts, *line;
	ssize_t n;
	int r;

	*groups = (struct cgroups){ .v2 = -1 };
	if (!table || !mounts)
		return err_system(err, -ENOMEM, "cgroups");
	n = sys_read_small(AT_FDCWD, "/proc/self/cgroup", 0, table, 65536);
	if (n >= 0)
		n = sys_read_small(AT_FDCWD, "/proc/self/mountinfo", 0, mounts, 1 << 20);
	if (n < 0)
		return err_system(err, n, "read /proc/self/{cgroup,mountinfo}");
	while ((line = strsep(&rest, "\n"))) {
		r = add_mount(&search, line);
		if (r < 0)
			return r;
	}
	if (groups->n_all == 0)
		return err_set(err, ERR_SYSTEM, ENOENT, "no cgroup hierarchy is mounted");
	if (v2_parent && groups->v2 < 0)
		return err_set(err, ERR_INVALID, ENOENT,
			"--cgroup-parent %.100s: there is no cgroup v2 hierarchy", v2_parent);
	return 0;
}

int cgroups_make(struct cgroups *groups, struct err *err)
{
	for (int i = 0; i < groups->n_all; i++) {
		const struct hierarchy *hierarchy = &groups->all[i];

		if (mkdir(hierarchy->parent, 0755) < 0 && errno != EEXIST)
			return err_system(err, -errno, "cgroup %.200s", hierarchy->parent);
		if (hierarchy->is_v2) /* what is refused is seen in handed_down */
			cgroup_hand_down(hierarchy->parent, groups->handed_down);
	}
	return 0;
}

void cgroups_close(struct cgroups *groups)
{
	for (int i = 0; i < groups->n_all; i++) {
		rmdir(groups->all[i].parent);
		free(groups->all[i].parent);
	}
	groups->n_all = 0;
}

char *cgroup_path(const struct hierarchy *hierarchy, const char *id, const char *file)
{
	char *path;

	if (asprintf(&path, "%s/%s%s%s", hierarchy->parent, id, file ? "/" : "", file ? file : "") <
		0)
		return NULL;
	return path;
}

static int write_to(
	const struct hierarchy *hierarchy, const char *id, const char *file, const char *text)
{
	AUTO_FREE char *path = cgroup_path(hierarchy, id, file);

	return path ? sys_write_file(AT_FDCWD, path, text) : -ENOMEM;
}

/* Those that all have, and those of the operator. */
static size_t all_rules(
	const struct cgroups *groups, bool with_fuse, struct device_rule rules[MAX_DEVICE_RULES])
{
	size_t n = device_rules(with_fuse, rules);

	for (size_t i = 0; groups->more_devices && i < groups->more_devices->n_items; i++)
		if (n < MAX_DEVICE_RULES &&
			device_rule_parse(groups->more_devices->items[i], &rules[n]) == 0)
			n++;
	return n;
}

static int allow_devices(int allow_fd, const struct device_rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char text[DEVICE_RULE_TEXT];

		device_rule_print(&rules[i], text);
		if (write(allow_fd, text, strlen(text)) < 0)
			return -errno;
	}
	return 0;
}

static int list_devices(const struct cgroups *groups, const struct hierarchy *hierarchy,
	const char *id, bool with_fuse)
{
	struct device_rule rules[MAX_DEVICE_RULES];
	size_t n = all_rules(groups, with_fuse, rules);
	int r = GUARD(DEVICES) ? write_to(hierarchy, id, "devices.deny", "a") : 0;
	AUTO_FREE char *path = cgroup_path(hierarchy, id, "devices.allow");
	AUTO_FD int allow_fd = -1;

	if (r < 0 || !path)
		return r < 0 ? r : -ENOMEM;
	allow_fd = sys_open_at(AT_FDCWD, path, O_WRONLY, 0, 0);
	return allow_fd < 0 ? allow_fd : allow_devices(allow_fd, rules, n);
}

static int program_devices(
	const struct cgroups *groups, const char *group, bool with_fuse, struct err *err)
{
	struct device_rule rules[MAX_DEVICE_RULES];
	size_t n = all_rules(groups, with_fuse, rules);
	AUTO_FD int group_fd = sys_open_at(AT_FDCWD, group, O_RDONLY | O_DIRECTORY, 0, 0);

	if (group_fd < 0)
		return err_system(err, group_fd, "cgroup %s", group);
	return GUARD(DEVICE_PROGRAM) ? device_program_attach(group_fd, rules, n, err) : 0;
}

bool cgroups_list_devices(const struct cgroups *groups)
{
	for (int i = 0; i < groups->n_all; i++)
		if (strstr(groups->all[i].name, "devices"))
			return true;
	return false;
}

/* By the v1 controller where there is one, else by a program on the v2 group. */
static int narrow_devices(const struct cgroups *groups, const struct hierarchy *hierarchy,
	const char *id, const char *group, bool with_fuse, struct err *err)
{
	int r = 0;

	if (strstr(hierarchy->name, "devices"))
		r = list_devices(groups, hierarchy, id, with_fuse);
	else if (hierarchy->is_v2 && !cgroups_list_devices(groups))
		return program_devices(groups, group, with_fuse, err);
	return r < 0 ? err_system(err, r, "cgroup %s: device list", group) : 0;
}

int cgroup_create(const struct cgroups *groups, const char *id, bool with_fuse, struct err *err)
{
	for (int i = 0; i < groups->n_all; i++) {
		const struct hierarchy *hierarchy = &groups->all[i];
		AUTO_FREE char *path = cgroup_path(hierarchy, id, NULL);
		int r = path ? 0 : -ENOMEM;

		if (r == 0 && mkdir(path, 0755) < 0 && errno != EEXIST)
			r = -errno;
		if (r < 0)
			return err_system(err, r, "cgroup %s", path ? path : hierarchy->name);
		r = narrow_devices(groups, hierarchy, id, path, with_fuse, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int cgroup_create_in(const struct hierarchy *hierarchy, const char *id, struct err *err)
{
	AUTO_FREE char *path = cgroup_path(hierarchy, id, NULL);

	if (!path)
		return err_system(err, -ENOMEM, "cgroup");
	return mkdir(path, 0755) < 0 && errno != EEXIST ? err_system(err, -errno, "cgroup %s", path)
							: 0;
}

/* The number may be anybody's by now: the descriptor is of a member if the number still is one's. */
static void kill_member(const char *id, pid_t pid)
{
	AUTO_FD int pid_fd = sys_pidfd_open(pid);
	char path[32], groups[4096];

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	if (pid_fd >= 0 && sys_read_small(AT_FDCWD, path, 0, groups, sizeof(groups)) > 0 &&
		strstr(groups, id))
		pidfd_send_signal(pid_fd, SIGKILL, NULL, 0);
}

/* For hosts without cgroup.kill: each pid of the file, until none is left or 100 rounds are over.
 */
static void kill_members(const struct hierarchy *hierarchy, const char *id)
{
	AUTO_FREE char *path = cgroup_path(hierarchy, id, "cgroup.procs");
	AUTO_FREE char *pids = malloc(65536);

	for (int round = 0; path && pids && round < 100; round++) {
		ssize_t n = sys_read_small(AT_FDCWD, path, 0, pids, 65536);
		char *rest = pids, *line;
		uint64_t pid;

		if (n <= 0)
			return;
		while ((line = strsep(&rest, "\n")))
			if (parse_u64(line, 1 << 22, &pid) == 0 && pid > 1)
				kill_member(id, (pid_t)pid);
	}
}

void cgroup_kill(const struct cgroups *groups, const char *id)
{
	if (groups->v2 >= 0 && write_to(&groups->all[groups->v2], id, "cgroup.kill", "1") == 0)
		return;
	for (int i = 0; i < groups->n_all; i++)
		kill_members(&groups->all[i], id);
}

/* A privileged container may have made groups below its own: children first, and again as long as
 * some go. */
static int remove_group(const char *path)
{
	DIR *dir;
	struct dirent *entry;
	int r;

	if (rmdir(path) == 0 || errno == ENOENT)
		return 0;
	r = -errno;
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		AUTO_FREE char *child = NULL;

		if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
			asprintf(&child, "%s/%s", path, entry->d_name) >= 0)
			remove_group(child);
	}
	if (dir)
		closedir(dir);
	return rmdir(path) == 0 || errno == ENOENT ? 0 : r;
}

int cgroup_destroy(const struct cgroups *groups, const char *id)
{
	int ret = 0;

	for (int i = 0; i < groups->n_all; i++) {
		AUTO_FREE char *path = cgroup_path(&groups->all[i], id, NULL);

		if (!path)
			return -ENOMEM;
		if (remove_group(path) == 0)
			continue;
		cgroup_kill(groups, id);
		kill_members(&groups->all[i], id); /* a builder that hung is in the v1 ones only */
		for (int tries = 0; tries < 50; tries++) {
			int r = remove_group(path);

			if (r == 0)
				break;
			if (tries == 49)
				ret = r;
			usleep(1000u << (tries < 6 ? tries : 6));
		}
	}
	return ret;
}

int cgroup_each(const struct cgroups *groups, int (*visit)(const char *id, void *arg), void *arg)
{
	for (int i = 0; i < groups->n_all; i++) {
		DIR *dir = opendir(groups->all[i].parent);
		struct dirent *entry;
		int r = 0;

		while (dir && r == 0 && (entry = readdir(dir)))
			if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
				r = visit(entry->d_name, arg);
		if (dir)
			closedir(dir);
		if (r)
			return r;
	}
	return 0;
}

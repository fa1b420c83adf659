#include "linux/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/parse.h"
#include "base/strv.h"
#include "linux/sys.h"

/* The v1 controllers that limits, metrics and devices need. cpuset wants to be filled before use,
 * and nothing of ours does. freezer only where there is no v2 tree to freeze with. */
static const char *const wanted[] = { "cpu", "cpuacct", "memory", "devices", "pids", "blkio" };

/* c 5:1 (the host's console) is not among them. */
static const char *const devices_allowed[] = { "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm",
	"c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
	"c 10:200 rwm" };
static const char device_fuse[] = "c 10:229 rwm";

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

/* "+cpu" and so on for whatever of the wanted controllers dir has. False: not allowed here, because
 * processes live in it (cgroup-v2.rst, "No Internal Process Constraint"). */
static bool pass_on_controllers(const char *dir)
{
	static const char *const ours[] = { "cpu", "memory", "pids", "io" };
	char list[256], path[4096], text[16];
	bool is_allowed = true;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", dir);
	if (sys_read_small(AT_FDCWD, path, 0, list, sizeof(list)) < 0)
		return true;
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", dir);
	for (size_t i = 0; i < N_ELEMENTS(ours); i++) {
		snprintf(text, sizeof(text), "+%s", ours[i]);
		if (strstr(list, ours[i]) && sys_write_file(AT_FDCWD, path, text) < 0)
			is_allowed = false;
	}
	return is_allowed;
}

/* The v2 controllers of our groups. Where the server's own group cannot pass them on, our groups
 * lie at the top of the hierarchy, which may. */
static int prepare_v2(
	struct hierarchy *hierarchy, const char *mount, const char *own, const char *instance)
{
	char base[4096], path[4096];
	ssize_t n;

	snprintf(base, sizeof(base), "%s%s", mount, own);
	if (!pass_on_controllers(base) && *own && pass_on_controllers(mount)) {
		free(hierarchy->parent);
		if (asprintf(&hierarchy->parent, "%s/cloche-%s", mount, instance) < 0)
			hierarchy->parent = NULL;
	}
	if (!hierarchy->parent)
		return -ENOMEM;
	if (mkdir(hierarchy->parent, 0755) < 0 && errno != EEXIST)
		return -errno;
	pass_on_controllers(hierarchy->parent);
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", hierarchy->parent);
	n = sys_read_small(
		AT_FDCWD, path, 0, hierarchy->controllers, sizeof(hierarchy->controllers));
	hierarchy->controllers[n < 0 ? 0 : strcspn(hierarchy->controllers, "\n")] = '\0';
	return 0;
}

static int add_hierarchy(struct cgroups *groups, const char *mount, const char *name, char *table,
	const char *instance)
{
	struct hierarchy *hierarchy = &groups->all[groups->n_all];
	char own[2048];
	int n;

	if (groups->n_all == MAX_HIERARCHIES || strlen(name) >= sizeof(hierarchy->name))
		return -E2BIG;
	if (!own_group(table, name, own, sizeof(own)))
		return 0;
	n = asprintf(&hierarchy->parent, "%s%s/cloche-%s", mount, own[1] ? own : "", instance);
	if (n < 0)
		return -ENOMEM;
	snprintf(hierarchy->name, sizeof(hierarchy->name), "%s", name);
	hierarchy->is_v2 = !*name;
	hierarchy->joins = !hierarchy->is_v2;
	if (hierarchy->is_v2)
		groups->v2 = groups->n_all;
	groups->n_all++;
	if (hierarchy->is_v2)
		return prepare_v2(hierarchy, mount, own[1] ? own : "", instance);
	return mkdir(hierarchy->parent, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* One line of mountinfo: ... mountpoint opts [tags] - type source superopts. The controllers of v1
 * are among the superopts; those of a hierarchy that we do not want are passed over. */
static int add_mount(struct cgroups *groups, char *line, char *table, const char *instance)
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
		return groups->v2 >= 0 ? 0 : add_hierarchy(groups, fields[4], "", table, instance);
	if (strcmp(type, "cgroup") || !strsep(&rest, " "))
		return 0;
	for (options = rest; options;) {
		const char *option = strsep(&options, ",");

		if (!strcmp(option, "rw") || !strcmp(option, "ro"))
			continue;
		if (strlen(controllers) + strlen(option) + 2 > sizeof(controllers))
			return -E2BIG;
		snprintf(controllers + strlen(controllers),
			sizeof(controllers) - strlen(controllers), "%s%s", *controllers ? "," : "",
			option);
	}
	return is_wanted(controllers)
		? add_hierarchy(groups, fields[4], controllers, table, instance)
		: 0;
}

int cgroups_open(struct cgroups *groups, const char *instance, struct err *err)
{
	AUTO_FREE char *table = calloc(1, 65536), *mounts = calloc(1, 1 << 20);
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
		r = add_mount(groups, line, table, instance);
		if (r < 0)
			return err_system(err, r, "cgroup hierarchy at %.200s", line);
	}
	if (groups->n_all == 0)
		return err_set(err, ERR_SYSTEM, ENOENT, "no cgroup hierarchy is mounted");
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

static const char *skip_number(const char *text)
{
	size_t n = *text == '*' ? 1 : strspn(text, "0123456789");

	return n && n < 8 ? text + n : NULL;
}

bool device_is_valid(const char *text)
{
	const char *p = text;
	size_t n;

	if (!*p || !strchr("abc", *p++) || *p++ != ' ')
		return false;
	p = skip_number(p);
	if (!p || *p++ != ':')
		return false;
	p = skip_number(p);
	if (!p || *p++ != ' ')
		return false;
	n = strspn(p, "rwm");
	return n >= 1 && n <= 3 && !p[n];
}

static int narrow_devices(const struct cgroups *groups, const struct hierarchy *hierarchy,
	const char *id, bool with_fuse)
{
	int r = GUARD(DEVICES) ? write_to(hierarchy, id, "devices.deny", "a") : 0;

	for (size_t i = 0; i < N_ELEMENTS(devices_allowed) && r == 0; i++)
		r = write_to(hierarchy, id, "devices.allow", devices_allowed[i]);
	if (r == 0 && with_fuse)
		r = write_to(hierarchy, id, "devices.allow", device_fuse);
	for (size_t i = 0; groups->more_devices && i < groups->more_devices->n_items && r == 0; i++)
		r = write_to(hierarchy, id, "devices.allow", groups->more_devices->items[i]);
	return r;
}

int cgroup_create(const struct cgroups *groups, const char *id, bool with_fuse, struct err *err)
{
	for (int i = 0; i < groups->n_all; i++) {
		const struct hierarchy *hierarchy = &groups->all[i];
		AUTO_FREE char *path = cgroup_path(hierarchy, id, NULL);
		int r = path ? 0 : -ENOMEM;

		if (r == 0 && mkdir(path, 0755) < 0 && errno != EEXIST)
			r = -errno;
		if (r == 0 && strstr(hierarchy->name, "devices"))
			r = narrow_devices(groups, hierarchy, id, with_fuse);
		if (r < 0)
			return err_system(err, r, "cgroup %s", path ? path : hierarchy->name);
	}
	return 0;
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
				kill((pid_t)pid, SIGKILL);
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

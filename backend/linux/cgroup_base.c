#include "linux/cgroup_base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "linux/sys.h"

/* memory and io first: they refuse a group with processes. cpu and pids do not: they would turn it
 * into the root of a threaded tree, below which no process can live (cgroup-v2.rst, "Threads"). */
static const char *const controllers[] = { "memory", "io", "cpu", "pids" };
static const char leaf[] = "/server";

/* A file of a group; the text ends at the first 0 and is "" if it cannot be read. */
static int read_file(const char *group, const char *name, char *text, size_t text_bytes)
{
	AUTO_FREE char *path = NULL;
	ssize_t n;

	*text = '\0';
	if (asprintf(&path, "%s/%s", group, name) < 0)
		return -ENOMEM;
	n = sys_read_small(AT_FDCWD, path, 0, text, text_bytes);
	if (n >= 0)
		return 0;
	*text = '\0';
	return (int)n;
}

static int write_file(const char *group, const char *name, const char *text)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", group, name) < 0)
		return -ENOMEM;
	return sys_write_file(AT_FDCWD, path, text);
}

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = words; (p = strstr(p, word)); p += len)
		if ((p == words || p[-1] == ' ') && (strchr(" \n", p[len])))
			return true;
	return false;
}

static bool has_any(const char *words)
{
	for (size_t i = 0; i < N_ELEMENTS(controllers); i++)
		if (has_word(words, controllers[i]))
			return true;
	return false;
}

/* The root of the machine alone has no type, and may have processes. */
static bool is_occupied(const char *group)
{
	char text[64];

	return read_file(group, "cgroup.type", text, sizeof(text)) == 0 &&
		(read_file(group, "cgroup.procs", text, sizeof(text)) == -EFBIG || *text);
}

int cgroup_hand_down(const char *group, char enabled[CGROUP_CONTROLLERS_SIZE])
{
	char available[512], given[512];
	size_t len = 0;
	int ret = 0, r = read_file(group, "cgroup.controllers", available, sizeof(available));

	*enabled = '\0';
	if (r == 0)
		r = read_file(group, "cgroup.subtree_control", given, sizeof(given));
	if (r == 0 && is_occupied(group))
		r = -EBUSY;
	if (r < 0)
		return r;
	for (size_t i = 0; i < N_ELEMENTS(controllers) && ret != -EBUSY; i++) {
		char order[16];

		if (!has_word(available, controllers[i]))
			continue;
		snprintf(order, sizeof(order), "+%s", controllers[i]);
		r = has_word(given, controllers[i])
			? 0
			: write_file(group, "cgroup.subtree_control", order);
		if (r == 0)
			len += snprintf(enabled + len, CGROUP_CONTROLLERS_SIZE - len, "%s%s",
				len ? " " : "", controllers[i]);
		else if (ret == 0)
			ret = r;
	}
	return ret;
}

/* ---- candidates ------------------------------------------------------------------------------ */

/* Nobody but this process, which has one thread yet. */
static bool is_alone_in(const char *group)
{
	char pids[64];
	uint64_t pid;

	if (read_file(group, "cgroup.procs", pids, sizeof(pids)) < 0)
		return false; /* more than fit are more than one */
	pids[strcspn(pids, "\n")] = '\0';
	return parse_u64(pids, INT32_MAX, &pid) == 0 && pid == (uint64_t)getpid();
}

static int move_into_leaf(const char *group)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s%s", group, leaf) < 0)
		return -ENOMEM;
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return -errno;
	return write_file(path, "cgroup.procs", "0");
}

/* 0 if it hands down, be it in part: one that is refused for a reason of its own stops no other. */
static int try_group(const char *group)
{
	char enabled[CGROUP_CONTROLLERS_SIZE];
	int r = cgroup_hand_down(group, enabled);

	return *enabled && r != -EBUSY ? 0 : r;
}

/* systemd marks what it gives away (systemd.resource-control(5), Delegate=). */
static bool is_delegated(const char *group)
{
	char text[8];

	return getxattr(group, "trusted.delegate", text, sizeof(text)) > 0 ||
		getxattr(group, "user.delegate", text, sizeof(text)) > 0;
}

/* The server of before may have moved, and this one was started from there; or systemd has made the
 * leaf (DelegateSubgroup=server). Then it is the group above that hands down. */
static void leave_leaf(char *group)
{
	char given[512], *end = group + strlen(group) - strlen(leaf);

	if (end <= group || strcmp(end, leaf))
		return;
	*end = '\0';
	if (read_file(group, "cgroup.subtree_control", given, sizeof(given)) < 0 ||
		(!has_any(given) && !is_delegated(group)))
		*end = leaf[0];
}

static int try_own(const char *group)
{
	int r = try_group(group);

	if (r != -EBUSY || !is_alone_in(group))
		return r;
	r = move_into_leaf(group);
	return r < 0 ? r : try_group(group);
}

/* Each directory of the path that is missing, below mount. */
static int make_path(const char *mount, char *path)
{
	char *p = path + strlen(mount);
	int r = 0;

	for (; p && r == 0; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return -errno;
		r = try_group(path);
		*p = '/';
	}
	if (r == 0 && mkdir(path, 0755) < 0 && errno != EEXIST)
		r = -errno;
	return r;
}

static int find_wanted(
	struct cgroup_base *base, const char *mount, const char *wanted, struct err *err)
{
	AUTO_FREE char *path = NULL;
	int r;

	wanted += strspn(wanted, "/");
	if (strstr(wanted, "..") || strlen(wanted) > 1024)
		return err_set(err, ERR_INVALID, EINVAL,
			"--cgroup-parent '/%.100s': expected the path of a group", wanted);
	if (asprintf(&path, "%s%s%s", mount, *wanted ? "/" : "", wanted) < 0)
		return err_system(err, -ENOMEM, "cgroups");
	r = *wanted ? make_path(mount, path) : 0;
	if (r < 0)
		return err_system(err, r, "--cgroup-parent /%s", wanted);
	r = try_own(path);
	if (r < 0)
		return err_system(err, r, "--cgroup-parent /%s: hand down controllers", wanted);
	base->path = TAKE_PTR(path);
	base->is_chosen = true;
	return 0;
}

int cgroup_base_find(struct cgroup_base *base, const char *mount, const char *own,
	const char *wanted, struct err *err)
{
	AUTO_FREE char *group = NULL;
	char available[512];
	int own_r;

	*base = (struct cgroup_base){ 0 };
	if (asprintf(&group, "%s%s", mount, own[1] ? own : "") < 0)
		return err_system(err, -ENOMEM, "cgroups");
	read_file(mount, "cgroup.controllers", available, sizeof(available));
	if (wanted)
		return find_wanted(base, mount, wanted, err);
	leave_leaf(group);
	own_r = has_any(available) ? try_own(group) : 0;
	if (own_r < 0) {
		snprintf(base->reason, sizeof(base->reason), "%.150s: %s", group,
			own_r == -EBUSY ? "other processes are in it" : strerrordesc_np(-own_r));
		if (try_group(mount) == 0)
			group[strlen(mount)] = '\0';
	}
	base->path = TAKE_PTR(group);
	return 0;
}

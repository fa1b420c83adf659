/* The cgroups of the floor's containers. */
#include "floor.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_GROUPS_MAX = 16 };

/* One group of our own for this run in every hierarchy, and a child group in each of them for the current container. */
struct group {
	int parent_fd;
	bool unified;
	char *path;
};

static struct group groups[N_GROUPS_MAX];
static int n_groups;

static const char *const v1_controllers[] = { "cpu", "cpuacct", "memory", "devices", "pids",
	"blkio" };

/* The path of our own group: in the line of /proc/self/cgroup that has this list of controllers, "" for v2. */
static char *own_group(const char *controller)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4096], *found = NULL;

	if (!f)
		die("open /proc/self/cgroup");
	while (!found && fgets(line, sizeof(line), f)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		*path = 0;
		path[strcspn(path + 1, "\n") + 1] = 0;
		if (strcmp(list + 1, controller) == 0)
			found = strdup(path + 1);
	}
	fclose(f);
	return found;
}

static void group_add(const char *mount_point, const char *controller)
{
	char *own = own_group(controller);
	struct group *g = &groups[n_groups];

	if (!own || access(mount_point, F_OK) < 0) {
		free(own);
		return;
	}
	if (asprintf(&g->path, "%s%s/floor-%d", mount_point, own, (int)getpid()) < 0)
		die("asprintf");
	free(own);
	must(mkdir(g->path, 0755), g->path);
	g->parent_fd = must(open(g->path, O_PATH | O_DIRECTORY | O_CLOEXEC), g->path);
	g->unified = controller[0] == 0;
	n_groups++;
}

void groups_add(void)
{
	bool pure_v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
	char mount_point[64];

	for (size_t i = 0; !pure_v2 && i < N(v1_controllers); i++) {
		snprintf(mount_point, sizeof(mount_point), "/sys/fs/cgroup/%s", v1_controllers[i]);
		group_add(mount_point, v1_controllers[i]);
	}
	group_add(pure_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified", "");
}

/* The container's groups, which the builder joins, so that init is born in them. Returns the v2 group that init is
 * cloned into, or -1. */
int groups_make(void)
{
	int unified_fd = -1;

	for (int i = 0; i < n_groups; i++) {
		must(mkdirat(groups[i].parent_fd, "c", 0755), "make a group");
		if (groups[i].unified)
			unified_fd = must(openat(groups[i].parent_fd, "c", O_RDONLY | O_CLOEXEC),
				"open a group");
	}
	return unified_fd;
}

/* cgroup.procs moves a whole process and waits for a grace period of the kernel, unless another move has just done so.
 * A thread that moves only itself, by writing 0 to tasks, needs none, and the builder has one thread. */
void groups_join(const char *file)
{
	char path[32];

	snprintf(path, sizeof(path), "c/%s", file);
	for (int i = 0; i < n_groups; i++)
		if (!groups[i].unified)
			write_file(groups[i].parent_fd, path, "0");
}

void groups_unmake(void)
{
	for (int i = 0; i < n_groups; i++)
		must(unlinkat(groups[i].parent_fd, "c", AT_REMOVEDIR), "remove a group");
}

void groups_remove(void)
{
	for (int i = 0; i < n_groups; i++) {
		unlinkat(groups[i].parent_fd, "c", AT_REMOVEDIR);
		rmdir(groups[i].path);
	}
}

/* What a process with a root of its own uses. With limits it has groups of its own for everything; without
 * them its processor time and its processes are told apart, and memory is counted in the container's
 * group, which is what is told then. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/registry.h"
#include "container.h"
#include "disk_usage.h"
#include "linux/cgroup_limits.h"
#include "linux/sys.h"
#include "metrics.h"
#include "pea.h"
#include "pea_group.h"
#include "process.h"
#include "store.h"

/* ---- which one ------------------------------------------------------------------------------- */

struct wanted {
	const char *process_id;
	struct container *container; /* held; NULL: not found */
	uint32_t token;
};

static bool find_in(struct container *container, struct wanted *wanted)
{
	struct process *process;
	bool is_it = false;

	pthread_mutex_lock(&container->table_lock);
	process = registry_find(container->processes, wanted->process_id);
	if (process) {
		pthread_mutex_lock(&process->lock);
		is_it = process->is_pea && process->is_started && !process->has_exited;
		pthread_mutex_unlock(&process->lock);
		wanted->token = process->token;
	}
	pthread_mutex_unlock(&container->table_lock);
	return is_it;
}

static int look(const char *handle, void *value, void *arg)
{
	struct container *container = value;
	struct wanted *wanted = arg;

	(void)handle;
	if (!find_in(container, wanted))
		return 0;
	container_hold(container);
	wanted->container = container;
	return 1;
}

/* ---- its groups ------------------------------------------------------------------------------ */

static int of_groups(const struct wanted *wanted, struct metrics *ret)
{
	const struct cgroups *groups = &wanted->container->backend->cgroups;
	const struct hierarchy *follower = cgroup_follower(groups);
	struct pea_group group;
	int r;

	pea_group_name(&group, wanted->container->id, wanted->token, true);
	r = metrics_of_group(groups, group.id, ret);
	if (r != -ENOENT)
		return r;
	pea_group_name(&group, wanted->container->id, wanted->token, false);
	r = metrics_of_group(groups, wanted->container->id, ret);
	if (r == 0)
		r = metrics_cpu(follower, group.id, ret);
	return r < 0 ? r : metrics_count_members(follower, group.id, &ret->n_pids);
}

/* ---- its layer ------------------------------------------------------------------------------- */

static int of_image(const struct wanted *wanted, struct usage *ret, struct err *err)
{
	struct backend *backend = wanted->container->backend;
	AUTO_FREE char *lower = NULL;
	int r = store_lower(backend->db, wanted->container->id, wanted->token, &lower, err);

	*ret = (struct usage){ 0 };
	return r < 0 || !lower ? r : disk_usage_of_image(backend, lower, ret);
}

/* The layer's directory has not been touched since it was made, right before the process. */
static int of_layer(const struct wanted *wanted, struct metrics *ret, struct err *err)
{
	const struct backend *backend = wanted->container->backend;
	AUTO_FREE char *path = NULL;
	AUTO_FD int dir_fd = -1, upper_fd = -1;
	struct usage own, image;
	struct timespec now;
	int64_t age_ns;
	struct stat st;
	int r;

	if (asprintf(&path, "%s/%s/pea-%u", backend->live_dir, wanted->container->id,
		    wanted->token) < 0)
		return -ENOMEM;
	r = dir_fd = sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, 0);
	if (r >= 0)
		r = upper_fd = sys_open_at(dir_fd, "upper", O_RDONLY | O_DIRECTORY, 0, 0);
	if (r >= 0)
		r = disk_usage_of_tree(backend, upper_fd, &own);
	if (r >= 0)
		r = of_image(wanted, &image, err);
	if (r < 0)
		return r;
	metrics_set_disk(ret, &own, &image);
	if (fstat(dir_fd, &st) == 0 && clock_gettime(CLOCK_REALTIME, &now) == 0) {
		age_ns = (now.tv_sec - st.st_mtim.tv_sec) * 1000000000LL + now.tv_nsec -
			st.st_mtim.tv_nsec;
		ret->age_ns =
			age_ns > 0 ? (uint64_t)age_ns : 0; /* the clock may have been set back */
	}
	return 0;
}

int pea_metrics(
	struct backend *backend, const char *process_id, struct metrics *ret, struct err *err)
{
	struct wanted wanted = { .process_id = process_id };
	int r;

	pthread_mutex_lock(&backend->lock);
	registry_each(backend->containers, look, &wanted);
	pthread_mutex_unlock(&backend->lock);
	if (!wanted.container)
		return err_set(err, ERR_NO_CONTAINER, ESRCH, "unknown handle: %s", process_id);
	r = of_groups(&wanted, ret);
	if (r == 0)
		r = of_layer(&wanted, ret, err);
	if (r == 0)
		metrics_of_sharers(wanted.container, ret);
	else /* it has ended meanwhile */
		r = err_system(err, r == -ENOENT ? -ESRCH : r, "metrics of %.200s", process_id);
	container_put(wanted.container);
	return r;
}

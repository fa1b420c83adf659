#include "pea_group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "linux/cgroup_limits.h"
#include "linux/sys.h"
#include "resource_limits.h"

void pea_group_name(
	struct pea_group *group, const char *container_id, uint32_t token, bool is_apart)
{
	group->is_apart = is_apart;
	snprintf(group->id, sizeof(group->id), is_apart ? "%s-p%u" : "%s/pea-%u", container_id,
		token);
}

bool pea_group_is_in(const struct pea_group *group, const struct cgroups *groups, int i)
{
	return group->is_apart || &groups->all[i] == cgroup_follower(groups);
}

int pea_group_make(const struct backend *backend, const struct pea_group *group,
	const struct limits *limits, bool with_fuse, struct err *err)
{
	const struct cgroups *groups = &backend->cgroups;
	int r;

	if (!group->is_apart)
		return cgroup_create_in(cgroup_follower(groups), group->id, err);
	r = cgroup_create(groups, group->id, with_fuse, err);
	return r < 0 ? r
		     : limits_apply(limits, &backend->config.limits_policy, groups, group->id, err);
}

int pea_group_open(const struct backend *backend, const struct pea_group *group)
{
	const struct cgroups *groups = &backend->cgroups;
	AUTO_FREE char *path = NULL;

	if (groups->v2 < 0)
		return -ENODEV;
	path = cgroup_path(&groups->all[groups->v2], group->id, NULL);
	return path ? sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, 0) : -ENOMEM;
}

int pea_group_end(const struct backend *backend, const char *container_id, uint32_t token)
{
	int ret = 0;

	for (int is_apart = 0; is_apart < 2; is_apart++) {
		struct pea_group group;
		int r;

		pea_group_name(&group, container_id, token, is_apart);
		r = cgroup_destroy(&backend->cgroups, group.id);
		ret = r < 0 ? r : ret;
	}
	return ret;
}

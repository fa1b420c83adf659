#include "shim/child_rights.h"

#include <errno.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/guard.h"
#include "linux/sys.h"

static int result(long r)
{
	return r < 0 ? -errno : 0;
}

int rights_limit_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	limit.rlim_cur = limit.rlim_max < 1024 ? limit.rlim_max : 1024;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	if (getrlimit(RLIMIT_CORE, &limit) < 0)
		return -errno;
	limit.rlim_cur = 0;
	return setrlimit(RLIMIT_CORE, &limit) < 0 ? -errno : 0;
}

int rights_load_filter(const void *filter, uint32_t n_bytes)
{
	int r;

	if (!GUARD(FILTER))
		return 0;
	r = n_bytes ? sys_seccomp_load(filter, n_bytes) : 0;
	if (r == 0 && n_bytes && prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2)
		return -EPERM;
	return r;
}

int rights_become_root(void)
{
	int r = result(setgroups(0, NULL));

	if (r == 0)
		r = result(setresgid(0, 0, 0));
	return r < 0 ? r : result(setresuid(0, 0, 0));
}

#include "volumes/view.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/parse.h"
#include "linux/caps.h"
#include "linux/landlock.h"
#include "linux/sys.h"

#define CAP(name) (UINT64_C(1) << CAP_##name)

/* ---- arguments ------------------------------------------------------------------------------- */

/* The number that *text begins with, and what stands behind the ':' after it, or NULL. */
static int next_id(const char **text, uint32_t *ret_id)
{
	size_t n = strcspn(*text, ":");
	char digits[16];
	uint64_t id;

	if (n >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, *text, n);
	digits[n] = '\0';
	/* the highest number stands for "as it was" */
	if (parse_u64(digits, UINT32_MAX - 1, &id) < 0)
		return -EINVAL;
	*ret_id = (uint32_t)id;
	*text = (*text)[n] ? *text + n + 1 : NULL;
	return 0;
}

int view_parse(const char *user, const char *caps, struct view_spec *ret, struct err *err)
{
	const char *rest = user;
	int r = next_id(&rest, &ret->uid);

	if (r == 0)
		r = rest ? next_id(&rest, &ret->gid) : -EINVAL;
	ret->n_groups = 0;
	while (r == 0 && rest)
		r = ret->n_groups < VIEW_GROUPS_MAX ? next_id(&rest, &ret->groups[ret->n_groups++])
						    : -E2BIG;
	if (r < 0)
		return err_set(err, ERR_INVALID, EINVAL, "user %.100s", user);
	if (!caps || parse_u64(caps, UINT64_MAX, &ret->caps) < 0)
		return err_set(err, ERR_INVALID, EINVAL, "caps %.50s", caps ? caps : "");
	return 0;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int result(int r)
{
	return r < 0 ? -errno : 0;
}

/* Paths that begin at a mount go on in its own namespace, whichever ours is. */
static int enter_root(int take_root_fd)
{
	AUTO_FD int root_fd = take_root_fd;
	int r = result(fchdir(root_fd));

	return r < 0 ? r : result(chroot("."));
}

static int enter_userns(int take_userns_fd)
{
	AUTO_FD int userns_fd = take_userns_fd;

	return userns_fd < 0 || !GUARD(VIEW_USERNS) ? 0 : sys_setns(userns_fd, CLONE_NEWUSER);
}

/* What capabilities there are stay as they are, until they are set. */
static int become_user(const struct view_spec *spec)
{
	int r = result(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0));

	if (r == 0)
		r = result(setgroups(spec->n_groups, spec->groups));
	if (r == 0)
		r = result(setresgid(spec->gid, spec->gid, spec->gid));
	if (r == 0)
		r = result(setresuid(spec->uid, spec->uid, spec->uid));
	if (r == 0)
		r = result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
	return r;
}

static int give_up_rights(const struct view_spec *spec)
{
	AUTO_FD int top_fd = sys_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
	struct landlock_tree tree = { top_fd, true };
	int r = top_fd < 0 ? top_fd : result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));

	if (r == 0)
		r = landlock_confine(&tree, 1);
	if (r == 0)
		r = caps_limit(0);
	return r < 0 ? r : caps_set(spec->caps | CAP(DAC_OVERRIDE));
}

int view_enter(int root_fd, int userns_fd, const struct view_spec *spec, struct err *err)
{
	int r = sys_unshare(CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);

	if (r == 0)
		r = enter_root(root_fd);
	if (r == 0)
		r = enter_userns(userns_fd);
	if (r == 0)
		r = become_user(spec);
	if (r == 0)
		r = give_up_rights(spec);
	return r < 0 ? err_system(err, r, "enter the container") : 0;
}

int view_settle(const struct view_spec *spec, struct err *err)
{
	int r = GUARD(VIEW_CAPS) ? caps_set(spec->caps) : 0;

	return r < 0 ? err_system(err, r, "capabilities") : 0;
}

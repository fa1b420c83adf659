#include "privilege.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "linux/caps.h"

static const struct rights rights[N_PRIVILEGES] = {
	[PRIVILEGE_NONE] = { .has_userns = true,
		.filter = SECCOMP_DEFAULT,
		.root_caps = CAPS_DEFAULT,
		.user_caps = CAPS_DEFAULT },
	[PRIVILEGE_FULL] = { .has_fuse = true,
		.is_of_host = true,
		.filter = NO_FILTER,
		.root_caps = UINT64_MAX,
		.user_caps = CAPS_PRIVILEGED_USER },
	[PRIVILEGE_USERNS] = { .has_userns = true,
		.has_fuse = true,
		.filter = SECCOMP_NAMESPACES,
		.root_caps = UINT64_MAX,
		.user_caps = CAPS_PRIVILEGED_USER },
	[PRIVILEGE_FUSE] = { .has_userns = true,
		.has_fuse = true,
		.filter = SECCOMP_MOUNTS,
		.root_caps = CAPS_PRIVILEGED_USER,
		.user_caps = CAPS_PRIVILEGED_USER },
};

const struct rights *privilege_rights(enum privilege privilege)
{
	return &rights[(unsigned)privilege < N_PRIVILEGES ? privilege : PRIVILEGE_NONE];
}

static const char *const mode_names[] = { [PRIVILEGED_FULL] = "full",
	[PRIVILEGED_USERNS] = "userns",
	[PRIVILEGED_FUSE_ONLY] = "fuse-only",
	[PRIVILEGED_IGNORE] = "ignore" };

int privileged_mode_parse(const char *text, enum privileged_mode *ret)
{
	for (size_t i = 0; i < N_ELEMENTS(mode_names); i++)
		if (!strcmp(text, mode_names[i])) {
			*ret = (enum privileged_mode)i;
			return 0;
		}
	return -EINVAL;
}

int privilege_decide(
	enum privileged_mode mode, bool is_asked_for, enum privilege *ret, struct err *err)
{
	static const enum privilege granted[N_PRIVILEGED_MODES] = {
		[PRIVILEGED_FULL] = PRIVILEGE_FULL,
		[PRIVILEGED_USERNS] = PRIVILEGE_USERNS,
		[PRIVILEGED_FUSE_ONLY] = PRIVILEGE_FUSE,
		[PRIVILEGED_IGNORE] = PRIVILEGE_NONE,
	};

	if (is_asked_for && mode == PRIVILEGED_OFF)
		return err_set(
			err, ERR_INVALID, EPERM, "privileged container creation is disabled");
	*ret = is_asked_for ? granted[GUARD(PRIVILEGE) ? mode : PRIVILEGED_FULL] : PRIVILEGE_NONE;
	return 0;
}

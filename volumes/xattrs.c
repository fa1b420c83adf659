#include "volumes/xattrs.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/guard.h"

bool xattr_is_kept(const char *name)
{
	static const char *const exact[] = { "security.capability", "system.posix_acl_access",
		XATTR_DEFAULT_ACL };

	if (!GUARD(XATTRS))
		return true;
	for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
		if (!strcmp(name, exact[i]))
			return true;
	return !strncmp(name, "user.", 5) && strncmp(name, "user.overlay.", 13);
}

/* A file system may keep what another one does not; the kernel's own (security.selinux) cannot be
 * given by hand at all. */
static bool may_be_left_out(const char *name)
{
	return errno == ENOTSUP ||
		(errno == EPERM && !xattr_is_kept(name) && strncmp(name, "trusted.", 8));
}

int xattrs_copy(int from_fd, int to_fd, bool all)
{
	char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
	ssize_t n = flistxattr(from_fd, names, sizeof(names));

	if (n < 0)
		return errno == ENOTSUP ? 0 : -errno;
	for (const char *name = names; name < names + n; name += strlen(name) + 1) {
		ssize_t n_bytes;

		if (!all && !xattr_is_kept(name))
			continue;
		n_bytes = fgetxattr(from_fd, name, value, sizeof(value));
		if (n_bytes < 0 && errno == ENODATA)
			continue;
		if (n_bytes < 0)
			return -errno;
		if (fsetxattr(to_fd, name, value, n_bytes, 0) < 0 && !may_be_left_out(name))
			return -errno;
	}
	return 0;
}

int xattrs_copy_node(int from_dir_fd, int to_dir_fd, const char *file)
{
	char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
	ssize_t n = fchdir(from_dir_fd) < 0 ? -1 : llistxattr(file, names, sizeof(names));

	if (n < 0)
		return errno == ENOTSUP || errno == ENOENT ? 0 : -errno;
	for (const char *name = names; name < names + n; name += strlen(name) + 1) {
		ssize_t n_bytes =
			fchdir(from_dir_fd) < 0 ? -1 : lgetxattr(file, name, value, sizeof(value));

		if (n_bytes < 0 && errno == ENODATA)
			continue;
		if (n_bytes < 0 || fchdir(to_dir_fd) < 0)
			return -errno;
		if (lsetxattr(file, name, value, n_bytes, 0) < 0 && !may_be_left_out(name))
			return -errno;
	}
	return 0;
}

#include "linux/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"

/* Newer than the headers of our baseline. */
#define ACCESS_TRUNCATE (UINT64_C(1) << 14) /* from version 3 on */
#define ACCESS_IOCTL_DEV (UINT64_C(1) << 15) /* from version 5 on */

#define ACCESS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define ACCESS_WRITE                                                                               \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                           \
		LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |                    \
		LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                        \
		LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |                      \
		LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM |                      \
		LANDLOCK_ACCESS_FS_REFER | ACCESS_TRUNCATE)
#define ACCESS_ALL (ACCESS_READ | ACCESS_WRITE | LANDLOCK_ACCESS_FS_EXECUTE | ACCESS_IOCTL_DEV)

static uint64_t accesses_of_version(long version)
{
	uint64_t all = ACCESS_ALL;

	if (version < 3)
		all &= ~ACCESS_TRUNCATE;
	if (version < 5)
		all &= ~ACCESS_IOCTL_DEV;
	return all;
}

static int add_tree(int rules_fd, uint64_t known, const struct landlock_tree *tree)
{
	struct landlock_path_beneath_attr rule = { .parent_fd = tree->dir_fd,
		.allowed_access =
			known & (tree->writable ? ACCESS_READ | ACCESS_WRITE : ACCESS_READ) };

	return syscall(SYS_landlock_add_rule, rules_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0
		? -errno
		: 0;
}

int landlock_version(void)
{
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return version < 0 ? -errno : (int)version;
}

int landlock_confine(const struct landlock_tree trees[], size_t n_trees)
{
	int version = landlock_version();
	struct landlock_ruleset_attr attr = { .handled_access_fs = accesses_of_version(version) };
	AUTO_FD int rules_fd = -1;
	int r;

	if (version < 2)
		return 0;
	rules_fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (rules_fd < 0)
		return -errno;
	for (size_t i = 0; i < n_trees; i++) {
		r = add_tree(rules_fd, attr.handled_access_fs, &trees[i]);
		if (r < 0)
			return r;
	}
	return syscall(SYS_landlock_restrict_self, rules_fd, 0) < 0 ? -errno : 0;
}

#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "linux/btrfs.h"

/* /proc is for sure another file system. */
static void subvolumes_are_of_btrfs_only(void **state UNUSED)
{
	AUTO_FD int fd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[5000];

	assert_false(btrfs_is_at(fd));
	assert_int_equal(btrfs_subvolume_create(fd, "x"), -ENOTTY);
	assert_int_equal(btrfs_snapshot(fd, "x", fd), -ENOTTY);
	assert_int_equal(btrfs_subvolume_destroy(fd, "x"), -ENOTTY);
	assert_int_equal(btrfs_has_nested(fd), -ENOTTY);
	btrfs_make_writable(fd);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(btrfs_subvolume_create(fd, name), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(subvolumes_are_of_btrfs_only),
	};

	return cmocka_run_group_tests_name("btrfs", tests, NULL, NULL);
}

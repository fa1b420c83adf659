#include "unit.h"

#include "base/auto.h"
#include "volumes/volumes.h"

static void names_are_known_by_the_letter(void **state UNUSED)
{
	static const char *const good[] = { "detect", "overlay", "btrfs", "copy", "naive" };
	static const char *const bad[] = { "", "Overlay", "overlay ", "copy,btrfs", "aufs" };

	for (size_t i = 0; i < N_ELEMENTS(good); i++)
		assert_true(volume_driver_is_known(good[i]));
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_false(volume_driver_is_known(bad[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_known_by_the_letter),
	};

	return cmocka_run_group_tests_name("driver", tests, NULL, NULL);
}

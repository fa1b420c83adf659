#include "unit.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "linux/conntrack.h"

static bool none(int family UNUSED, const void *address UNUSED, void *arg UNUSED)
{
	return false;
}

static void somebody_without_rights_is_told_so(void **state UNUSED)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit((getuid() == 0 && setuid(65534) < 0) ||
			conntrack_forget(none, NULL) != -EPERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void nothing_that_matches_is_nothing_forgotten(void **state UNUSED)
{
	int n = conntrack_forget(none, NULL);

	assert_true(n == 0 || n == -EPERM || n == -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(somebody_without_rights_is_told_so),
		cmocka_unit_test(nothing_that_matches_is_nothing_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

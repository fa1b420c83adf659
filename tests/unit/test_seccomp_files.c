/* Each test confines a child of its own. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/seccomp.h"

static bool is_refused(long r)
{
	return r == -1 && errno == EPERM;
}

static void *touch(void *arg)
{
	AUTO_FD int fd = open(arg, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	return fd >= 0 ? arg : NULL;
}

static bool are_processes_refused(void)
{
	char name[] = "true", *argv[] = { name, NULL };

	return is_refused(execv("/bin/true", argv)) && is_refused(fork()) &&
		is_refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) &&
		is_refused(ptrace(PTRACE_TRACEME, 0, 0, 0));
}

static bool are_namespaces_refused(void)
{
	return is_refused(unshare(CLONE_NEWUSER)) &&
		is_refused(mount("none", "/", "tmpfs", 0, NULL)) &&
		is_refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)) &&
		is_refused(socket(AF_UNIX, SOCK_STREAM, 0)) &&
		is_refused(socket(AF_INET, SOCK_DGRAM, 0));
}

static bool do_threads_work(const char *path)
{
	pthread_t thread;
	void *touched = NULL;

	return !pthread_create(&thread, NULL, touch, (void *)path) &&
		!pthread_join(thread, &touched) && touched && unlink(path) == 0;
}

/* The number of the first that is not as it should be. */
static int try_all(void **state)
{
	struct err err = { 0 };

	if (seccomp_confine_to_files(&err) < 0)
		return 1;
	if (!are_processes_refused())
		return 2;
	if (!are_namespaces_refused())
		return 3;
	return do_threads_work(unit_path(state, "f")) ? 0 : 4;
}

static void files_and_threads_are_all_that_is_left(void **state)
{
	assert_int_equal(unit_in_child(try_all, state), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			files_and_threads_are_all_that_is_left, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

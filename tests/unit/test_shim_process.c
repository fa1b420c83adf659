#include "unit.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "shim_process.h"

#define ID "00c10c4e0c10c4e0"

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	assert_true(strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path));
	return address;
}

/* A process that listens on dir/ID, as a shim does, and then hangs. */
static pid_t start_listener(const char *path)
{
	struct sockaddr_un address = address_of(path);
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
			listen(fd, 1) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		raise(SIGSTOP);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void a_listener_that_hangs_is_killed(void **state)
{
	pid_t pid = start_listener(unit_path(state, ID));
	int status;

	assert_int_equal(shim_process_kill("00c10c4e0c10c4e1"), 0);
	assert_int_equal(shim_process_kill("0c10c4e0"), 0);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	assert_int_equal(shim_process_kill(ID), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_connection_that_waits_is_not_taken_for_it(void **state)
{
	pid_t pid = start_listener(unit_path(state, ID));
	struct sockaddr_un address = address_of(unit_path(state, ID));
	int status, fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(shim_process_kill(ID), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(fd);
}

/* It may be closed between two looks. Which of them is found first is the kernel's secret. */
static void a_connection_that_was_accepted_is_not_taken_for_it(void **state)
{
	struct sockaddr_un address = address_of(unit_path(state, ID));
	int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0), near[16], far[16], status;
	pid_t pid;

	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 16), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		raise(SIGSTOP);
		_exit(0);
	}
	for (int i = 0; i < 16; i++) {
		near[i] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		assert_int_equal(connect(near[i], (struct sockaddr *)&address, sizeof(address)), 0);
		far[i] = accept(listener, NULL, NULL);
		assert_true(far[i] >= 0);
	}
	close(listener);
	assert_int_equal(shim_process_kill(ID), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (int i = 0; i < 16; i++) {
		close(near[i]);
		close(far[i]);
	}
}

static void a_name_in_the_directory_is_not_needed(void **state)
{
	pid_t pid = start_listener(unit_path(state, ID));
	int status, n_fds = unit_count_fds();

	assert_int_equal(unlink(unit_path(state, ID)), 0);
	assert_int_equal(shim_process_kill(ID), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(shim_process_kill(ID), 0);
	assert_int_equal(unit_count_fds(), n_fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_listener_that_hangs_is_killed, unit_make_dir, unit_remove_dir),
		cmocka_unit_test_setup_teardown(a_connection_that_waits_is_not_taken_for_it,
			unit_make_dir, unit_remove_dir),
		cmocka_unit_test_setup_teardown(a_connection_that_was_accepted_is_not_taken_for_it,
			unit_make_dir, unit_remove_dir),
		cmocka_unit_test_setup_teardown(
			a_name_in_the_directory_is_not_needed, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

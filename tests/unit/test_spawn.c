#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/auto.h"
#include "linux/spawn.h"

#define SHELL "/bin/sh"

static int exe_fd;

static int open_shell(void **state UNUSED)
{
	AUTO_FD int fd = open(SHELL, O_RDONLY | O_CLOEXEC);

	exe_fd = fcntl(fd, F_DUPFD_CLOEXEC, 10);
	return exe_fd < 0 ? -1 : 0;
}

static int close_shell(void **state UNUSED)
{
	auto_fd(&exe_fd);
	return 0;
}

static int exit_status(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int run(const char *script, int stdin_fd, int err_fd, int extra_fd)
{
	const char *argv[] = { "sh", "-c", script, NULL };
	struct spawn spawn = { exe_fd, argv, stdin_fd, -1, err_fd, extra_fd, 0, NULL };

	return exit_status(spawn_program(&spawn));
}

static int file_with(const char *text)
{
	FILE *file = tmpfile();
	int fd;

	fputs(text, file);
	rewind(file);
	fd = fcntl(fileno(file), F_DUPFD_CLOEXEC, 20);
	fclose(file);
	return fd;
}

static void a_program_runs_and_its_status_comes_back(void **state UNUSED)
{
	assert_int_equal(run("exit 7", -1, -1, -1), 7);
	assert_int_equal(run("kill -9 $$", -1, -1, -1), -9);
}

static void what_is_no_program_is_an_error(void **state UNUSED)
{
	AUTO_FD int dir = open("/", O_RDONLY | O_CLOEXEC);
	const char *argv[] = { "x", NULL };

	struct spawn spawn = { dir, argv, -1, -1, -1, -1, 0, NULL };

	assert_int_equal(spawn_program(&spawn), -EACCES);
	spawn.exe_fd = -1;
	assert_true(spawn_program(&spawn) < 0);
}

static void standard_streams_and_one_more_are_as_given(void **state UNUSED)
{
	AUTO_FD int input = file_with("hello\n");
	AUTO_FD int extra = file_with("extra\n");
	const char *argv[] = { "sh", "-c", "read a; echo out $a", NULL };
	struct spawn spawn = { exe_fd, argv, -1, -1, -1, -1, 0, NULL };
	char text[100] = "";
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(
		run("read a; read b <&3; echo $a $b >&2; echo nowhere", input, ends[1], extra), 0);
	auto_fd(&ends[1]);
	assert_int_equal(read(ends[0], text, sizeof(text)), 12);
	assert_string_equal(text, "hello extra\n");
	auto_fd(&ends[0]);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	lseek(input, 0, SEEK_SET);
	spawn.stdin_fd = input;
	spawn.stdout_fd = ends[1];
	assert_int_equal(exit_status(spawn_program(&spawn)), 0);
	auto_fd(&ends[1]);
	assert_int_equal(read(ends[0], text, sizeof(text)), 10);
	assert_memory_equal(text, "out hello\n", 10);
	auto_fd(&ends[0]);
}

static void the_environment_is_as_given_and_else_empty(void **state UNUSED)
{
	const char *argv[] = { "sh", "-c", "test \"$FRUIT\" = quince", NULL };
	char fruit[] = "FRUIT=quince", *envp[] = { fruit, NULL };
	struct spawn spawn = { exe_fd, argv, -1, -1, -1, -1, 0, envp };

	assert_int_equal(setenv("FRUIT", "quince", 1), 0);
	assert_int_equal(exit_status(spawn_program(&spawn)), 0);
	spawn.envp = NULL;
	assert_int_equal(exit_status(spawn_program(&spawn)), 1);
}

static void streams_that_are_not_given_lead_nowhere(void **state UNUSED)
{
	assert_int_equal(
		run("read a && exit 1; for i in 0 1 2; do test /dev/null -ef /proc/self/fd/$i || exit 2; done;"
		    " test -e /proc/self/fd/3 && exit 3; exit 0",
			-1, -1, -1),
		0);
}

/* What whoever started the test has left open is not ours to close. */
static int n_inherited_ourselves(void)
{
	int n = 0;

	for (int fd = 4; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) == 0;
	return n;
}

static void nothing_else_is_inherited(void **state UNUSED)
{
	AUTO_FD int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
	AUTO_FD int extra = file_with("");

	assert_true(other >= 0);
	setenv("SECRET", "1", 1);
	assert_int_equal(run("test -z \"$SECRET$HOME\"", -1, -1, -1), 0);
	unsetenv("SECRET");
	assert_int_equal(
		run("n=0; for f in /proc/$$/fd/*; do n=$((n+1)); done; exit $n", -1, -1, extra),
		5 + n_inherited_ourselves());
}

static void signals_are_as_new(void **state UNUSED)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	signal(SIGPIPE, SIG_IGN);
	r = run("kill -PIPE $$; exit 1", -1, -1, -1);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	assert_int_equal(r, -SIGPIPE);
}

/* The child's 3 is what extra_fd becomes: a program that lies there must not be lost by that. */
static void the_program_may_lie_in_any_descriptor(void **state UNUSED)
{
	AUTO_FD int extra = file_with("");
	int saved = exe_fd, low = -1;

	while (low < 3) {
		low = open(SHELL, O_RDONLY | O_CLOEXEC);
		assert_true(low >= 0);
	}
	if (low > 3) {
		auto_fd(&low);
		skip();
	}
	exe_fd = low;
	assert_int_equal(run("exit 7", -1, -1, -1), 7);
	assert_int_equal(run("exit 7", -1, -1, extra), 7);
	exe_fd = saved;
	auto_fd(&low);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_runs_and_its_status_comes_back),
		cmocka_unit_test(what_is_no_program_is_an_error),
		cmocka_unit_test(standard_streams_and_one_more_are_as_given),
		cmocka_unit_test(the_environment_is_as_given_and_else_empty),
		cmocka_unit_test(streams_that_are_not_given_lead_nowhere),
		cmocka_unit_test(nothing_else_is_inherited),
		cmocka_unit_test(signals_are_as_new),
		cmocka_unit_test(the_program_may_lie_in_any_descriptor),
	};

	return cmocka_run_group_tests(tests, open_shell, close_shell);
}

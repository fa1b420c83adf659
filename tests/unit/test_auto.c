#include "unit.h"

#include <errno.h>

#include "base/auto.h"

static int open_something(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int fd_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void a_descriptor_is_closed_at_the_end_of_its_scope(void **state UNUSED)
{
	int number;

	{
		AUTO_FD int fd = open_something();

		number = fd;
		assert_true(fd_is_open(number));
	}
	assert_false(fd_is_open(number));
}

static void a_descriptor_is_closed_once(void **state UNUSED)
{
	int fd = open_something(), other;

	auto_fd(&fd);
	assert_int_equal(fd, -1);
	other = open_something();
	auto_fd(&fd);
	assert_true(fd_is_open(other));
	auto_fd(&other);
}

static void descriptor_zero_is_a_descriptor_and_minus_one_is_none(void **state UNUSED)
{
	int saved = fcntl(0, F_DUPFD_CLOEXEC, 3), zero = 0, none = -1;

	auto_fd(&none);
	assert_int_equal(none, -1);
	if (!fd_is_open(0))
		assert_int_equal(open_something(), 0);
	auto_fd(&zero);
	assert_false(fd_is_open(0));
	if (saved >= 0)
		assert_int_equal(dup2(saved, 0), 0);
	auto_fd(&saved);
}

static void releasing_keeps_errno(void **state UNUSED)
{
	int not_open = INT_MAX;
	void *memory = malloc(1), *nothing = NULL;

	errno = ENOTDIR;
	auto_fd(&not_open);
	auto_free(&memory);
	auto_free(&nothing);
	assert_int_equal(errno, ENOTDIR);
}

static int take_fd(void)
{
	AUTO_FD int fd = open_something();

	return TAKE_FD(fd);
}

static void a_taken_descriptor_stays_open(void **state UNUSED)
{
	int fd = take_fd();

	assert_true(fd_is_open(fd));
	auto_fd(&fd);
}

static char *take_text(void)
{
	AUTO_FREE char *text = strdup("mine");
	AUTO_FREE char *other = strdup("freed here");

	assert_non_null(other);
	return TAKE_PTR(text);
}

static void a_taken_pointer_stays_valid(void **state UNUSED)
{
	char *text = take_text();

	assert_string_equal(text, "mine");
	free(text);
}

static void taking_leaves_nothing_behind(void **state UNUSED)
{
	int fd = 7;
	char *text = (char *)"text";

	assert_int_equal(TAKE_FD(fd), 7);
	assert_int_equal(fd, -1);
	assert_string_equal(TAKE_PTR(text), "text");
	assert_null(text);
}

static void elements_are_counted(void **state UNUSED)
{
	static const struct {
		int a, b;
	} rows[5];

	assert_int_equal(N_ELEMENTS(rows), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_descriptor_is_closed_at_the_end_of_its_scope),
		cmocka_unit_test(a_descriptor_is_closed_once),
		cmocka_unit_test(descriptor_zero_is_a_descriptor_and_minus_one_is_none),
		cmocka_unit_test(releasing_keeps_errno),
		cmocka_unit_test(a_taken_descriptor_stays_open),
		cmocka_unit_test(a_taken_pointer_stays_valid),
		cmocka_unit_test(taking_leaves_nothing_behind),
		cmocka_unit_test(elements_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>
#include <unistd.h>

#include "volumes/say.h"

static void a_line_comes_as_it_was_said(void **state UNUSED)
{
	char text[16] = "";
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(say(ends[1], "%d of %s\n", 3, "all"), 0);
	assert_int_equal(read(ends[0], text, sizeof(text) - 1), 9);
	assert_string_equal(text, "3 of all\n");
	close(ends[0]);
	close(ends[1]);
}

static void what_cannot_be_said_is_an_error(void **state UNUSED)
{
	assert_int_equal(say(-1, "x"), -EIO);
	assert_int_equal(say(1, "%5000s", ""), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_comes_as_it_was_said),
		cmocka_unit_test(what_cannot_be_said_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

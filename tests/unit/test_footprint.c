#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/footprint.h"

#define BLOCK_BYTES 4000

/* Large: what lies beside a page that is touched may be mapped with it. */
static const char constant[512 * 1024] = "x";
static int number = 41;

static bool is_mapped(const void *at)
{
	unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);
	char *first = (char *)((unsigned long)at & ~(page - 1));
	char entry[8];
	FILE *file = fopen("/proc/self/pagemap", "re");
	bool yes;

	assert_non_null(file);
	assert_int_equal(
		fseek(file, (long)((unsigned long)first / page * sizeof(entry)), SEEK_SET), 0);
	assert_int_equal(fread(entry, sizeof(entry), 1, file), 1);
	yes = entry[7] & 0x80;
	fclose(file);
	return yes;
}

static void what_was_written_stays(void **state UNUSED)
{
	char *kept = malloc(BLOCK_BYTES);

	assert_non_null(kept);
	memset(kept, 'k', BLOCK_BYTES);
	number++;
	footprint_shrink();
	assert_int_equal(number, 42);
	assert_int_equal(kept[BLOCK_BYTES - 1], 'k');
	free(kept);
}

static void pages_that_are_as_in_the_file_are_given_back_and_come_again(void **state UNUSED)
{
	const volatile char *middle = &constant[sizeof(constant) / 2];

	assert_int_equal(*middle, 0);
	assert_true(is_mapped((const void *)middle));
	footprint_shrink();
	assert_false(is_mapped((const void *)middle));
	assert_int_equal(*middle, 0);
	assert_true(is_mapped((const void *)middle));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_stays),
		cmocka_unit_test(pages_that_are_as_in_the_file_are_given_back_and_come_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

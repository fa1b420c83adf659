#include "unit.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/footprint.h"

#define BLOCK_BYTES 4000

/* Large: what lies beside a page that is touched may be mapped with it. */
static const char constant[512 * 1024] = "x";
static int number = 41;

/* Open before pages are given back: what is read to open it lies among the constants, and the kernel maps a whole folio of
 * the file with the page that is asked for. */
static int pagemap = -1;
static long n_page_bytes;

static int open_pagemap(void **state UNUSED)
{
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	n_page_bytes = sysconf(_SC_PAGESIZE);
	return pagemap < 0;
}

static int close_pagemap(void **state UNUSED)
{
	return close(pagemap);
}

static bool is_mapped(const volatile void *at)
{
	uint64_t entry = 0;
	off_t place = (off_t)((uintptr_t)at / (uintptr_t)n_page_bytes * sizeof(entry));

	assert_int_equal(pread(pagemap, &entry, sizeof(entry), place), sizeof(entry));
	return entry >> 63;
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
	assert_true(is_mapped(middle));
	footprint_shrink();
	assert_false(is_mapped(middle));
	assert_int_equal(*middle, 0);
	assert_true(is_mapped(middle));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_stays),
		cmocka_unit_test(pages_that_are_as_in_the_file_are_given_back_and_come_again),
	};

	return cmocka_run_group_tests(tests, open_pagemap, close_pagemap);
}

#include "unit.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"

static void time_goes_forward_in_milliseconds(void **state UNUSED)
{
	int64_t before = clock_ms(), after;
	struct timespec pause = { .tv_nsec = 5000000 };

	nanosleep(&pause, NULL);
	after = clock_ms();
	assert_true(after >= before + 4); /* both are cut to whole milliseconds */
}

static void a_deadline_has_less_than_a_second_of_nanoseconds(void **state UNUSED)
{
	struct timespec now, at;

	for (int64_t in_ms = 0; in_ms < 3000; in_ms += 7) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		at = clock_deadline(in_ms);
		assert_in_range(at.tv_nsec, 0, 999999999);
		assert_true(
			(at.tv_sec - now.tv_sec) * 1000 + (at.tv_nsec - now.tv_nsec) / 1000000 >=
			in_ms - 1);
	}
}

static void a_condition_is_waited_for_until_its_deadline(void **state UNUSED)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct timespec at = clock_deadline(20);
	int64_t before = clock_ms();
	pthread_cond_t cond;

	clock_cond_init(&cond);
	pthread_mutex_lock(&lock);
	while (pthread_cond_timedwait(&cond, &lock, &at) != ETIMEDOUT)
		continue;
	pthread_mutex_unlock(&lock);
	assert_true(clock_ms() >= before + 19);
	pthread_cond_destroy(&cond);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_goes_forward_in_milliseconds),
		cmocka_unit_test(a_deadline_has_less_than_a_second_of_nanoseconds),
		cmocka_unit_test(a_condition_is_waited_for_until_its_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

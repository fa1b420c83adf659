/* clock.h - time that only goes forward. clock_ms counts while the machine sleeps (CLOCK_BOOTTIME); conditions are
 * waited for by CLOCK_MONOTONIC, which the C library can. Threads: any. No heap: also for the shim. */
#pragma once
#include <pthread.h>
#include <stdint.h>
#include <time.h>

int64_t clock_ms(void);
int64_t clock_us(void); /* for durations: stands still while the machine sleeps */

/* A condition whose deadlines come from clock_deadline. */
void clock_cond_init(pthread_cond_t *cond);
struct timespec clock_deadline(int64_t in_ms);

/* fault.h - places where a test build dies, fails or waits: between what is recorded and what the kernel or
 * the disk then holds. A build with HAS_FAULTS (MODE=asan) reads at the start of server and shim
 *   CLOCHE_FP=NAME:N:ACTION  when the point is passed for the N-th time: kill, delay=MS, or an errno
 *   CLOCHE_HEAP=FILE         two struct fault_heap, shared with the test: of the server, of all shims
 * Any other build has nothing of it. Threads: any. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

struct err;

enum fault {
#define FAULT_POINT(name, fails) FAULT_##name,
#include "base/fault.def"
#undef FAULT_POINT
	N_FAULTS
};

/* Allocations fail from the fail_at-th on, once or all; 0: none does, and nobody counts. */
struct fault_heap {
	_Atomic uint64_t fail_at, is_lasting, n_calls, n_failed;
};

#ifdef HAS_FAULTS
#include <unistd.h>
/* 0, or what the test wants, as an ERR_SYSTEM that names the point. err may be NULL. */
#define FAULT(name, err) fault_at(FAULT_##name, err)
#define FAULT_ENVIRON environ /* so that shims know of it */
int fault_at(enum fault fault, struct err *err);
#else
#define FAULT(name, err) (FAULT_##name & 0)
#define FAULT_ENVIRON NULL
#endif

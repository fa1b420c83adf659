/* guard.h - guards that a test build can leave out, so that the test of each is seen to fail
 * without it (tests/mutation). GUARD(FILTER) is 1, and 0 in a build with -DBREAK_FILTER=1. Never in
 * a real build. */
#pragma once

#define GUARD(name) (!GUARD_IS_BROKEN(BREAK_##name))
#define GUARD_IS_BROKEN(flag) GUARD_IS_ONE(flag)
#define GUARD_IS_ONE(flag) GUARD_PICK(GUARD_COMMA_##flag)
#define GUARD_PICK(comma) GUARD_SECOND(comma 1, 0, 0)
#define GUARD_SECOND(first, second, ...) (second)
#define GUARD_COMMA_1 0,

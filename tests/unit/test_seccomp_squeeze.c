/* Small programs by hand; that the real ones keep their answers is checked whenever they are made. */
#include "unit.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>

#include "base/auto.h"
#include "linux/seccomp/squeeze.c"

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define IF(op, value, yes, no) BPF_JUMP(BPF_JMP | (op) | BPF_K, value, yes, no)
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
#define ALLOW SECCOMP_RET_ALLOW
#define KILL SECCOMP_RET_KILL_PROCESS
#define FIRST AUDIT_ARCH_X86_64
#define SECOND AUDIT_ARCH_I386

static const uint32_t both[] = { FIRST, SECOND };

/* The first architecture: 0 to 9 and what has 1 as argument of 20 are allowed; the second: all but 7. */
#define OPS                                                                                        \
	LOAD(arch), IF(BPF_JEQ, FIRST, 2, 0), IF(BPF_JEQ, SECOND, 12, 0), RETURN(KILL), LOAD(nr),  \
		IF(BPF_JGT, 9, 0, 5), IF(BPF_JEQ, 20, 0, 2), LOAD(args[0]), IF(BPF_JEQ, 1, 1, 0),  \
		RETURN(1), RETURN(ALLOW), RETURN(ALLOW), RETURN(1), RETURN(1), RETURN(1),          \
		LOAD(nr), IF(BPF_JEQ, 7, 0, 1), RETURN(1), RETURN(ALLOW)

static uint32_t answer(const struct sock_filter *ops, const struct seccomp_data *data)
{
	uint32_t value = 0;

	for (const struct sock_filter *op = ops;; op++) {
		if (op->code == (BPF_RET | BPF_K))
			return op->k;
		if (BPF_CLASS(op->code) == BPF_LD)
			memcpy(&value, (const char *)data + op->k, sizeof(value));
		else if (op->code == (BPF_JMP | BPF_JA))
			op += op->k;
		else
			op += is_taken(op, value) ? op->jt : op->jf;
	}
}

static void every_answer_stays(void **state)
{
	static const struct sock_filter ops[] = { OPS };
	static const uint32_t archs[] = { FIRST, SECOND, 0, AUDIT_ARCH_ARM };
	static struct squeezed program;

	(void)state;
	assert_int_equal(seccomp_squeeze(ops, N_ELEMENTS(ops), both, &program), 0);
	for (size_t i = 0; i < N_ELEMENTS(archs); i++)
		for (uint32_t nr = UINT32_MAX; nr != 40; nr++)
			for (uint64_t arg = 0; arg < 3; arg++) {
				struct seccomp_data data = {
					.nr = nr, .arch = archs[i], .args = { arg }
				};

				assert_int_equal(answer(program.ops, &data), answer(ops, &data));
			}
}

static void what_ranges_cannot_express_is_refused(void **state)
{
	static struct squeezed program;
	struct sock_filter odd[] = { LOAD(arch), IF(BPF_JEQ, FIRST, 2, 0),
		IF(BPF_JEQ, SECOND, 1, 0), RETURN(KILL), LOAD(nr), IF(BPF_JSET, 1, 0, 1), RETURN(1),
		RETURN(ALLOW) };
	struct sock_filter open[] = { LOAD(arch), IF(BPF_JEQ, FIRST, 0, 0), LOAD(nr) };

	(void)state;
	assert_int_equal(seccomp_squeeze(odd, N_ELEMENTS(odd), both, &program), -EINVAL);
	assert_int_equal(seccomp_squeeze(open, N_ELEMENTS(open), both, &program), -EINVAL);
}

static void too_many_answers_are_refused(void **state)
{
	static struct sock_filter ops[SQUEEZE_MAX_OPS];
	static struct squeezed program;
	size_t n = 0;

	(void)state;
	ops[n++] = (struct sock_filter)LOAD(arch);
	ops[n++] = (struct sock_filter)IF(BPF_JEQ, FIRST, 2, 0);
	ops[n++] = (struct sock_filter)IF(BPF_JEQ, SECOND, 1, 0);
	ops[n++] = (struct sock_filter)RETURN(KILL);
	ops[n++] = (struct sock_filter)LOAD(nr);
	for (uint32_t nr = 0; nr <= MAX_EXITS; nr++) {
		ops[n++] = (struct sock_filter)IF(BPF_JEQ, nr, 0, 1);
		ops[n++] = (struct sock_filter)RETURN(nr);
	}
	ops[n++] = (struct sock_filter)RETURN(ALLOW);
	assert_int_equal(seccomp_squeeze(ops, n, both, &program), -E2BIG);
	assert_int_equal(seccomp_squeeze(ops, SQUEEZE_MAX_OPS + 1, both, &program), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_answer_stays),
		cmocka_unit_test(what_ranges_cannot_express_is_refused),
		cmocka_unit_test(too_many_answers_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

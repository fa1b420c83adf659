#include "linux/seccomp/squeeze.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FOREIGN_ARCH 0
#define MAX_NUMBERS (2 * SQUEEZE_MAX_OPS + 1)
#define MAX_EXITS 64 /* different answers of one architecture */
#define CHECKED_NUMBERS 4096

struct program {
	const struct sock_filter *ops;
	size_t n_ops;
};

/* Numbers from first to the next range's; at: where the old program answers, or looks at arguments. */
struct range {
	uint32_t first;
	size_t at;
};

struct squeeze {
	struct program old;
	struct squeezed *new;
	uint32_t numbers[MAX_NUMBERS]; /* at each of them, and nowhere else, an answer may change */
	size_t n_numbers;
	bool is_kept[SQUEEZE_MAX_OPS]; /* of the old one */
	size_t place[SQUEEZE_MAX_OPS]; /* of what is kept, in the new one */
	size_t exits[MAX_EXITS]; /* places in the old one */
	size_t n_exits;
	size_t leads[SQUEEZE_ARCHS *
		MAX_EXITS]; /* places of jumps to what is kept; k is its place in the old one */
	size_t n_leads;
	struct range ranges[MAX_NUMBERS];
};

static bool is_jump_by_value(const struct sock_filter *op)
{
	return op->code == (BPF_JMP | BPF_JEQ | BPF_K) || op->code == (BPF_JMP | BPF_JGT | BPF_K) ||
		op->code == (BPF_JMP | BPF_JGE | BPF_K);
}

static bool is_taken(const struct sock_filter *op, uint32_t value)
{
	switch (BPF_OP(op->code)) {
	case BPF_JEQ:
		return value == op->k;
	case BPF_JGT:
		return value > op->k;
	default:
		return value >= op->k;
	}
}

/* Where this call is answered, or its arguments begin to count. */
static int follow(const struct program *program, uint32_t arch, uint32_t nr, size_t *ret_at)
{
	uint32_t value = 0;
	size_t at;

	for (at = 0; at < program->n_ops; at++) {
		const struct sock_filter *op = &program->ops[at];

		if (op->code == (BPF_RET | BPF_K))
			break;
		if (op->code == (BPF_LD | BPF_W | BPF_ABS)) {
			if (op->k >= offsetof(struct seccomp_data, instruction_pointer))
				break;
			value = op->k == offsetof(struct seccomp_data, nr) ? nr : arch;
		} else if (op->code == (BPF_JMP | BPF_JA)) {
			at += op->k;
		} else if (is_jump_by_value(op)) {
			at += is_taken(op, value) ? op->jt : op->jf;
		} else {
			return -EINVAL;
		}
	}
	*ret_at = at;
	return at < program->n_ops ? 0 : -EINVAL;
}

/* ---- the old program ------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void find_numbers(struct squeeze *squeeze)
{
	squeeze->numbers[squeeze->n_numbers++] = 0;
	for (size_t i = 0; i < squeeze->old.n_ops; i++) {
		const struct sock_filter *op = &squeeze->old.ops[i];

		if (!is_jump_by_value(op))
			continue;
		squeeze->numbers[squeeze->n_numbers++] = op->k;
		if (op->k < UINT32_MAX)
			squeeze->numbers[squeeze->n_numbers++] = op->k + 1;
	}
	qsort(squeeze->numbers, squeeze->n_numbers, sizeof(*squeeze->numbers), compare);
}

static bool is_same_answer(const struct program *old, size_t a, size_t b)
{
	return a == b ||
		(old->ops[a].code == (BPF_RET | BPF_K) &&
			!memcmp(&old->ops[a], &old->ops[b], sizeof(*old->ops)));
}

static int find_ranges(struct squeeze *squeeze, uint32_t arch, size_t *ret_n)
{
	struct range *ranges = squeeze->ranges;
	size_t n = 0, at;

	for (size_t i = 0; i < squeeze->n_numbers; i++) {
		int r = follow(&squeeze->old, arch, squeeze->numbers[i], &at);

		if (r < 0)
			return r;
		if (n == 0 || !is_same_answer(&squeeze->old, at, ranges[n - 1].at))
			ranges[n++] = (struct range){ squeeze->numbers[i], at };
	}
	*ret_n = n;
	return 0;
}

/* And all that can follow. */
static void keep(struct squeeze *squeeze, size_t at)
{
	const struct sock_filter *op = &squeeze->old.ops[at];

	if (at >= squeeze->old.n_ops || squeeze->is_kept[at])
		return;
	squeeze->is_kept[at] = true;
	if (op->code == (BPF_JMP | BPF_JA)) {
		keep(squeeze, at + 1 + op->k);
	} else if (BPF_CLASS(op->code) == BPF_JMP) {
		keep(squeeze, at + 1 + op->jt);
		keep(squeeze, at + 1 + op->jf);
	} else if (BPF_CLASS(op->code) != BPF_RET) {
		keep(squeeze, at + 1);
	}
}

/* ---- the new one ------------------------------------------------------------------------------ */

static size_t add(struct squeeze *squeeze, uint16_t code, uint32_t k)
{
	size_t place = squeeze->new->n_ops++;

	squeeze->new->ops[place] = (struct sock_filter){ .code = code, .k = k };
	return place;
}

static int set_jump(uint8_t *jump, size_t from, size_t to)
{
	if (to - from - 1 > UINT8_MAX)
		return -E2BIG;
	*jump = (uint8_t)(to - from - 1);
	return 0;
}

static int exit_of(struct squeeze *squeeze, size_t at)
{
	size_t i;

	for (i = 0; i < squeeze->n_exits; i++)
		if (is_same_answer(&squeeze->old, at, squeeze->exits[i]))
			return (int)i;
	if (i == MAX_EXITS)
		return -E2BIG;
	squeeze->exits[squeeze->n_exits++] = at;
	return (int)i;
}

/* The places of the exits lie behind the tree, which has one comparison less than there are ranges. */
static int write_tree(struct squeeze *squeeze, const struct range *ranges, size_t n, size_t exits);

static int write_branch(struct squeeze *squeeze, uint8_t *jump, size_t from,
	const struct range *ranges, size_t n, size_t exits)
{
	int r = n == 1 ? exit_of(squeeze, ranges->at) : 0;

	if (r < 0)
		return r;
	if (n == 1)
		return set_jump(jump, from, exits + (size_t)r);
	r = set_jump(jump, from, squeeze->new->n_ops);
	return r < 0 ? r : write_tree(squeeze, ranges, n, exits);
}

static int write_tree(struct squeeze *squeeze, const struct range *ranges, size_t n, size_t exits)
{
	size_t half = n / 2;
	size_t place = add(squeeze, BPF_JMP | BPF_JGE | BPF_K, ranges[half].first);
	struct sock_filter *op = &squeeze->new->ops[place];
	int r = write_branch(squeeze, &op->jf, place, ranges, half, exits);

	return r < 0 ? r : write_branch(squeeze, &op->jt, place, ranges + half, n - half, exits);
}

/* An answer, or a lead to what is kept. */
static void write_exits(struct squeeze *squeeze)
{
	for (size_t i = 0; i < squeeze->n_exits; i++) {
		size_t at = squeeze->exits[i];
		const struct sock_filter *op = &squeeze->old.ops[at];

		if (op->code == (BPF_RET | BPF_K)) {
			add(squeeze, op->code, op->k);
		} else {
			squeeze->leads[squeeze->n_leads++] =
				add(squeeze, BPF_JMP | BPF_JA, (uint32_t)at);
			keep(squeeze, at);
		}
	}
}

static int write_arch(struct squeeze *squeeze, uint32_t arch)
{
	size_t n, n_before = squeeze->new->n_ops;
	int r = find_ranges(squeeze, arch, &n);

	if (r < 0)
		return r;
	if (n < 2 || n_before + n + MAX_EXITS > SQUEEZE_MAX_OPS)
		return -E2BIG;
	squeeze->n_exits = 0;
	r = write_tree(squeeze, squeeze->ranges, n, n_before + n - 1);
	if (r == 0)
		write_exits(squeeze);
	return r;
}

static int write_archs(struct squeeze *squeeze, const uint32_t archs[SQUEEZE_ARCHS])
{
	size_t foreign, jumps[SQUEEZE_ARCHS];
	int r = follow(&squeeze->old, FOREIGN_ARCH, 0, &foreign);

	if (r < 0 || squeeze->old.ops[foreign].code != (BPF_RET | BPF_K))
		return -EINVAL;
	add(squeeze, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	for (int i = 0; i < SQUEEZE_ARCHS; i++) {
		size_t place = add(squeeze, BPF_JMP | BPF_JEQ | BPF_K, archs[i]);

		squeeze->new->ops[place].jf = 1;
		jumps[i] = add(squeeze, BPF_JMP | BPF_JA, 0);
	}
	add(squeeze, squeeze->old.ops[foreign].code, squeeze->old.ops[foreign].k);
	for (int i = 0; i < SQUEEZE_ARCHS && r == 0; i++) {
		squeeze->new->ops[jumps[i]].k = (uint32_t)(squeeze->new->n_ops - jumps[i] - 1);
		add(squeeze, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
		r = write_arch(squeeze, archs[i]);
	}
	return r;
}

/* In its order: every jump stays a jump forward, and none gets longer. */
static int write_kept(struct squeeze *squeeze)
{
	size_t n_before = squeeze->new->n_ops, n = n_before;

	for (size_t at = 0; at < squeeze->old.n_ops; at++)
		if (squeeze->is_kept[at])
			squeeze->place[at] = n++;
	if (n > SQUEEZE_MAX_OPS)
		return -E2BIG;
	for (size_t at = 0; at < squeeze->old.n_ops; at++) {
		const struct sock_filter *op = &squeeze->old.ops[at];
		struct sock_filter *copy = &squeeze->new->ops[squeeze->place[at]];

		if (!squeeze->is_kept[at])
			continue;
		*copy = *op;
		if (op->code == (BPF_JMP | BPF_JA)) {
			copy->k =
				(uint32_t)(squeeze->place[at + 1 + op->k] - squeeze->place[at] - 1);
		} else if (BPF_CLASS(op->code) == BPF_JMP) {
			copy->jt =
				(uint8_t)(squeeze->place[at + 1 + op->jt] - squeeze->place[at] - 1);
			copy->jf =
				(uint8_t)(squeeze->place[at + 1 + op->jf] - squeeze->place[at] - 1);
		}
	}
	squeeze->new->n_ops = n;
	for (size_t i = 0; i < squeeze->n_leads; i++) {
		struct sock_filter *lead = &squeeze->new->ops[squeeze->leads[i]];

		lead->k = (uint32_t)(squeeze->place[lead->k] - squeeze->leads[i] - 1);
	}
	return 0;
}

/* ---- the comparison --------------------------------------------------------------------------- */

static bool is_same(const struct squeeze *squeeze, uint32_t arch, uint32_t nr)
{
	const struct program new = { squeeze->new->ops, squeeze->new->n_ops };
	size_t at, place;

	if (follow(&squeeze->old, arch, nr, &at) < 0 || follow(&new, arch, nr, &place) < 0)
		return false;
	if (squeeze->old.ops[at].code == (BPF_RET | BPF_K))
		return !memcmp(&squeeze->old.ops[at], &new.ops[place], sizeof(*new.ops));
	return squeeze->is_kept[at] && squeeze->place[at] == place;
}

static bool are_all_same(const struct squeeze *squeeze, uint32_t arch)
{
	bool is_all = true;

	for (uint32_t nr = 0; nr < CHECKED_NUMBERS; nr++)
		is_all = is_all && is_same(squeeze, arch, nr);
	for (size_t i = 0; i < squeeze->n_numbers; i++)
		is_all = is_all && is_same(squeeze, arch, squeeze->numbers[i]) &&
			is_same(squeeze, arch, squeeze->numbers[i] - 1);
	return is_all;
}

int seccomp_squeeze(const struct sock_filter *ops, size_t n_ops,
	const uint32_t archs[SQUEEZE_ARCHS], struct squeezed *ret)
{
	static struct squeeze squeeze;
	int r;

	if (n_ops > SQUEEZE_MAX_OPS)
		return -E2BIG;
	squeeze = (struct squeeze){ .old = { ops, n_ops }, .new = ret };
	*ret = (struct squeezed){ 0 };
	find_numbers(&squeeze);
	r = write_archs(&squeeze, archs);
	if (r == 0)
		r = write_kept(&squeeze);
	if (r < 0)
		return r;
	for (int i = 0; i < SQUEEZE_ARCHS; i++)
		if (!are_all_same(&squeeze, archs[i]))
			return -EBADMSG;
	return are_all_same(&squeeze, FOREIGN_ARCH) ? 0 : -EBADMSG;
}

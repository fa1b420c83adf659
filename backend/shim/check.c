/* Blobs come from our own server, but from one of another version, or half-written: look before
 * use. */
#include "shim/protocol.h"

#include <errno.h>
#include <string.h>

static bool string_ends(const char *blob, size_t n_bytes, uint32_t offset)
{
	return offset < n_bytes && memchr(blob + offset, '\0', n_bytes - offset);
}

static bool slot_is_sound(const struct op_wire *op)
{
	bool has_slot = op->code == OP_TAKE || op->code == OP_KEEP || op->code == OP_PUT;

	return !has_slot || op->number < MAX_SLOTS;
}

int plan_check(const void *blob, size_t n_bytes)
{
	const struct plan_wire *plan = blob;

	if (n_bytes < sizeof(*plan) || plan->total_bytes != n_bytes ||
		plan->n_ops > (n_bytes - sizeof(*plan)) / sizeof(plan->ops[0]))
		return -EPROTO;
	for (uint32_t i = 0; i < plan->n_ops; i++)
		if (plan->ops[i].code >= N_OPS || !slot_is_sound(&plan->ops[i]) ||
			!string_ends(blob, n_bytes, plan->ops[i].a) ||
			!string_ends(blob, n_bytes, plan->ops[i].b))
			return -EPROTO;
	return 0;
}

static bool table_fits(size_t n_bytes, uint32_t offset, uint64_t n, size_t each)
{
	return offset % each == 0 && offset <= n_bytes && n <= (n_bytes - offset) / each;
}

/* n offsets of strings and a zero */
static bool table_is_sound(const char *blob, size_t n_bytes, uint32_t offset, uint32_t n)
{
	const uint64_t *table = (const uint64_t *)(const void *)(blob + offset);

	if (!table_fits(n_bytes, offset, (uint64_t)n + 1, sizeof(*table)) || table[n] != 0)
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (table[i] >= n_bytes || !string_ends(blob, n_bytes, (uint32_t)table[i]))
			return false;
	return true;
}

int program_check(const void *blob, size_t n_bytes)
{
	const struct program_wire *program = blob;

	if (n_bytes < sizeof(*program) || program->total_bytes != n_bytes || program->n_argv == 0)
		return -EPROTO;
	if (!table_fits(n_bytes, program->groups, program->n_groups, sizeof(uint32_t)) ||
		!table_is_sound(blob, n_bytes, program->argv, program->n_argv) ||
		!table_is_sound(blob, n_bytes, program->envp, program->n_envp) ||
		!string_ends(blob, n_bytes, program->dir) || !((const char *)blob)[program->dir] ||
		!string_ends(blob, n_bytes, program->path))
		return -EPROTO;
	return 0;
}

/* Blobs for the child: what passes plan_check or program_check is used here as the child uses it, and
 * every step must stay inside. Input: one byte, which of the two; then the blob. */
#include "fuzz.h"

#include <string.h>

#include "base/buf.h"
#include "plan.h"
#include "shim/protocol.h"

static size_t total_length;

static void use_string(const char *blob, size_t size, uint64_t offset)
{
	FUZZ_CHECK(offset < size);
	total_length += strlen(blob + offset); /* a sanitizer sees it run out */
}

static void use_plan(const void *blob, size_t size)
{
	const struct plan_wire *plan = blob;
	struct buf text;

	buf_init(&text, 1 << 20);
	for (uint32_t i = 0; i < plan->n_ops; i++) {
		FUZZ_CHECK(plan->ops[i].code < N_OPS);
		use_string(blob, size, plan->ops[i].a);
		use_string(blob, size, plan->ops[i].b);
		plan_describe(blob, i, &text);
		buf_clear(&text);
	}
	buf_done(&text);
}

static void use_table(const char *blob, size_t size, uint32_t table, uint32_t n)
{
	uint64_t offset;

	for (uint32_t i = 0; i <= n; i++) {
		FUZZ_CHECK(table + (i + UINT64_C(1)) * sizeof(offset) <= size);
		memcpy(&offset, blob + table + i * sizeof(offset), sizeof(offset));
		if (i < n)
			use_string(blob, size, offset);
		else
			FUZZ_CHECK(offset == 0);
	}
}

static void use_program(const char *blob, size_t size)
{
	const struct program_wire *program = (const void *)blob;

	FUZZ_CHECK(program->n_argv > 0);
	use_table(blob, size, program->argv, program->n_argv);
	use_table(blob, size, program->envp, program->n_envp);
	use_string(blob, size, program->dir);
	use_string(blob, size, program->path);
	FUZZ_CHECK(blob[program->dir] != '\0');
	for (uint32_t i = 0; i < program->n_groups; i++)
		total_length += ((const uint32_t *)(const void *)(blob + program->groups))[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *blob;

	if (size < 1)
		return 0;
	size--;
	blob = malloc(size ? size : 1);
	FUZZ_CHECK(blob);
	memcpy(blob, data + 1, size);
	if (data[0] & 1) {
		if (program_check(blob, size) == 0)
			use_program(blob, size);
	} else if (plan_check(blob, size) == 0) {
		use_plan(blob, size);
	}
	free(blob);
	return 0;
}

#include "plan_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "shim/protocol.h"

static uint32_t add_string(struct list *list, const char *text)
{
	uint32_t at = list->strings.len;

	buf_add(&list->strings, text, strlen(text) + 1);
	return at;
}

void list_add(struct list *list, uint16_t code, uint16_t flags, const char *a, const char *b,
	uint64_t attrs, uint64_t number)
{
	struct op_wire op = { .code = code,
		.flags = flags,
		.a = add_string(list, a),
		.b = add_string(list, b),
		.attrs = attrs,
		.number = number };

	buf_add(&list->ops, &op, sizeof(op));
}

void list_add_path(struct list *list, uint16_t code, uint16_t flags, char *take_path, const char *b,
	uint64_t attrs, uint64_t number)
{
	if (take_path)
		list_add(list, code, flags, take_path, b, attrs, number);
	else
		list->ops.failed = -ENOMEM;
	free(take_path);
}

void list_add_mkdir(struct list *list, const char *path)
{
	list_add(list, OP_MKDIR, 0, path, "", 0, 0755);
}

void list_add_given(
	struct list *list, const char *path, const char *target, mode_t mode, uint64_t attrs)
{
	list_add(list, OP_MKDIR, OPF_GIVEN, path, "", 0, mode);
	list_add(list, OP_BIND, OPF_SKELETON_SRC, path, target, attrs, 0);
}

void list_open(struct list *list)
{
	list->n_names = list->n_staged = 0;
	buf_init(&list->ops, 1 << 20);
	buf_init(&list->strings, 4 << 20);
}

void auto_list(struct list *list)
{
	buf_done(&list->ops);
	buf_done(&list->strings);
}

/* Offsets were counted from the start of the strings; now they count from the start of the blob. */
int list_close(struct list *list, const struct id_map *map, void **ret_blob, size_t *ret_bytes)
{
	size_t ops_end = sizeof(struct plan_wire) + list->ops.len;
	size_t total = ops_end + list->strings.len;
	struct plan_wire *plan;

	if (buf_failed(&list->ops) || buf_failed(&list->strings))
		return buf_failed(&list->ops) ? buf_failed(&list->ops) : buf_failed(&list->strings);
	plan = malloc(total);
	if (!plan)
		return -ENOMEM;
	*plan = (struct plan_wire){ .total_bytes = total,
		.n_ops = list->ops.len / sizeof(struct op_wire),
		.root_uid = map->root,
		.root_gid = map->root };
	memcpy(plan->ops, list->ops.data, list->ops.len);
	memcpy((char *)plan + ops_end, list->strings.data, list->strings.len);
	for (uint32_t i = 0; i < plan->n_ops; i++) {
		plan->ops[i].a += ops_end;
		plan->ops[i].b += ops_end;
	}
	*ret_blob = plan;
	*ret_bytes = total;
	return 0;
}

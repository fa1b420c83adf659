/* Plans as text: for errors, logs, and the golden files of the tests. */
#include <linux/mount.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "plan.h"
#include "shim/protocol.h"

static const char *const op_names[N_OPS] = {
	[OP_CGROUP_JOIN] = "join cgroup",
	[OP_UNSHARE] = "unshare",
	[OP_INIT] = "clone init",
	[OP_ID_MAP] = "map ids",
	[OP_SKELETON] = "skeleton",
	[OP_MOUNT] = "mount",
	[OP_MKDIR] = "mkdir",
	[OP_MKNOD] = "mknod",
	[OP_SYMLINK] = "symlink",
	[OP_FILE] = "write",
	[OP_BIND] = "bind",
	[OP_MOVE] = "move",
	[OP_OVERLAY] = "overlay",
	[OP_PIVOT] = "pivot",
	[OP_USERNS] = "find the user namespace",
	[OP_TAKE] = "take",
	[OP_ENTER] = "enter the container",
	[OP_KEEP] = "keep",
	[OP_PUT] = "put",
	[OP_HOME] = "come home",
	[OP_JOIN] = "join the container",
	[OP_PROGRAM] = "clone the process",
	[OP_SYSCTL] = "set sysctl",
	[OP_VETH] = "make veth pair",
	[OP_ADDRESS] = "add address to",
	[OP_ROUTE] = "add default route via",
	[OP_MAC] = "set hardware address of",
};

static const struct {
	uint16_t flag;
	const char *name;
} flag_names[] = { { OPF_IN_HELPER, "helper" }, { OPF_OPTIONAL, "optional" },
	{ OPF_RECURSIVE, "recursive" }, { OPF_IDMAP, "idmapped" }, { OPF_SKELETON_SRC, "own" },
	{ OPF_IN_ROOT, "in-root" }, { OPF_ROOT_ITSELF, "root" }, { OPF_PART, "part" },
	{ OPF_ROOT_SRC, "of-root" }, { OPF_GIVEN, "given" } };

static const struct {
	uint64_t attr;
	const char *name;
} attr_names[] = { { MOUNT_ATTR_RDONLY, "ro" }, { MOUNT_ATTR_NOSUID, "nosuid" },
	{ MOUNT_ATTR_NODEV, "nodev" }, { MOUNT_ATTR_NOEXEC, "noexec" } };

void plan_describe(const void *blob, uint32_t step, struct buf *text)
{
	const struct plan_wire *plan = blob;
	const struct op_wire *op = &plan->ops[step];
	const char *a, *b;

	if (step >= plan->n_ops) {
		buf_addf(text, "step %u", step);
		return;
	}
	a = (const char *)blob + op->a;
	b = (const char *)blob + op->b;
	buf_addf(text, "%s", op_names[op->code]);
	if (*a)
		buf_addf(text, " %.*s", (int)strcspn(a, "\n"), a);
	if (*b && op->code != OP_FILE)
		buf_addf(
			text, "%s%s", op->code == OP_BIND || op->code == OP_MOVE ? " on " : " ", b);
	if (op->number)
		buf_addf(text, " %#llx", (unsigned long long)op->number);
	for (size_t i = 0; i < N_ELEMENTS(attr_names); i++)
		if (op->attrs & attr_names[i].attr)
			buf_addf(text, " %s", attr_names[i].name);
	for (size_t i = 0; i < N_ELEMENTS(flag_names); i++)
		if (op->flags & flag_names[i].flag)
			buf_addf(text, " [%s]", flag_names[i].name);
}

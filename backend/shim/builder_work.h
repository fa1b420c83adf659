/* builder_work.h - what the files of the builder share: builder.c walks plans, builder_ops.c
 * does each operation, builder_place.c finds and makes the places where things go. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shim/builder.h"
#include "shim/protocol.h"

struct work {
	const struct builder *builder;
	const struct plan_wire *plan;
	int skeleton_fd, root_fd, init_pid_fd, userns_fd;
	int host_mnt_fd,
		own_mnt_fd; /* the mount namespaces of the shim and ours; -1: they are one */
	pid_t init_pid;
	struct msg_built *report; /* shared with the helper */
	int *slots; /* MAX_SLOTS mounts that are attached nowhere; -1: none */
};

static inline const char *text(const struct work *work, uint32_t offset)
{
	return (const char *)work->plan + offset;
}

/* builder_ops.c: each 0 or -errno */
/* "123/<name>" below our procfs, 123 being init. */
int builder_open_init_proc(const struct work *work, const char *name, int flags);
extern int (*const builder_run[N_OPS])(struct work *work, const struct op_wire *op);

/* builder_program.c */
int program_make(struct work *work, const struct op_wire *op);
_Noreturn void program_report(const struct work *work, uint32_t step, int code);
/* builder_net.c: operations, too */
int builder_sysctl(struct work *work, const struct op_wire *op);
int builder_veth(struct work *work, const struct op_wire *op);
int builder_mac(struct work *work, const struct op_wire *op);
int builder_address(struct work *work, const struct op_wire *op);
int builder_route(struct work *work, const struct op_wire *op);

/* builder_place.c */
/* A mount, onto a real directory of the root's own or onto a new one: a link or a file in its place is
 * refused (CVE-2019-19921 and its kin). */
int place_move(const struct work *work, int from_fd, const char *name);
/* Below the skeleton, following no link. */
int place_open_skeleton(const struct work *work, const char *path, int flags);
/* What a path means in the container, for reading or for a mount of it; none of the kernel's own
 * trees. */
int place_open_root_source(const struct work *work, const char *path);
/* Puts a mount where the operation says; what that needs is made. */
int place_attach(struct work *work, const struct op_wire *op, int mount_fd, const char *path);
/* From here on the builder makes files as the container's root, and keeps its capabilities. */
int place_become_root(const struct work *work);

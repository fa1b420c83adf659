/* spec.h - what a client asks for, after JSON and before policy. All strings are owned; *_done
 * frees. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"
#include "resource_limits.h"
#include "net_rule.h"

struct bind_mount {
	char *src, *dst;
	bool read_write, from_container;
};

/* Appends a copy. 0 or -ENOMEM. */
int bind_add(struct bind_mount **binds, size_t *n_binds, const struct bind_mount *bind);
void binds_free(struct bind_mount *take_binds, size_t n_binds);

struct property {
	char *key, *value;
};

struct container_spec {
	char *handle; /* NULL: make one up */
	char *rootfs; /* NULL: the server's default */
	char *network; /* see netpool.h; NULL: the next free one */
	int64_t grace_ns; /* 0: never reaped; only if has_grace */
	bool has_grace, privileged;
	struct bind_mount *binds;
	size_t n_binds;
	struct property *properties;
	size_t n_properties;
	struct strv env;
	struct limits limits;
	struct net_port *net_in;
	size_t n_net_in;
	struct net_rule *net_out;
	size_t n_net_out;
};
void container_spec_done(struct container_spec *spec);

#define N_SPEC_RLIMITS 16
struct process_spec {
	char *id; /* NULL: make one up */
	char *path, *dir, *user;
	struct strv args, env;
	uint32_t rlimit_set; /* bit n: rlimits[n], numbered as getrlimit(2) does */
	uint64_t rlimits[N_SPEC_RLIMITS];
	bool tty;
	uint32_t columns, rows;
	char *image; /* NULL: the container's own root */
	struct bind_mount *binds; /* only with an image */
	size_t n_binds;
	bool has_limits; /* only with an image: those of the container do not hold for it */
	struct limits limits; /* processor and memory */
};
void process_spec_done(struct process_spec *spec);

/* privilege.h - how much a container may. One function decides, from the operator's mode and the request;
 * everything that makes containers or processes looks only at what it has decided. Threads: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "linux/seccomp.h"

struct err;

/* What the operator makes of requests for privileged containers. */
enum privileged_mode {
	PRIVILEGED_FULL, /* root of the host, as Concourse means it */
	PRIVILEGED_USERNS, /* all capabilities, in a user namespace of its own */
	PRIVILEGED_FUSE_ONLY, /* unprivileged, and may mount file systems of its own: /dev/fuse, CAP_SYS_ADMIN */
	PRIVILEGED_IGNORE, /* unprivileged */
	PRIVILEGED_OFF, /* refused */
	N_PRIVILEGED_MODES
};
/* -EINVAL: no such mode. The names are Concourse's, and "userns". */
int privileged_mode_parse(const char *text, enum privileged_mode *ret);

/* As they stand in the record: numbers do not change. */
enum privilege { PRIVILEGE_NONE, PRIVILEGE_FULL, PRIVILEGE_USERNS, PRIVILEGE_FUSE, N_PRIVILEGES };

#define NO_FILTER N_SECCOMP_KINDS

struct rights {
	bool has_userns;
	bool has_fuse; /* /dev/fuse is there and may be opened */
	bool is_of_host; /* /sys and cgroups can be written, nothing is masked */
	enum seccomp_kind filter; /* or NO_FILTER */
	uint64_t root_caps, user_caps; /* bounding sets, to be cut to what this host has */
};

/* The one place: -EPERM (ERR_INVALID) if it is refused. */
int privilege_decide(
	enum privileged_mode mode, bool is_asked_for, enum privilege *ret, struct err *err);
/* What is unknown has the fewest. */
const struct rights *privilege_rights(enum privilege privilege);

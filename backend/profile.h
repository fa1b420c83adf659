/* profile.h - where the time of one create goes: marks between its phases, and a line in the log with the microseconds of
 * each (--profile). Threads: a profile belongs to the thread of its create. NULL everywhere: nothing is taken. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum profile_phase {
	PROFILE_DATABASE, /* records */
	PROFILE_NETWORK, /* the lease; the link itself is made while the shim prepares */
	PROFILE_ROOT, /* image, volumes, what is bound */
	PROFILE_SHIM, /* program, directories, groups; nothing if the container was taken from the pool */
	PROFILE_NAMESPACES, /* clone, id map, link, skeleton of mounts; the same */
	PROFILE_MOUNTS, /* layers, overlay, binds, pivot_root */
	PROFILE_INIT, /* the handshake: init locks its mounts, takes its filter, reports */
	PROFILE_REST, /* checks, plans, limits */
	N_PROFILE_PHASES
};

struct profile {
	int64_t last_us, us[N_PROFILE_PHASES];
};

void profile_begin(struct profile *profile);
/* What has passed since the last mark, or the beginning, was this phase. */
void profile_mark(struct profile *profile, enum profile_phase phase);
void profile_mark_at(
	struct profile *profile, enum profile_phase phase, int64_t at_us); /* clock_us */
void profile_log(const struct profile *profile, const char *handle, bool from_pool);

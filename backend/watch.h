/* watch.h - what the server hears of its containers' limits, and how their processes end. The shim looks
 * (shim/watch.h), because it is there when we are not; we open the files for it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "shim/protocol.h"

struct backend;
struct container;
struct msg;
struct process;
struct strv;

/* Part of a container; its table_lock guards it. */
struct container_watch {
	bool has_been_oom;
	uint64_t n_oom_kills, n_pids_hits;
	bool has_end;
	struct msg_end end; /* of the process that ended last */
	char process_id[PROCESS_ID_SIZE];
};

/* Opens the files and gives them to the shim; notes what they say already. What this host does not have is
 * not watched. Never fails: a container without it is whole. */
void container_watch(struct container *container);
/* It is watched, and has its limits only now. */
void container_watch_limits(struct container *container);

/* The same for a process that has groups of its own: what goes into the message that starts it. The
 * descriptors are the caller's. */
void watch_open(const struct backend *backend, const char *group, uint64_t memory_limit_bytes,
	struct msg_watch *ret, struct msg *msg);

/* For link.h: MSG_HIT. */
void container_on_hit(void *container, const struct msg *msg);

/* table_lock held: remembers the end, if it is the latest. */
void container_note_end(
	struct container *container, const char *process_id, const struct msg_end *end);
/* The same for one that we have just been told: it is logged. */
void container_report_end(
	struct container *container, const char *process_id, const struct msg_end *end);

/* As info tells them. 0 or -ENOMEM. */
int container_events(struct container *container, struct strv *ret_events);

/* Properties that are made when they are asked for. *ret_text is the caller's; false: there is none of this
 * name (yet). */
bool container_made_property(struct container *container, const char *key, char **ret_text);
extern const char *const container_made_properties[]; /* their names; NULL ends */

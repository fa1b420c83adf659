/* sweep.h - the cluster's garbage collection: it is told which containers and volumes there are, says which of them it
 * has given up, and those are destroyed. What it does not know it adopts as given up when it is told of it. */
#pragma once
#include <stdint.h>

struct gateway;
struct sweeper;

enum sweep_kind { SWEEP_CONTAINERS, SWEEP_VOLUMES, N_SWEEP_KINDS };

struct sweeper *sweeper_new(const struct gateway *gateway, enum sweep_kind kind);
void sweeper_free(struct sweeper *sweeper);

/* One round over the connection id, in the caller's thread. Failures are logged: the next round is not far. */
void sweeper_run(struct sweeper *sweeper, unsigned id);

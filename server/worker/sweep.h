/* sweep.h - the cluster's garbage collection: it is told which containers and volumes there are, says which of them it
 * has given up, and those are destroyed. What it does not know it adopts as given up when it is told of it. */
#pragma once
#include <stdbool.h>

struct err;
struct gateway;

/* Starts a thread for containers and one for volumes, which end with the process; none if the interval is 0. Each
 * makes a round in every interval over the connection that current tells, if there is one; failures are logged, the
 * next round is not far. current is called in those threads. Everything given must stay. */
int sweepers_start(const struct gateway *gateway, bool (*current)(void *arg, unsigned *ret_id),
	void *arg, struct err *err);

/* listeners.h - what listens: both APIs, each with an address and routes of its own, the ports for those who watch, and
 * a worker's place in its cluster. */
#pragma once
#include <signal.h>
#include <stdint.h>

struct backend;
struct err;
struct options;
struct listeners;

/* Checks what can be checked by now. Options and arguments, which are the program's, stay the caller's until
 * listeners_free. */
int listeners_new(const struct options *options, int argc, char **argv,
	struct listeners **ret_listeners, struct err *err);
/* Takes the addresses of both APIs, where clients wait until it runs, and sends for the cluster, which takes longer
 * than a start. For backend_config.claimed. */
int listeners_open(void *listeners, struct err *err);
/* Serves until one of these signals that means an end, then stops all. */
int listeners_run(struct listeners *listeners, struct backend *backend, const sigset_t *stop,
	struct err *err);
void listeners_free(struct listeners *listeners);

int listeners_ms(int64_t ns); /* of an option's duration */

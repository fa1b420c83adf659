/* pea.h - processes of a container with a root of their own: an image, a layer over it, bind mounts.
 * They share everything else with the container. A pea is recorded before anything of it is made; when
 * it has ended, its layer, its volumes and its record go in a thread of their own. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct answer;
struct backend;
struct container;
struct err;
struct metrics;
struct process;
struct process_spec;

/* Starts it: *ret_answer is MSG_RUN's. A failure leaves nothing. */
int pea_run(struct container *container, const struct process_spec *spec,
	const struct process *process, struct answer *ret_answer, struct err *err);

/* Process lock held, never blocks: what it had is to go. */
void pea_ended(const struct process *process);

/* At start: whether the record has the process for one. */
bool pea_is_one(struct container *container, uint32_t token);
/* After the processes of an adopted container are known: what is recorded of others goes. */
void pea_recover(struct container *container);
/* With its container: nothing of them runs and their volumes are free when this returns 0. */
int pea_end_all(struct container *container, struct err *err);
/* The names that volumes of peas that live are attached to, until visit returns other than 0. */
int pea_each_user(
	struct container *container, int (*visit)(const char *name, void *arg), void *arg);

/* Of the first that lives under this id, in whatever container. -ESRCH: none does. */
int pea_metrics(
	struct backend *backend, const char *process_id, struct metrics *ret, struct err *err);

int peas_start(struct backend *backend, struct err *err);
void peas_stop(struct backend *backend);

/* worker.h - the server's hold on the process that knows its cluster (cluster.h): a thread starts it, and starts it
 * again when it has failed. Whatever becomes of it, the server goes on serving.
 * Threads: any may call. */
#pragma once
#include <stdbool.h>

struct err;
struct worker;

struct worker_spec {
	int self_exe_fd; /* this program */
	const char *garden_at, *volumes_at; /* IP:PORT, where the server listens */
	int argc; /* the server's own, of which "worker" is the first */
	char **argv, **envp;
	void (*left)(
		void); /* the cluster has ended the registration: called at most once, in the thread */
};

/* Everything in spec stays the caller's until worker_stop. */
int worker_start(const struct worker_spec *spec, struct worker **ret_worker, struct err *err);

/* No new work for this worker; its containers stay. The registration ends when the last build on it has. */
void worker_land(struct worker *worker);
/* The same, and the cluster forgets it and what was on it. */
void worker_retire(struct worker *worker);
bool worker_is_registered(struct worker *worker);

/* The cluster is to send nothing more: before the server stops. NULL is allowed, here and below. */
void worker_drain(struct worker *worker);
/* After the server's last word: what is on its way is let through, then connections and process end. Frees. */
void worker_stop(struct worker *worker);

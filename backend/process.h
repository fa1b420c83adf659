/* process.h - processes of one container and the clients attached to them. Public part: backend.h.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "backend.h"
#include "output.h"
#include "shim/protocol.h"

struct process_spec;
struct user;

struct process {
	unsigned n_refs; /* guarded by lock, like the rest; the container's table holds one */
	pthread_mutex_t lock;
	struct container *container; /* not counted: attaches hold the container */
	uint32_t token;
	char id[PROCESS_ID_SIZE];
	bool is_tty, is_started, has_exited;
	bool is_unsettled; /* clients of a server before us may still acknowledge something */
	bool is_pea; /* has a root of its own; set before anybody else knows of it */
	int input_fd; /* a pipe's write end or a terminal's master; -1: ended */
	struct msg_exited exited;
	struct output output;
	TAILQ_HEAD(, attach) attaches;
};

/* process.c: the capabilities that a user of the container may have. */
uint64_t process_bounding(const struct container *container, const struct user *user);
/* What went wrong when the program was to be started: code is a positive errno. */
int process_explain(const struct process_spec *spec, const struct user *user, int code,
	uint32_t step, struct err *err);
/* The head of MSG_RUN. */
struct msg_run process_head(
	const struct process *process, const struct process_spec *spec, const struct user *user);

/* Takes the three descriptors (-1: none) even on failure. */
struct process *process_new(struct container *container, const char *id, uint32_t token,
	bool is_tty, int take_ring_fd, int take_data_fd, int take_input_fd);
void process_put(struct process *process);
/* The shim has said so. Any thread, container lock not needed. */
void process_set_exited(struct process *process, const struct msg_end *end);
/* The shim is gone: what it had not said becomes 137. */
void process_set_lost(struct process *process);

/* One more reference, or NULL. */
struct process *process_find(struct container *container, const char *process_id);
/* If it has exited and nothing is left to deliver, the shim may give back the rings. Never blocks.
 */
void process_release_if_delivered(struct process *process);

/* hold.c. Should we die, the shim ends the connection and knows what has arrived. stream and the like
 * are the caller's, the rest of body is filled in. */
void process_hold(struct process *process, struct msg_hold *body, int sock_fd);
/* Before its FIN, behind the byte at end. */
void process_will_end(struct process *process, int sock_fd, uint64_t end);
/* Before it is closed. */
void process_let_go(struct process *process, int sock_fd);
/* What a server before us had sent is acknowledged, or will never be, from now on. Waits. A failure
 * leaves it unsettled: nobody may read yet. */
int process_settle(struct process *process, struct err *err);

/* attach.c. attach_new consumes the references to process and container, also on failure. */
int attach_new(struct process *take_process, struct container *take_container,
	struct attach **ret_attach, struct err *err);
void attaches_free(struct process *process);
/* Process lock held: wakes every client that waits for the exit. */
void attaches_exited(struct process *process);

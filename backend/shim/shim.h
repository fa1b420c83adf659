/* shim.h - the state of one shim: one container, one thread, no file opened after start except
 * terminals in the container's own devpts. main.c owns the loop, request.c answers the server. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/msg.h"
#include "shim/proc.h"
#include "shim/watch.h"

/* What stays of a process for the container's life. */
struct ended {
	TAILQ_ENTRY(ended) entry;
	struct msg_end end;
	bool tty;
	char process_id[];
};

struct shim {
	enum shim_state state;
	const char *nonce;
	char *argv0;
	int server_fd; /* -1 while no server is there */
	int listen_fd; /* where a server that comes back connects */
	int init_fd, builder_fd, signal_fd, kick_fd, proc_fd, root_fd, pts_fd;
	/* The builder's mount namespace, until init has its own: who lets go of it last waits for a grace
	 * period of the kernel, and that is not to be init while the server waits for it. */
	int built_fd;
	pid_t init_pid, builder_pid;
	int init_status;
	bool is_greeted; /* the server on server_fd has said the nonce */
	bool must_end; /* BYE was said */
	TAILQ_HEAD(, proc) procs; /* with descriptors to watch */
	unsigned n_procs;
	TAILQ_HEAD(, held) helds; /* hold.h; newest first */
	unsigned n_helds;
	int closing_fd; /* tells which of them are closed; -1 until it is needed */
	struct watch watch;
	TAILQ_HEAD(, ended) ended; /* delivered and forgotten but for their statuses */
};

/* request.c: one message of the server, of init. */
void shim_request(struct shim *shim, struct msg *msg);
void shim_from_init(struct shim *shim, struct msg *msg);
/* main.c: receives one message of init and handles it; init_fd is -1 after its end. */
void shim_hear_init(struct shim *shim);
void shim_send(struct shim *shim, const struct msg *msg); /* to the server, if there is one */
void shim_reply(struct shim *shim, uint32_t seq, int code, uint32_t step);
/* init or the kernel says that a process has ended. */
void shim_exited(struct shim *shim, struct msg_end *end);
/* The blob behind its struct has come, its fds are made: it is one of ours from here on. */
void shim_add(struct shim *shim, struct proc *proc);
struct proc *shim_find(const struct shim *shim, uint32_t token);

/* birth.c: requests while the container is made, or made anew in part; init is ready. */
void birth_prepare(struct shim *shim, struct msg *msg);
void birth_finish(struct shim *shim, struct msg *msg);
void birth_refresh(struct shim *shim, struct msg *msg);
void birth_userns(struct shim *shim, struct msg *msg);
void birth_ready(struct shim *shim, struct msg *msg);

/* adopt.c: requests of a server that comes back. */
void shim_hello(struct shim *shim, struct msg *msg);
void shim_adopt(struct shim *shim, struct msg *msg);

/* pea.c: processes with a root of their own. */
void pea_request(struct shim *shim, struct msg *msg);
/* True: it has begun, if it could. */
bool pea_has_begun(struct proc *proc);
/* True: it was about one of them, and is answered. */
bool pea_signal(struct shim *shim, const struct msg *msg);
/* Some child of ours has ended that is not init. */
void pea_reaped(struct shim *shim, pid_t pid, int status, const struct rusage *use);

/* A child's report pipe is readable: it has failed, or become the program. */
void shim_child_reported(struct shim *shim, struct proc *proc);
/* Keeps only the status of a process that has been forgotten and has nothing open any more. */
void shim_retire(struct shim *shim, struct proc *proc);
/* Init is gone and has been reaped. */
void shim_container_died(struct shim *shim);

/* proc.h - one process of the container as the shim keeps it: pipes or terminal, output rings,
 * status. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "linux/ring.h"
#include "shim/protocol.h"
#include "shim/watch.h"

/* Grandchildren may hold the pipes after the exit: what they write within this time is delivered.
 */
#define OUTPUT_GRACE_MS 1000
/* A stream that nobody has ever opened stops its process for this long when full. */
#define UNOPENED_GRACE_MS 60000

struct stream {
	int fd; /* the read end, or a terminal's master; -1: at its end */
	int64_t end_at_ms; /* after the exit: when to stop waiting for more; 0: not yet */
	int64_t full_since_ms; /* 0: not full */
};

struct proc {
	TAILQ_ENTRY(proc) entry;
	uint32_t token, run_seq, state;
	bool tty;
	bool is_pea; /* has a root of its own, and us for a parent */
	int pid_fd; /* where its number comes from; -1: it has come */
	pid_t pid; /* 0: it has not begun */
	pid_t inner_pid; /* as the container sees it; 0: not known */
	bool is_doomed; /* to be killed when it begins */
	int report_fd; /* child_report or end of file; -1: the program runs */
	int stdin_fd; /* the write end, -1 for a terminal or after the end of stdin */
	int ring_fd, data_fd; /* shared with the server */
	struct stream streams[N_STREAMS];
	struct ring rings[N_STREAMS];
	uint64_t trimmed[N_STREAMS]; /* up to here the pages were given back */
	struct msg_end end;
	struct watch_mark mark;
	bool has_watch; /* of groups of its own */
	struct watch watch;
	char name[32]; /* of the program */
	char process_id[PROCESS_ID_SIZE];
};

/* Opens everything. child_fds are what MSG_EXEC carries: 0, 1, 2, report; the caller closes them.
 * pts_fd: the container's /dev/pts. NULL and *ret_code (-errno) on failure. */
struct proc *proc_new(const struct msg_run *run, int pts_fd, int child_fds[4], int *ret_code);
void proc_free(struct proc *proc);
/* For reports. */
void proc_take_name(struct proc *proc, const struct program_wire *checked_program);

/* Moves what there is into the ring, wakes readers, notices the end. */
void proc_pump(struct proc *proc, int stream, int64_t now_ms);
/* After the exit, or at a deadline: ends streams whose time has come. Returns the next deadline, 0:
 * none. */
int64_t proc_check_time(struct proc *proc, int64_t now_ms);
/* The status is known: the streams get their grace time. last_words go behind what is on standard
 * error, unless that is a terminal or has no room. */
void proc_exited(
	struct proc *proc, const struct msg_end *end, const char *last_words, int64_t now_ms);
/* The container is gone: takes what lies in the pipes, as far as the rings go, and ends the
 * streams. */
void proc_finish(struct proc *proc, int64_t now_ms);
/* The server has said that it has read: gives back memory worth the call. */
void proc_trim(struct proc *proc);
/* True while the poll loop should watch the stream for input. */
bool proc_wants_input(const struct proc *proc, int stream);
/* Frees rings and descriptors of an ended process; the status stays. */
void proc_forget(struct proc *proc);

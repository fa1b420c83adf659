/* protocol.h - what server, shim, builder and init say to each other, in C. The words are in
 * PROTOCOL.md. Bodies are fixed structs of fixed-width members: append only, and raise
 * SHIM_PROTOCOL when a meaning changes. Blobs (plans, programs to run) are one piece of memory with
 * offsets from its start, checked by plan_check and program_check before use. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHIM_PROTOCOL 1
#define SHIM_CONTROL_FD 3

enum msg_type {
	MSG_REPLY = 1, /* struct msg_reply; seq is the request's */

	/* server to shim; each is answered by MSG_REPLY */
	MSG_HELLO = 16, /* struct msg_hello; reply: struct msg_welcome, or struct msg_welcome_all */
	MSG_PREPARE, /* a plan; fds: procfs, listening socket (later optional) */
	MSG_BIRTH, /* a plan */
	MSG_START, /* struct msg_start and the filter's bytes; reply fds: root, pts */
	MSG_RUN, /* struct msg_run and a program blob; reply fds: rings, data event, stdin or tty */
	MSG_SIGNAL, /* struct msg_signal */
	MSG_KILL_ALL, /* struct msg_signal, token unused; reply.value: 1 if processes are left */
	MSG_CLOSE_STDIN, /* struct msg_token */
	MSG_OPENED, /* struct msg_signal, signo is the stream: somebody reads it from now on */
	MSG_FORGET, /* struct msg_token: everything was delivered; only the status is kept */
	MSG_BYE, /* kill everything and exit; answered by MSG_DEAD */
	MSG_ADOPT, /* struct msg_token; reply: struct msg_process, fds as MSG_RUN's */
	MSG_REFRESH, /* a plan that changes the mounts of the container; fds: procfs */
	MSG_USERNS, /* fds: procfs; reply fds: the user namespace of init */
	MSG_RUN_IMAGE, /* struct msg_run_image and three blobs; fds: see there; reply as MSG_RUN's */
	MSG_WATCH, /* struct msg_watch; fds: one for each WATCH_ bit of what is given, in order; with nothing
		      given, those of before stay */

	MSG_HOLD, /* struct msg_hold; fds: a client's connection; not answered, as the next two */
	MSG_HOLD_END, /* struct msg_hold_end: the server ends it by FIN behind that offset */
	MSG_LET_GO, /* struct msg_hold_end, end unused: the server closes it */
	MSG_SETTLE, /* struct msg_settle; reply.value: how many connections of a server before are
		       not settled */

	/* shim to server, unasked */
	MSG_EXITED = 48, /* struct msg_end */
	MSG_DEAD, /* init is gone, or BYE was obeyed: struct msg_dead */
	MSG_HIT, /* a limit was hit: struct msg_hit */

	/* shim to init (START, SIGNAL, KILL_ALL as above), init to shim */
	MSG_EXEC = 64, /* struct msg_token, padding, a program blob; fds: 0, 1, 2, report */
	MSG_READY, /* fds: root, pts; or struct msg_reply with an errno */
	MSG_EXECED, /* struct msg_execed */

	/* builder to shim */
	MSG_BUILT = 80, /* struct msg_built */
};

/* code is 0 or a negative errno; step is the number of the plan's operation or an enum child_step.
 */
struct msg_reply {
	int32_t code;
	uint32_t step;
	uint64_t value;
};

struct msg_hello {
	uint32_t protocol, padding;
	char nonce[40]; /* as given in argv: the shim answers only to those who know it */
	uint32_t wants_all; /* 1: struct msg_welcome_all, where it is known and there is memory */
	uint32_t more_padding;
};
struct msg_welcome {
	struct msg_reply reply;
	uint32_t protocol, state;
	int32_t init_pid; /* as the host sees it */
	uint32_t n_tokens;
	uint32_t tokens[4096]; /* the first n_tokens are sent */
};

enum shim_state { SHIM_EMPTY, SHIM_PREPARED, SHIM_BORN, SHIM_RUNNING, SHIM_DEAD, N_SHIM_STATES };

struct msg_token {
	uint32_t token, padding;
};
struct msg_signal {
	uint32_t token;
	int32_t signo;
};
/* A connection of a client: the shim keeps a duplicate, and ends it when the server dies. */
struct msg_hold {
	uint32_t token, stream; /* N_STREAMS: a control connection */
	uint32_t id; /* the server's, no other of its connections has it until MSG_LET_GO */
	uint32_t is_tcp; /* 0: what its peer acknowledges is not known */
	uint64_t start; /* the offset of the stream's first byte in it */
	uint64_t base; /* what the socket had been given before that */
};
struct msg_hold_end {
	uint32_t id, padding;
	uint64_t end;
};
struct msg_settle {
	uint32_t token;
	uint32_t is_over; /* 1: those that are not settled are reset */
};
struct msg_execed {
	uint32_t token;
	int32_t pid; /* in the container, or a negative errno: nothing was started */
};

/* Signals end as 128 + number, as shells say it. */
struct msg_exited {
	uint32_t token;
	int32_t exit_status;
	int32_t wait_status; /* as waitpid(2) */
	uint32_t reason; /* enum exit_reason */
	uint64_t user_us, system_us, max_rss_kb;
};
enum exit_reason { EXIT_NORMAL, EXIT_SIGNAL, EXIT_CONTAINER_DEAD, EXIT_OOM };

/* What a process has used, with its children that it has waited for; of its group where said. */
struct msg_usage {
	uint64_t elapsed_ms;
	uint64_t ended_ms; /* clock_ms */
	uint64_t read_bytes, written_bytes; /* from and to disks */
	uint64_t group_memory_peak_bytes,
		group_pids_peak; /* since the container began; 0: not known */
	uint64_t oom_kills, pids_hits; /* in the group, while the process was there */
	int32_t pid; /* in the container; 0: not known */
	uint32_t padding;
	char name[32]; /* the program's, without its directory, cut off */
	uint64_t memory_limit_bytes; /* of its group; 0: none, or not known */
};
struct msg_end {
	struct msg_exited exited;
	struct msg_usage usage;
};

/* Files of the container's groups that tell of limits. */
enum watch_file {
	WATCH_OOM_COUNT = 1, /* has a line "oom_kill N" */
	WATCH_OOM_EVENT = 2, /* an eventfd (v1); without it the file above is polled (v2) */
	WATCH_MEMORY_PEAK = 4, /* has one number */
	WATCH_PIDS_EVENTS = 8, /* has a line "max N", and is polled */
	WATCH_PIDS_PEAK = 16, /* has one number */
};
#define N_WATCH_FILES 5
struct msg_watch {
	uint64_t memory_limit_bytes; /* 0: none */
	uint32_t given; /* enum watch_file */
	uint32_t explains; /* 1: an OOM kill is explained on the process's standard error */
};
struct msg_hit {
	uint32_t limit; /* enum hit_limit */
	uint32_t padding;
	uint64_t count; /* since the container began; may still be behind */
};
enum hit_limit { HIT_MEMORY, HIT_PIDS };

struct msg_dead {
	int32_t wait_status; /* of init */
	uint32_t padding;
};

struct msg_built {
	int32_t code;
	uint32_t step;
	int32_t init_pid; /* after MSG_PREPARE, as the host sees it */
	uint32_t padding;
};

struct msg_start {
	char hostname[64];
	uint64_t bounding, effective; /* capability masks of init */
	uint32_t filter_bytes; /* behind this struct; 0: none */
	uint32_t new_namespaces; /* CLONE_ flags that init unshares: its own, locked, mount tree */
};

#define PROCESS_ID_SIZE 256
struct msg_run {
	uint32_t token;
	uint32_t uid, gid; /* host ids: the pipes and the terminal are theirs */
	uint32_t tty, columns, rows;
	uint64_t ring_bytes;
	char process_id[PROCESS_ID_SIZE];
};
/* A process with a root of its own. Behind the struct, each from a multiple of 8 bytes on: a plan that
 * ends in OP_PROGRAM, a program, a seccomp filter. fds: a procfs, its v2 group if it has one, and what
 * watch says. */
struct msg_run_image {
	struct msg_run run;
	uint64_t bounding, effective; /* as init has them, struct msg_start */
	uint32_t plan_bytes, program_bytes, filter_bytes;
	uint32_t has_group; /* 1: its builder is born there, and so is it */
	struct msg_watch watch; /* with nothing given: the container's holds for it */
};
struct msg_process {
	struct msg_reply reply;
	struct msg_exited exited;
	uint32_t state, tty;
	char process_id[PROCESS_ID_SIZE];
	struct msg_usage usage;
};
enum process_state { PROCESS_STARTING, PROCESS_RUNNING, PROCESS_EXITED };

/* What MSG_WATCH has given, and what was seen by it. */
struct msg_watched {
	uint64_t memory_limit_bytes, oom_kills, pids_hits;
	uint32_t given; /* enum watch_file; 0: nobody looks */
	uint32_t explains;
};
/* The other answer to MSG_HELLO. fds: root, kick, and those of the first processes, one after the other. */
#define WELCOME_ALL 1 /* reply.value */
struct msg_welcome_all {
	struct msg_reply reply;
	uint32_t protocol, state;
	int32_t init_pid;
	uint32_t n_told, told_bytes; /* behind this struct, as the shim knows them */
	uint32_t padding;
	struct msg_watched watch;
};
struct msg_told {
	uint32_t token;
	uint16_t n_fds; /* as in an answer to MSG_ADOPT */
	uint16_t is_partial; /* 1: there was no room for them, see MSG_ADOPT */
	struct msg_process process;
};

/* ---- plans: what a builder does, in order -------------------------------------------------- */

enum op_code {
	OP_CGROUP_JOIN, /* a: a v1 group's tasks file; the builder goes in, init is born there */
	OP_UNSHARE, /* number: CLONE_NEWNS (then private) or CLONE_NEWPID */
	OP_INIT, /* number: CLONE_NEW flags of init; a: its cgroup v2 directory or "" */
	OP_ID_MAP, /* a: the map, as uid_map(5) wants it */
	OP_SKELETON, /* a: an empty directory of the host; a tmpfs on it is where relative paths begin */
	OP_MOUNT, /* a: target; b: "type key=value,..."; attrs */
	OP_MKDIR, /* a: target; number: mode */
	OP_MKNOD, /* a: target; number: device; mode 0666, owned by the container's root */
	OP_SYMLINK, /* a: target; b: text */
	OP_FILE, /* a: target; b: content; mode 0644, owned by the container's root */
	OP_BIND, /* a: source; b: target; attrs */
	OP_MOVE, /* a: a mount of the skeleton; b: directory in the root */
	OP_OVERLAY, /* a: target; b: options; attrs; made with the container root's fsuid, tried by writing */
	OP_PIVOT, /* a: the new root */
	OP_USERNS, /* for OPF_IDMAP: the one that init has */
	OP_TAKE, /* a: source; attrs; number: where to keep the mount, unattached, below MAX_SLOTS */
	OP_ENTER, /* init's mount namespace; its root is the root from now on */
	OP_KEEP, /* a: path in the root; number: where to keep a copy of what is there; attrs */
	OP_PUT, /* a: target; number: what to put there; without OPF_IN_ROOT as OP_MOVE does */
	OP_HOME, /* number 1: back to the builder's own mount namespace; 0: nothing any more */
	OP_JOIN, /* number: CLONE_NEW flags of namespaces of init's to enter, the pid one for children */
	OP_PROGRAM, /* the process that the shim was told to run, born in the builder's groups */
	OP_SYSCTL, /* a: below /proc/sys, of the network namespace that one is in; b: value */
	OP_VETH, /* a: name of the host's end, eth0 inside; b: MTU; number: group << 32 | bridge; attrs: 1 with IPv6 */
	OP_ADDRESS, /* a: link; b: "address/prefix" */
	OP_ROUTE, /* a: gateway of the default route */
	OP_MAC, /* a: link; b: hardware address, "02:64:0a:04:00:02" */
	N_OPS
};
#define MAX_SLOTS 1024

enum op_flags {
	OPF_IN_HELPER = 1, /* by a child in the container's pid, net and ipc namespaces */
	OPF_OPTIONAL = 2, /* a missing target is no error: not every kernel has every file */
	OPF_RECURSIVE = 4, /* with what is mounted below the source */
	OPF_IDMAP = 8, /* seen through the container's id map */
	OPF_SKELETON_SRC = 16, /* the source is a path of the skeleton, not of the host */
	OPF_IN_ROOT = 32, /* target: a path as the container sees it, made if missing */
	OPF_ROOT_ITSELF = 64, /* the mount made here is the root that OPF_IN_ROOT means */
	OPF_PART =
		128, /* the source is "place/path": a path as seen in what is mounted at the place */
	OPF_ROOT_SRC = 256, /* the source is a path as the container sees it */
	OPF_GIVEN = 512, /* to the container's root */
};

struct op_wire {
	uint16_t code, flags;
	uint32_t a, b; /* offsets of NUL-terminated strings */
	uint32_t padding;
	uint64_t attrs; /* MOUNT_ATTR_ flags, mount_setattr(2) */
	uint64_t number;
};

struct plan_wire {
	uint32_t total_bytes, n_ops;
	uint32_t root_uid, root_gid; /* host ids of the container's root */
	struct op_wire ops[]; /* the strings lie behind them */
};

/* 0, or -EPROTO: every offset lies inside and every string ends. */
int plan_check(const void *blob, size_t n_bytes);

/* ---- programs: what a process of the container becomes ------------------------------------- */

#define N_RLIMITS 16
struct program_wire {
	uint32_t total_bytes;
	uint32_t uid, gid; /* in the container */
	uint32_t n_groups, n_argv, n_envp;
	uint32_t groups; /* offset of n_groups uint32_t */
	uint32_t argv,
		envp; /* offsets of tables of uint64_t: offsets, made pointers by the child; a zero ends */
	uint32_t dir, path; /* offsets of strings; path: the PATH to search */
	uint32_t tty;
	uint64_t bounding, effective; /* capability masks */
	uint32_t rlimit_set, padding; /* bit n: rlimits[n] is to be set, soft and hard */
	uint64_t rlimits[N_RLIMITS];
};

/* 0, or -EPROTO. */
int program_check(const void *blob, size_t n_bytes);

/* What a child reports before it has become the program: {step, errno}; end of file means success.
 */
enum child_step {
	STEP_STDIO,
	STEP_TTY,
	STEP_RLIMIT,
	STEP_DIR_MAKE,
	STEP_DIR_ENTER,
	STEP_GROUPS,
	STEP_USER,
	STEP_CAPS,
	STEP_LOOKUP,
	STEP_EXEC,
	STEP_JOIN, /* the container, of a process with a root of its own */
	N_STEPS
};
#define STEP_OF_PLAN 0x10000u /* plus the number of the operation that failed */
struct child_report {
	uint32_t step;
	int32_t code; /* positive errno */
};

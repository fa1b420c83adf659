/* gateway.h - how OpenSSH's client is asked to do what a cluster's gateway (TSA) offers. A connection is a process
 * ("ssh -M") that holds both tunnels; each command is a short process beside it, which goes over the same connection.
 * Threads: any; nothing here changes after gateway_open. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct buf;
struct err;
struct strv;
struct worker_config;

struct gateway {
	const struct worker_config *config;
	int self_fd, ssh_fd; /* this program, and ssh */
	int dir_fd; /* keys, and a socket for each connection; names begin with our pid */
	int server_fd; /* whose other end is the server: once it is gone, nothing is waited for */
	char *identity; /* the JSON document for commands that only need to know who we are */
};

/* The directory in the run directory, with the keys in it: another process like this one, which is about to end, may
 * have its own there still. gateway_done closes what a failed one has left, too. */
int gateway_open(struct gateway *gateway, const struct worker_config *config, int server_fd,
	struct err *err);
void gateway_done(struct gateway *gateway);
/* All that outlives the process, while other threads may be at work still. */
void gateway_forget_keys(const struct gateway *gateway);

/* HOST, HOST:PORT, [IPV6]:PORT, as --tsa-host has it. ret_host is the caller's; 0 or -EINVAL. */
int gateway_parse(const char *text, char **ret_host, uint16_t *ret_port);

struct child {
	pid_t pid;
	int pid_fd, out_fd; /* what it writes; its end shows as end of file */
};
/* Kills it if it is there, waits for its end and closes the descriptors. */
void child_end(struct child *child);

/* Starts the connection id (any number not in use); its words come from out_fd. It serves once gateway_is_ready. */
int gateway_connect(const struct gateway *gateway, unsigned id, const char *at,
	struct child *ret_child, struct err *err);
int gateway_is_ready(const struct gateway *gateway, unsigned id); /* 1, 0 */
/* After its end. */
void gateway_forget(const struct gateway *gateway, unsigned id);

/* Registers over the connection: the events come, a line each, from out_fd until the registration ends. */
int gateway_forward(const struct gateway *gateway, unsigned id, const char *json,
	struct child *ret_child, struct err *err);

/* A command to its end: words of their own, never one string (which ends at 128 KiB in Linux); out gets what it prints.
 * -ETIMEDOUT after timeout_ms. ERR_INVALID: the gateway has refused it. */
int gateway_run(const struct gateway *gateway, unsigned id, const struct strv *words,
	int timeout_ms, struct buf *out, struct err *err);
/* One word, no answer. */
int gateway_tell(const struct gateway *gateway, unsigned id, const char *word, int timeout_ms,
	struct err *err);

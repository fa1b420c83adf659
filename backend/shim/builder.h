/* builder.h - the shim's child that walks plans: makes namespaces, init, mounts; then is gone. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct plan_wire;
struct program_wire;

/* A process to be made by OP_PROGRAM. */
struct pea {
	struct program_wire *program; /* checked */
	const void *filter;
	uint32_t filter_bytes;
	uint64_t bounding, effective;
	int fds[4]; /* as child_become has them */
	int pid_fd; /* its numbers go here before it begins: the host's, the container's */
};

struct builder {
	const struct pea *pea; /* NULL: none */
	int report_fd; /* struct msg_built goes here, and the second plan comes from here */
	int init_fd; /* init's end of its socket to the shim */
	int proc_fd; /* a procfs of the host that nobody has mounted anywhere */
	char *argv0;
	const struct plan_wire *prepare; /* checked */
};

/* Walks the first plan, reports, waits for the second one, walks it, reports, ends. */
_Noreturn void builder_main(const struct builder *builder);
/* The same for the plan of a process; what fails is reported as child_become does. */
_Noreturn void builder_program(const struct builder *builder, pid_t init_pid);
/* Walks the one plan with init where it is, reports, ends. */
_Noreturn void builder_refresh(const struct builder *builder, pid_t init_pid);

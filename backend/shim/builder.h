/* builder.h - the shim's child that walks plans: makes namespaces, init, mounts; then is gone. */
#pragma once
#include <stddef.h>
#include <sys/types.h>

struct plan_wire;

struct builder {
	int report_fd; /* struct msg_built goes here, and the second plan comes from here */
	int init_fd; /* init's end of its socket to the shim */
	int proc_fd; /* a procfs of the host that nobody has mounted anywhere */
	char *argv0;
	const struct plan_wire *prepare; /* checked */
};

/* Walks the first plan, reports, waits for the second one, walks it, reports, ends. */
_Noreturn void builder_main(const struct builder *builder);
/* Walks the one plan with init where it is, reports, ends. */
_Noreturn void builder_refresh(const struct builder *builder, pid_t init_pid);

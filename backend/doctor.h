/* doctor.h - what this host lacks (linux/features.h), as lines for people: "works  NAME",
 * "lacks  NAME: REASON. Without it: LOSS." (the rest works) or "fails  ..." (nothing does). The report
 * is made by a process of its own, `cloche doctor`; the server logs that process's lines while it serves. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum doctor_status { DOCTOR_WELL = 0, DOCTOR_FAILS = 1, DOCTOR_LACKS = 2 };

/* The whole report on standard output; returns the exit status. */
int doctor_main(const char *work_dir, uint32_t id_base);

struct doctor {
	int self_exe_fd;
	const char *work_dir; /* borrowed until the end */
	uint32_t id_base;
	pthread_t thread;
	bool has_thread;
};

/* Starts it beside the server, with a thread that logs a line for each thing that is missing. A failure is
 * logged: the server does without a report. */
void doctor_start(struct doctor *doctor, int self_exe_fd, const char *work_dir, uint32_t id_base);
/* Waits until it has said all. */
void doctor_finish(struct doctor *doctor);

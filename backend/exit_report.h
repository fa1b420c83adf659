/* exit_report.h - why a process has ended and what it has used, as texts: for the log, the properties
 * cloche.exit-reason and cloche.usage. Pure. */
#pragma once
#include <stdint.h>

struct limits;
struct msg_end;

#define EXIT_REASON_PROPERTY "cloche.exit-reason"
#define EXIT_USAGE_PROPERTY "cloche.usage"
#define EXIT_TEXT_BYTES 1024

/* "exited with status 3", "killed by signal 15 (TERM)", "killed by OOM: limit 64.0 MiB, peak 64.0 MiB,
 * process java(7)", "ended with its container"; and what else stood in its way. */
void exit_reason_text(
	char text[EXIT_TEXT_BYTES], const struct msg_end *end, const struct limits *limits);
/* A JSON object of numbers and the process's id, which needs no escapes. */
void exit_usage_text(char text[EXIT_TEXT_BYTES], const struct msg_end *end, const char *process_id);

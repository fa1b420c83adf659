#include "exit_report.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/size_text.h"
#include "resource_limits.h"
#include "shim/protocol.h"

static void add(char text[EXIT_TEXT_BYTES], const char *more)
{
	size_t len = strlen(text);

	snprintf(text + len, EXIT_TEXT_BYTES - len, "%s", more);
}

static void add_size(char text[EXIT_TEXT_BYTES], const char *front, uint64_t n_bytes)
{
	char size[SIZE_TEXT_BYTES];

	size_text(size, n_bytes);
	add(text, front);
	add(text, size);
}

/* "limit 64.0 MiB, peak 64.0 MiB, process java(7)" */
static void add_oom(
	char text[EXIT_TEXT_BYTES], const struct msg_end *end, const struct limits *limits)
{
	const struct msg_usage *usage = &end->usage;
	char who[64];

	uint64_t limit_bytes =
		usage->memory_limit_bytes ? usage->memory_limit_bytes : limits->memory_bytes;

	if (limit_bytes)
		add_size(text, "limit ", limit_bytes);
	else
		add(text, "no memory left on the host");
	if (usage->group_memory_peak_bytes)
		add_size(text, ", peak ", usage->group_memory_peak_bytes);
	snprintf(who, sizeof(who), ", %s %.31s(%d)",
		end->exited.reason == EXIT_OOM ? "process" : "a process started by", usage->name,
		usage->pid);
	add(text, who);
}

static void add_end(char text[EXIT_TEXT_BYTES], const struct msg_exited *exited)
{
	const char *name = WIFSIGNALED(exited->wait_status)
		? sigabbrev_np(WTERMSIG(exited->wait_status))
		: NULL;

	switch ((enum exit_reason)exited->reason) {
	case EXIT_NORMAL:
		snprintf(text, EXIT_TEXT_BYTES, "exited with status %d", exited->exit_status);
		break;
	case EXIT_SIGNAL:
		snprintf(text, EXIT_TEXT_BYTES, "killed by signal %d (%s)",
			WTERMSIG(exited->wait_status), name ? name : "real time");
		break;
	case EXIT_CONTAINER_DEAD:
		snprintf(text, EXIT_TEXT_BYTES, "ended with its container");
		break;
	case EXIT_OOM:
		snprintf(text, EXIT_TEXT_BYTES, "killed by OOM: ");
		break;
	}
}

void exit_reason_text(
	char text[EXIT_TEXT_BYTES], const struct msg_end *end, const struct limits *limits)
{
	char more[96];

	text[0] = '\0';
	add_end(text, &end->exited);
	if (end->exited.reason == EXIT_OOM) {
		add_oom(text, end, limits);
	} else if (end->usage.oom_kills) {
		add(text, "; out of memory: ");
		add_oom(text, end, limits);
		add(text, " was killed");
	}
	if (!end->usage.pids_hits)
		return;
	snprintf(more, sizeof(more), "; the limit of %llu processes stopped %llu more",
		(unsigned long long)limits->n_pids, (unsigned long long)end->usage.pids_hits);
	add(text, more);
}

void exit_usage_text(char text[EXIT_TEXT_BYTES], const struct msg_end *end, const char *process_id)
{
	const struct msg_exited *exited = &end->exited;
	const struct msg_usage *usage = &end->usage;

	snprintf(text, EXIT_TEXT_BYTES,
		"{\"process\":\"%.255s\",\"exit_status\":%d,\"seconds\":%llu.%03llu,"
		"\"user_seconds\":%llu.%06llu,\"system_seconds\":%llu.%06llu,"
		"\"memory_peak_bytes\":%llu,\"max_rss_bytes\":%llu,\"read_bytes\":%llu,"
		"\"written_bytes\":%llu,\"pids_peak\":%llu}",
		process_id, exited->exit_status, (unsigned long long)usage->elapsed_ms / 1000,
		(unsigned long long)usage->elapsed_ms % 1000,
		(unsigned long long)exited->user_us / 1000000,
		(unsigned long long)exited->user_us % 1000000,
		(unsigned long long)exited->system_us / 1000000,
		(unsigned long long)exited->system_us % 1000000,
		(unsigned long long)usage->group_memory_peak_bytes,
		(unsigned long long)exited->max_rss_kb * 1024,
		(unsigned long long)usage->read_bytes, (unsigned long long)usage->written_bytes,
		(unsigned long long)usage->group_pids_peak);
}

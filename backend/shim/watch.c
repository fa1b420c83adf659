#include "shim/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/size_text.h"

enum { OOM_COUNT, OOM_EVENT, MEMORY_PEAK, PIDS_EVENTS, PIDS_PEAK };

void watch_init(struct watch *watch)
{
	*watch = (struct watch){ 0 };
	for (int i = 0; i < N_WATCH_FILES; i++)
		watch->fds[i] = -1;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The number behind "name " at the start of a line, or, with an empty name, the first one. */
static uint64_t number_in(const char *text, const char *name)
{
	size_t len = strlen(name);
	uint64_t n = 0;

	while (len && (strncmp(text, name, len) || text[len] != ' ')) {
		text = strchr(text, '\n');
		if (!text)
			return 0;
		text++;
	}
	for (text += len ? len + 1 : 0; *text >= '0' && *text <= '9'; text++)
		n = n * 10 + (uint64_t)(*text - '0');
	return n;
}

/* Such a file is made anew for each look at its beginning. */
static uint64_t look(const struct watch *watch, int file, const char *name)
{
	char text[512];
	ssize_t n = watch->fds[file] < 0 ? -1 : pread(watch->fds[file], text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	return number_in(text, name);
}

/* Each look takes the file's event away from poll: what is seen is kept, see watch_news. */
static uint64_t count_oom_kills(struct watch *watch)
{
	return watch->n_oom_kills = look(watch, OOM_COUNT, "oom_kill");
}

static uint64_t count_pids_hits(struct watch *watch)
{
	return watch->n_pids_hits = look(watch, PIDS_EVENTS, "max");
}

void watch_done(struct watch *watch)
{
	for (int i = 0; i < N_WATCH_FILES; i++)
		auto_fd(&watch->fds[i]);
}

int watch_take(struct watch *watch, const struct msg_watch *body, int fds[], unsigned n_fds)
{
	unsigned n = 0;

	if ((unsigned)__builtin_popcount(body->given & ((1u << N_WATCH_FILES) - 1)) != n_fds)
		return -EPROTO;
	if (body->given)
		watch_done(watch);
	for (int i = 0; i < N_WATCH_FILES; i++)
		if (body->given >> i & 1) {
			watch->fds[i] = TAKE_FD(fds[n]);
			n++;
		}
	watch->memory_limit_bytes = body->memory_limit_bytes;
	watch->explains = body->explains;
	watch->n_oom_told = watch->n_explained = count_oom_kills(watch);
	watch->n_pids_told = count_pids_hits(watch);
	watch->wants_memory = false;
	return 0;
}

void watch_describe(struct watch *watch, struct msg_watched *ret)
{
	*ret = (struct msg_watched){ .memory_limit_bytes = watch->memory_limit_bytes,
		.explains = watch->explains,
		.oom_kills = count_oom_kills(watch),
		.pids_hits = count_pids_hits(watch) };
	for (int i = 0; i < N_WATCH_FILES; i++)
		ret->given |= watch->fds[i] < 0 ? 0 : 1u << i;
	watch->n_oom_told = watch->n_oom_kills;
	watch->n_pids_told = watch->n_pids_hits;
}

/* ---- events ---------------------------------------------------------------------------------- */

void watch_fill_polls(const struct watch *watch, struct pollfd polls[N_WATCH_POLLS])
{
	bool has_event = watch->fds[OOM_EVENT] >= 0;

	polls[WATCH_POLL_MEMORY] =
		(struct pollfd){ .fd = watch->fds[has_event ? OOM_EVENT : OOM_COUNT],
			.events = has_event ? POLLIN : POLLPRI };
	polls[WATCH_POLL_PIDS] =
		(struct pollfd){ .fd = watch->fds[PIDS_EVENTS], .events = POLLPRI };
}

/* A group that goes has no file any more. */
static bool is_there(struct watch *watch, int file)
{
	char byte;

	return pread(watch->fds[file], &byte, 1, 0) == 1;
}

/* v1 tells of the want before it kills, and once more when the group goes. */
static void hear_memory(struct watch *watch)
{
	bool has_event = watch->fds[OOM_EVENT] >= 0;
	uint64_t times;

	if (has_event && read(watch->fds[OOM_EVENT], &times, sizeof(times)) < 0)
		return;
	if (!is_there(watch, OOM_COUNT)) {
		auto_fd(&watch->fds[has_event ? OOM_EVENT : OOM_COUNT]);
		return;
	}
	watch->wants_memory |= has_event;
	count_oom_kills(watch);
}

void watch_hear(struct watch *watch, enum watch_poll which)
{
	if (which == WATCH_POLL_MEMORY)
		hear_memory(watch);
	else if (is_there(watch, PIDS_EVENTS))
		count_pids_hits(watch);
	else
		auto_fd(&watch->fds[PIDS_EVENTS]);
}

bool watch_news(struct watch *watch, struct msg_hit *ret_hit)
{
	if (watch->wants_memory || watch->n_oom_kills != watch->n_oom_told) {
		watch->wants_memory = false;
		watch->n_oom_told = watch->n_oom_kills;
		*ret_hit = (struct msg_hit){ .limit = HIT_MEMORY, .count = watch->n_oom_kills };
		return true;
	}
	if (watch->n_pids_hits != watch->n_pids_told) {
		watch->n_pids_told = watch->n_pids_hits;
		*ret_hit = (struct msg_hit){ .limit = HIT_PIDS, .count = watch->n_pids_hits };
		return true;
	}
	return false;
}

/* ---- processes ------------------------------------------------------------------------------- */

struct watch_mark watch_begin(struct watch *watch)
{
	return (struct watch_mark){ .at_ms = clock_ms(),
		.n_oom_kills = count_oom_kills(watch),
		.n_pids_hits = count_pids_hits(watch) };
}

static void add_size(char words[WATCH_WORDS_BYTES], const char *front, uint64_t n_bytes)
{
	size_t len = strlen(words);
	char size[SIZE_TEXT_BYTES];

	size_text(size, n_bytes);
	snprintf(words + len, WATCH_WORDS_BYTES - len, "%s%s", front, size);
}

/* "cloche: killed by OOM: limit 64.0 MiB, peak 64.0 MiB, process java(7)" */
static void explain(
	const struct watch *watch, const struct msg_end *end, char words[WATCH_WORDS_BYTES])
{
	const struct msg_usage *usage = &end->usage;
	size_t len;

	snprintf(words, WATCH_WORDS_BYTES, "cloche: killed by OOM: ");
	if (watch->memory_limit_bytes)
		add_size(words, "limit ", watch->memory_limit_bytes);
	else
		snprintf(words, WATCH_WORDS_BYTES,
			"cloche: killed by OOM: no memory left on the host");
	if (usage->group_memory_peak_bytes)
		add_size(words, ", peak ", usage->group_memory_peak_bytes);
	len = strlen(words);
	snprintf(words + len, WATCH_WORDS_BYTES - len, ", %s %s(%d)\n",
		end->exited.reason == EXIT_OOM ? "process" : "a process started by", usage->name,
		usage->pid);
}

/* One kill explains one failure: the process that got the signal, or the one whose child it was. */
void watch_end(struct watch *watch, const struct watch_mark *mark, struct msg_end *end,
	char ret_words[WATCH_WORDS_BYTES])
{
	struct msg_usage *usage = &end->usage;
	uint64_t n_kills = count_oom_kills(watch);
	bool got_kill = WIFSIGNALED(end->exited.wait_status) &&
		WTERMSIG(end->exited.wait_status) == SIGKILL;

	ret_words[0] = '\0';
	usage->ended_ms = (uint64_t)clock_ms();
	usage->elapsed_ms = usage->ended_ms - (uint64_t)mark->at_ms;
	usage->memory_limit_bytes = watch->memory_limit_bytes;
	usage->group_memory_peak_bytes = look(watch, MEMORY_PEAK, "");
	usage->group_pids_peak = look(watch, PIDS_PEAK, "");
	usage->oom_kills = n_kills > mark->n_oom_kills ? n_kills - mark->n_oom_kills : 0;
	usage->pids_hits = count_pids_hits(watch);
	usage->pids_hits -=
		usage->pids_hits < mark->n_pids_hits ? usage->pids_hits : mark->n_pids_hits;
	if (!usage->oom_kills || n_kills <= watch->n_explained || !end->exited.exit_status)
		return;
	watch->n_explained = n_kills;
	if (got_kill && end->exited.reason == EXIT_SIGNAL)
		end->exited.reason = EXIT_OOM;
	if (watch->explains)
		explain(watch, end, ret_words);
}

#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/msg.h"
#include "base/parse.h"
#include "container.h"
#include "exit_report.h"
#include "link.h"
#include "linux/cgroup_limits.h"
#include "linux/sys.h"

const char *const container_made_properties[] = { EXIT_REASON_PROPERTY, EXIT_USAGE_PROPERTY, NULL };

/* ---- files ----------------------------------------------------------------------------------- */

static int open_file(const struct backend *backend, const char *group, const char *controller,
	const char *v1, const char *v2)
{
	const struct hierarchy *hierarchy = cgroup_find(&backend->cgroups, controller);
	AUTO_FREE char *path = NULL;

	if (!hierarchy)
		return -ENOENT;
	path = cgroup_path(hierarchy, group, hierarchy->is_v2 ? v2 : v1);
	return path ? sys_open_at(AT_FDCWD, path, O_RDONLY, 0, 0) : -ENOMEM;
}

/* v1 signals an eventfd that was written, by number, beside the file's into a third file. */
static int open_oom_event(const struct container *container, int oom_control_fd)
{
	const struct hierarchy *hierarchy = cgroup_find(&container->backend->cgroups, "memory");
	AUTO_FREE char *path = NULL;
	AUTO_FD int fd = -1;
	char text[32];
	int r;

	if (!hierarchy || hierarchy->is_v2 || oom_control_fd < 0)
		return -ENOENT;
	path = cgroup_path(hierarchy, container->id, "cgroup.event_control");
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!path || fd < 0)
		return -ENOMEM;
	snprintf(text, sizeof(text), "%d %d", fd, oom_control_fd);
	r = sys_write_file(AT_FDCWD, path, text);
	return r < 0 ? r : TAKE_FD(fd);
}

static void give(struct msg *msg, struct msg_watch *body, enum watch_file file, int take_fd)
{
	if (take_fd < 0)
		return;
	body->given |= file;
	msg->fds[msg->n_fds++] = take_fd;
}

/* The number behind "name " at the start of a line of such a file. */
static uint64_t read_count(int fd, const char *name)
{
	char text[512], *rest = text, *line;
	uint64_t count = 0;
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

	text[n < 0 ? 0 : n] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		const char *word = strsep(&line, " ");

		if (line && !strcmp(word, name))
			parse_u64(line, UINT64_MAX, &count);
	}
	return count;
}

static struct msg_watch limits_of(const struct container *container)
{
	return (struct msg_watch){ .memory_limit_bytes = container->limits.memory_bytes,
		.explains = container->backend->config.explains_oom };
}

static void post(struct container *container, struct msg *msg, struct msg_watch *body)
{
	msg->type = MSG_WATCH;
	msg->body = body;
	msg->body_bytes = sizeof(*body);
	link_post(container->link, msg);
}

void container_watch(struct container *container)
{
	struct msg_watch body = limits_of(container);
	struct msg msg = { 0 };
	const struct backend *backend = container->backend;
	const char *id = container->id;
	int oom_fd = open_file(backend, id, "memory", "memory.oom_control", "memory.events");
	int pids_fd = open_file(backend, id, "pids", "pids.events", "pids.events");

	pthread_mutex_lock(&container->table_lock);
	container->watch.n_oom_kills = read_count(oom_fd, "oom_kill");
	container->watch.n_pids_hits = read_count(pids_fd, "max");
	container->watch.has_been_oom = container->watch.n_oom_kills > 0;
	pthread_mutex_unlock(&container->table_lock);
	give(&msg, &body, WATCH_OOM_COUNT, oom_fd);
	give(&msg, &body, WATCH_OOM_EVENT, open_oom_event(container, oom_fd));
	give(&msg, &body, WATCH_MEMORY_PEAK,
		open_file(backend, id, "memory", "memory.max_usage_in_bytes", "memory.peak"));
	give(&msg, &body, WATCH_PIDS_EVENTS, pids_fd);
	give(&msg, &body, WATCH_PIDS_PEAK,
		open_file(backend, id, "pids", "pids.peak", "pids.peak"));
	post(container, &msg, &body);
	for (unsigned i = 0; i < msg.n_fds; i++)
		auto_fd(&msg.fds[i]);
}

void container_watch_limits(struct container *container)
{
	struct msg_watch body = limits_of(container);

	post(container, &(struct msg){ 0 }, &body);
}

void watch_open(const struct backend *backend, const char *group, uint64_t memory_limit_bytes,
	struct msg_watch *ret, struct msg *msg)
{
	*ret = (struct msg_watch){ .memory_limit_bytes = memory_limit_bytes,
		.explains = backend->config.explains_oom };
	give(msg, ret, WATCH_OOM_COUNT,
		open_file(backend, group, "memory", "memory.oom_control", "memory.events"));
	give(msg, ret, WATCH_MEMORY_PEAK,
		open_file(backend, group, "memory", "memory.max_usage_in_bytes", "memory.peak"));
	give(msg, ret, WATCH_PIDS_PEAK,
		open_file(backend, group, "pids", "pids.peak", "pids.peak"));
}

/* ---- events ---------------------------------------------------------------------------------- */

static void note_hit(struct container *container, const struct msg_hit *hit)
{
	struct container_watch *watch = &container->watch;

	if (hit->limit == HIT_MEMORY) {
		watch->has_been_oom = true;
		watch->n_oom_kills = hit->count;
	} else if (hit->limit == HIT_PIDS) {
		watch->n_pids_hits = hit->count;
	}
}

void container_on_hit(void *owner, const struct msg *msg)
{
	struct container *container = owner;
	struct msg_hit hit;

	msg_body(msg, &hit, sizeof(hit));
	pthread_mutex_lock(&container->table_lock);
	note_hit(container, &hit);
	pthread_mutex_unlock(&container->table_lock);
	LOG(LOG_WARN, "limit-hit", KV_STR("handle", container->handle),
		KV_STR("limit", hit.limit == HIT_MEMORY ? "memory" : "pids"),
		KV_INT("count", (int64_t)hit.count));
}

/* v1 tells nobody of a refused fork until somebody looks. */
static void look_at_pids(struct container *container)
{
	AUTO_FD int fd =
		open_file(container->backend, container->id, "pids", "pids.events", "pids.events");
	uint64_t count = read_count(fd, "max");

	pthread_mutex_lock(&container->table_lock);
	container->watch.n_pids_hits = count;
	pthread_mutex_unlock(&container->table_lock);
}

/* The words are the reference's for memory. */
int container_events(struct container *container, struct strv *ret_events)
{
	int r = 0;

	if (container->limits.n_pids)
		look_at_pids(container);
	pthread_mutex_lock(&container->table_lock);
	if (container->watch.has_been_oom)
		r = strv_add(ret_events, "Out of memory");
	if (r == 0 && container->watch.n_pids_hits)
		r = strv_add(ret_events, "Process limit reached");
	pthread_mutex_unlock(&container->table_lock);
	return r;
}

/* ---- ends ------------------------------------------------------------------------------------ */

void container_note_end(
	struct container *container, const char *process_id, const struct msg_end *end)
{
	struct container_watch *watch = &container->watch;

	if (watch->has_end && end->usage.ended_ms < watch->end.usage.ended_ms)
		return;
	watch->has_end = true;
	watch->end = *end;
	watch->end.usage.name[sizeof(watch->end.usage.name) - 1] = '\0';
	snprintf(watch->process_id, sizeof(watch->process_id), "%s", process_id);
}

void container_report_end(
	struct container *container, const char *process_id, const struct msg_end *end)
{
	static const enum count counts[] = { [EXIT_NORMAL] = COUNT_EXITED,
		[EXIT_SIGNAL] = COUNT_SIGNALED,
		[EXIT_CONTAINER_DEAD] = COUNT_ENDED_WITH_CONTAINER,
		[EXIT_OOM] = COUNT_OOM_KILLED };
	char reason[EXIT_TEXT_BYTES], usage[EXIT_TEXT_BYTES];

	if (end->exited.reason < N_ELEMENTS(counts))
		count_one(&container->backend->counts, counts[end->exited.reason]);
	container_note_end(container, process_id, end);
	if (end->usage.oom_kills)
		container->watch.has_been_oom = true;
	exit_reason_text(reason, end, &container->limits);
	exit_usage_text(usage, end, process_id);
	LOG(LOG_INFO, "process-ended", KV_STR("handle", container->handle),
		KV_STR("process", process_id), KV_STR("reason", reason), KV_STR("usage", usage));
}

bool container_made_property(struct container *container, const char *key, char **ret_text)
{
	char text[EXIT_TEXT_BYTES];
	bool has_end;

	pthread_mutex_lock(&container->table_lock);
	has_end = container->watch.has_end;
	if (!strcmp(key, EXIT_REASON_PROPERTY))
		exit_reason_text(text, &container->watch.end, &container->limits);
	else if (!strcmp(key, EXIT_USAGE_PROPERTY))
		exit_usage_text(text, &container->watch.end, container->watch.process_id);
	else
		has_end = false;
	pthread_mutex_unlock(&container->table_lock);
	*ret_text = has_end ? strdup(text) : NULL;
	return *ret_text != NULL;
}

#include "server/watching.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "backend.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/strv.h"
#include "linux/sys.h"
#include "server/health.h"
#include "server/request.h"
#include "volumes/volumes.h"

#define TEXT_BYTES (4u << 20)

/* ---- what is counted ------------------------------------------------------------------------- */

static int count_volume(const struct volume_view *view, void *arg)
{
	(void)view;
	++*(uint64_t *)arg;
	return 0;
}

static uint64_t count_volumes(struct request *request)
{
	uint64_t n = 0;
	struct err err;

	volumes_each(request_volumes(request), NULL, NULL, 0, count_volume, &n, &err);
	return n;
}

static int each_entry(const char *dir, void (*visit)(const char *name, void *arg), void *arg)
{
	DIR *entries = opendir(dir);
	const struct dirent *entry;

	if (!entries)
		return -1;
	while ((entry = readdir(entries)))
		if (entry->d_name[0] != '.')
			visit(entry->d_name, arg);
	closedir(entries);
	return 0;
}

static void count_entry(const char *name, void *arg)
{
	(void)name;
	++*(uint64_t *)arg;
}

static uint64_t count_entries(const char *dir)
{
	uint64_t n = 0;

	each_entry(dir, count_entry, &n);
	return n;
}

static uint64_t resident_bytes(void)
{
	char text[256];
	uint64_t pages = 0;

	if (sys_read_small(AT_FDCWD, "/proc/self/statm", 0, text, sizeof(text)) > 0) {
		const char *second = text + strcspn(text, " ");

		for (second += *second == ' '; *second >= '0' && *second <= '9'; second++)
			pages = 10 * pages + (uint64_t)(*second - '0');
	}
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- for Prometheus -------------------------------------------------------------------------- */

/* In the order of the output; rows of one name stand together, and the first has the help. */
static const struct {
	enum count count;
	const char *name, *labels, *help;
} counters[] = {
	{ COUNT_CREATED, "cloche_container_creates_total", "", "Containers that were made." },
	{ COUNT_CREATE_FAILED, "cloche_container_create_failures_total", "",
		"Creates that failed or were refused." },
	{ COUNT_DESTROYED, "cloche_container_destroys_total", "",
		"Containers that were destroyed." },
	{ COUNT_STARTED, "cloche_process_starts_total", "", "Processes that were started." },
	{ COUNT_START_FAILED, "cloche_process_start_failures_total", "",
		"Processes that could not be started." },
	{ COUNT_EXITED, "cloche_process_ends_total", "{reason=\"exit\"}",
		"Processes that have ended, by the reason." },
	{ COUNT_SIGNALED, "cloche_process_ends_total", "{reason=\"signal\"}", NULL },
	{ COUNT_OOM_KILLED, "cloche_process_ends_total", "{reason=\"oom\"}", NULL },
	{ COUNT_ENDED_WITH_CONTAINER, "cloche_process_ends_total", "{reason=\"container\"}", NULL },
};

static void add_type(struct buf *text, const char *name, const char *type, const char *help)
{
	buf_addf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_gauge(struct buf *text, const char *name, const char *help, uint64_t value)
{
	add_type(text, name, "gauge", help);
	buf_addf(text, "%s %" PRIu64 "\n", name, value);
}

static void add_disk(struct buf *text, const char *work_dir)
{
	struct statvfs fs;

	if (statvfs(work_dir, &fs) < 0)
		return;
	add_gauge(text, "cloche_disk_bytes_total", "Size of the work directory's file system.",
		(uint64_t)fs.f_blocks * fs.f_frsize);
	add_gauge(text, "cloche_disk_bytes_free", "What is free of it.",
		(uint64_t)fs.f_bavail * fs.f_frsize);
	add_gauge(text, "cloche_disk_inodes_free", "Files that can be made in it.", fs.f_favail);
}

void watching_metrics(struct request *request)
{
	const struct health_config *config = request_health(request);
	struct backend *backend = request_backend(request);
	AUTO_STRV struct strv handles = { 0 };
	AUTO_BUF struct buf text;
	uint64_t memory, disk, max;
	struct err err;

	buf_init(&text, TEXT_BYTES);
	container_list(backend, NULL, 0, &handles, &err);
	backend_capacity(backend, &memory, &disk, &max);
	add_gauge(&text, "cloche_containers", "Containers that there are.", handles.n_items);
	add_gauge(&text, "cloche_containers_max", "Containers that there can be.", max);
	add_gauge(&text, "cloche_volumes", "Volumes that there are.", count_volumes(request));
	for (size_t i = 0; i < N_ELEMENTS(counters); i++) {
		if (counters[i].help)
			add_type(&text, counters[i].name, "counter", counters[i].help);
		buf_addf(&text, "%s%s %" PRIu64 "\n", counters[i].name, counters[i].labels,
			backend_count(backend, counters[i].count));
	}
	add_disk(&text, config->work_dir);
	add_gauge(&text, "process_resident_memory_bytes", "Memory of the server itself.",
		resident_bytes());
	add_gauge(
		&text, "process_open_fds", "Its open descriptors.", count_entries("/proc/self/fd"));
	add_gauge(&text, "process_threads", "Its threads.", count_entries("/proc/self/task"));
	add_gauge(
		&text, "process_start_time_seconds", "When it started.", (uint64_t)config->start_s);
	reply_text(request, 200, buf_str(&text));
}

/* ---- as text --------------------------------------------------------------------------------- */

static void add_file(struct buf *text, const char *path)
{
	char content[4096];

	if (sys_read_small(AT_FDCWD, path, 0, content, sizeof(content)) > 0)
		buf_adds(text, content);
}

/* The last word of a link's target: "socket:", "pipe:", "anon_inode:...", a path. */
static void add_descriptor(const char *name, void *arg)
{
	char path[64], target[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%.20s", name);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	buf_addf(arg, "%5s %s\n", name, target);
}

static void add_thread(const char *name, void *arg)
{
	static const char *const files[] = { "comm", "wchan", "syscall" };
	char path[64], content[256];

	buf_addf(arg, "%8s", name);
	for (size_t i = 0; i < N_ELEMENTS(files); i++) {
		snprintf(path, sizeof(path), "/proc/self/task/%.20s/%s", name, files[i]);
		if (sys_read_small(AT_FDCWD, path, 0, content, sizeof(content)) < 0)
			continue;
		content[strcspn(content, "\n")] = '\0';
		buf_addf(arg, " %s", content);
	}
	buf_adds(arg, "\n");
}

static void add_container(struct buf *text, struct backend *backend, const char *handle)
{
	struct container_info info = { 0 };
	struct err err;
	struct container *container = container_get(backend, handle, &err);

	if (!container)
		return; /* gone since */
	if (container_info(container, &info, &err) == 0) {
		buf_addf(text, "%s %s", handle, info.state);
		for (size_t i = 0; i < info.process_ids.n_items; i++)
			buf_addf(text, " %s", info.process_ids.items[i]);
		buf_adds(text, "\n");
		container_info_done(&info);
	}
	container_put(container);
}

void watching_debug(struct request *request)
{
	AUTO_STRV struct strv handles = { 0 };
	AUTO_BUF struct buf text;
	struct err err;

	buf_init(&text, TEXT_BYTES);
	buf_adds(&text, "== process\n");
	add_file(&text, "/proc/self/status");
	buf_adds(&text, "\n== threads: id, name, where it waits, system call\n");
	each_entry("/proc/self/task", add_thread, &text);
	buf_adds(&text, "\n== descriptors\n");
	each_entry("/proc/self/fd", add_descriptor, &text);
	buf_adds(&text, "\n== containers: handle, state, processes\n");
	container_list(request_backend(request), NULL, 0, &handles, &err);
	for (size_t i = 0; i < handles.n_items; i++)
		add_container(&text, request_backend(request), handles.items[i]);
	reply_text(request, 200, buf_str(&text));
}

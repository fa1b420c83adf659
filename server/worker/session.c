#include "server/worker/session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "linux/sys.h"
#include "server/json.h"
#include "server/worker/config.h"
#include "server/worker/worker_json.h"

/* Of signs of life, which ssh gives each 15 s (gateway.c): more than one takes, and more than the end of a registration
 * does. */
#define ALIVE_INTERVAL_MS 15000
#define MAX_ALIVE_BYTES 256
#define MAX_FAREWELL_BYTES 4096

static void enter(struct session *session, enum session_state state)
{
	session->state = state;
	session->since_ms = clock_ms();
}

static int set_nonblocking(int fd)
{
	return fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

int session_start(struct session *ret_session, const struct gateway *gateway, unsigned id,
	const char *at, struct err *err)
{
	int r;

	*ret_session = (struct session){
		.id = id, .at = at, .connection = { 0, -1, -1 }, .registration = { 0, -1, -1 }
	};
	enter(ret_session, SESSION_CONNECTING);
	r = gateway_connect(gateway, id, at, &ret_session->connection, err);
	return r < 0 ? r : set_nonblocking(ret_session->connection.out_fd);
}

/* ---- what ssh says --------------------------------------------------------------------------- */

/* What it means to the operator. */
static const struct hint {
	const char *words, *meaning;
} hints[] = {
	{ "Host key verification failed",
		"the gateway's host key is none of those in the file of --tsa-public-key: put web's tsa_host_key.pub there" },
	{ "Permission denied (publickey",
		"the gateway does not know the worker's key: put the public half of --tsa-worker-private-key into web's --tsa-authorized-keys" },
	{ "Load key ",
		"OpenSSH cannot read the file of --tsa-worker-private-key as a private key without a passphrase" },
	{ "remote port forwarding failed", "the gateway refuses tunnels" },
};

static const char *meaning_of(const char *line)
{
	for (size_t i = 0; i < N_ELEMENTS(hints); i++)
		if (strstr(line, hints[i].words))
			return hints[i].meaning;
	return NULL;
}

static void note_log(struct session *session, const char *line)
{
	const char *meaning = meaning_of(line);

	if (!*line || line[strspn(line, "@")] == '\0')
		return;
	LOG(LOG_INFO, "worker.ssh", KV_STR("gateway", session->at), KV_STR("line", line));
	if (!meaning && session->is_explained)
		return;
	session->is_explained = meaning != NULL;
	snprintf(session->reason, sizeof(session->reason), "%.250s", meaning ? meaning : line);
}

/* What the cluster says of the registration. */
static enum session_news note_event(struct session *session, const char *line)
{
	AUTO_JSON json_t *json = json_loads(line, 0, NULL);
	const char *event = json_string_value(json_object_get(json, "event"));

	if (!event)
		return SESSION_NOTHING;
	LOG(LOG_DEBUG, "worker.event", KV_STR("gateway", session->at), KV_STR("event", event));
	if (strcmp(event, "registered") || session->state != SESSION_REGISTERING)
		return SESSION_NOTHING;
	LOG(LOG_INFO, "worker.registered", KV_STR("gateway", session->at),
		KV_INT("ms", clock_ms() - session->since_ms));
	enter(session, SESSION_REGISTERED);
	return SESSION_IS_REGISTERED;
}

/* The next line of what can be read now. Lines longer than the space are cut there. */
static bool next_line(struct lines *lines, int *fd, char line[1024])
{
	for (;;) {
		char *end = memchr(lines->text, '\n', lines->len);
		size_t len = end ? (size_t)(end - lines->text) : lines->len;
		ssize_t n;

		if (end || lines->len == sizeof(lines->text)) {
			size_t taken = len + (end != NULL);

			len = len < 1023 ? len : 1023;
			memcpy(line, lines->text, len);
			line[len] = '\0';
			line[strcspn(line, "\r")] = '\0';
			lines->len -= taken;
			memmove(lines->text, lines->text + taken, lines->len);
			return true;
		}
		n = *fd < 0 ? 0
			    : read(*fd, lines->text + lines->len, sizeof(lines->text) - lines->len);
		if (n == 0)
			auto_fd(fd);
		if (n <= 0)
			return false;
		lines->len += (size_t)n;
	}
}

static void read_log(struct session *session)
{
	char line[1024];

	while (next_line(&session->log, &session->connection.out_fd, line))
		note_log(session, line);
}

static enum session_news read_events(struct session *session)
{
	enum session_news news = SESSION_NOTHING;
	char line[1024];

	while (next_line(&session->events, &session->registration.out_fd, line))
		if (note_event(session, line) == SESSION_IS_REGISTERED)
			news = SESSION_IS_REGISTERED;
	return news;
}

/* ---- states ---------------------------------------------------------------------------------- */

enum session_news session_look(
	struct session *session, const struct gateway *gateway, const struct worker_config *config)
{
	AUTO_FREE char *json = NULL;
	struct err err = { 0 };
	int r;

	if (session->state != SESSION_CONNECTING || !gateway_is_ready(gateway, session->id))
		return SESSION_NOTHING;
	r = worker_json(config, &json, &err);
	if (r == 0)
		r = gateway_forward(gateway, session->id, json, &session->registration, &err);
	if (r == 0)
		r = set_nonblocking(session->registration.out_fd);
	if (r < 0) {
		snprintf(session->reason, sizeof(session->reason), "%.250s", err.msg);
		return SESSION_LOST;
	}
	enter(session, SESSION_REGISTERING);
	return SESSION_NOTHING;
}

/* Whether it has ended; its status. */
static bool has_ended(struct child *child, int *ret_status)
{
	if (child->pid <= 0 || waitpid(child->pid, ret_status, WNOHANG) != child->pid)
		return false;
	child->pid = 0;
	return true;
}

/* The registration has ended. ssh says 255 when it lost the connection. */
static enum session_news registration_ended(struct session *session, int status)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 255;

	child_end(&session->registration);
	if (session->state == SESSION_LEAVING)
		return SESSION_NOTHING;
	if (code == 0)
		return SESSION_LEFT;
	if (code != 255)
		snprintf(session->reason, sizeof(session->reason),
			"the gateway refuses the registration (%d): its log says why; is the worker's name another team's, or its key bound to another --team?",
			code);
	return SESSION_LOST;
}

enum session_news session_handle(struct session *session)
{
	enum session_news news = read_events(session);
	int status;

	read_log(session);
	if (news == SESSION_NOTHING && has_ended(&session->registration, &status))
		news = registration_ended(session, status);
	if (news != SESSION_NOTHING || !has_ended(&session->connection, &status))
		return news;
	read_log(session);
	return SESSION_LOST;
}

/* ---- what goes on in one that has left ------------------------------------------------------- */

/* Its sockets, but for the one to the gateway and the one where commands come. */
unsigned session_n_tunnelled(const struct session *session)
{
	char path[32], target[16];
	const struct dirent *entry;
	int n = -2;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", session->connection.pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		n += readlinkat(dirfd(dir), entry->d_name, target, 7) == 7 &&
			!memcmp(target, "socket:", 7);
	if (dir)
		closedir(dir);
	return n < 0 ? 0 : (unsigned)n;
}

/* What ssh has read so far, from either side. 0: not known. */
static uint64_t n_bytes_of(const struct session *session)
{
	static const char field[] = "rchar: ";
	char path[32], text[512];
	uint64_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/io", session->connection.pid);
	if (sys_read_small(AT_FDCWD, path, 0, text, sizeof(text)) <= 0 ||
		strncmp(text, field, sizeof(field) - 1))
		return 0;
	text[strcspn(text, "\n")] = '\0';
	return parse_u64(text + sizeof(field) - 1, INT64_MAX, &n) < 0 ? 0 : n;
}

void session_leave(struct session *session)
{
	child_end(&session->registration);
	enter(session, SESSION_LEAVING);
	session->n_bytes = n_bytes_of(session);
}

bool session_goes_on(struct session *session)
{
	uint64_t n_bytes = n_bytes_of(session);
	uint64_t n_signs = (uint64_t)(clock_ms() - session->since_ms) / ALIVE_INTERVAL_MS;
	uint64_t signs_of_life = n_signs * MAX_ALIVE_BYTES + MAX_FAREWELL_BYTES;
	bool goes_on = n_bytes > session->n_bytes + signs_of_life;

	session->n_bytes = n_bytes;
	if (goes_on)
		enter(session, SESSION_LEAVING);
	return goes_on;
}

void session_end(struct session *session, const struct gateway *gateway)
{
	child_end(&session->registration);
	child_end(&session->connection);
	gateway_forget(gateway, session->id);
}

void session_descriptors(const struct session *session, int fds[SESSION_N_FDS])
{
	fds[0] = session->connection.pid_fd;
	fds[1] = session->connection.out_fd;
	fds[2] = session->registration.pid_fd;
	fds[3] = session->registration.out_fd;
}

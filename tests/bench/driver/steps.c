#include "steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TEXT = 8192, MAX_ID = 128 };

static const char *const kind_names[N_STEP_KINDS] = { [STEP_CALL] = "call",
	[STEP_REFUSED] = "refused",
	[STEP_POLL] = "poll",
	[STEP_START] = "start",
	[STEP_RUN] = "run",
	[STEP_EXEC] = "exec",
	[STEP_ATTACH] = "attach" };
static const char *const api_names[N_APIS] = { [API_GARDEN] = "garden", [API_VOLUMES] = "volumes" };

double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static int find(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

const char *script_add(struct script *script, const char *line)
{
	struct step *step = &script->steps[script->n_steps];
	char *copy = strdup(line), *rest = copy, *fields[7];
	int api, kind;

	for (int i = 0; i < 7; i++)
		fields[i] = rest ? strsep(&rest, "\t") : NULL;
	if (!fields[6] || rest || script->n_steps == MAX_STEPS) {
		free(copy);
		return "a step has seven fields, and a script 96 steps at most";
	}
	api = find(api_names, N_APIS, fields[1]);
	kind = find(kind_names, N_STEP_KINDS, fields[2]);
	if (api < 0 || kind < 0) {
		free(copy);
		return "unknown api or kind";
	}
	*step = (struct step){ .label = copy, /* owns all of it */
		.api = (enum step_api)api,
		.kind = (enum step_kind)kind,
		.method = fields[3],
		.path = fields[4],
		.body = fields[5],
		.stdin_text = fields[6] };
	script->n_steps++;
	return NULL;
}

void script_done(struct script *script)
{
	for (int i = 0; i < script->n_steps; i++)
		free(script->steps[i].label);
	free(script->name);
}

void client_init(struct client *client, const struct sockaddr_in addresses[N_APIS], bool keeps)
{
	client->addresses = addresses;
	client->keeps = keeps;
	client->error[0] = 0;
	for (int i = 0; i < N_APIS; i++)
		client->kept[i].fd = -1;
	client->conn.fd = client->out.fd = client->err.fd = -1;
}

void client_done(struct client *client)
{
	for (int i = 0; i < N_APIS; i++)
		http_close(&client->kept[i]);
	http_close(&client->conn);
	http_close(&client->out);
	http_close(&client->err);
}

/* The text with each %h replaced; false if it does not fit. */
static bool fill_in(char *target, const char *text, const char *handle)
{
	size_t len = 0, n_handle = strlen(handle);

	for (; *text; text++) {
		bool is_handle = text[0] == '%' && text[1] == 'h';
		size_t n = is_handle ? n_handle : 1;

		if (len + n >= MAX_TEXT)
			return false;
		memcpy(target + len, is_handle ? handle : text, n);
		len += n;
		text += is_handle;
	}
	target[len] = 0;
	return true;
}

/* Where the id stands in {"process_id":"x","stream_id":"1"}. */
static bool find_text(const char *line, const char *key, char value[MAX_ID])
{
	char pattern[64];
	const char *begin, *stop;

	snprintf(pattern, sizeof(pattern), "\"%s\":\"", key);
	begin = strstr(line, pattern);
	stop = begin ? strchr(begin + strlen(pattern), '"') : NULL;
	if (!stop)
		return false;
	snprintf(value, MAX_ID, "%.*s", (int)(stop - begin - (long)strlen(pattern)),
		begin + strlen(pattern));
	return true;
}

static int wrong(struct client *client, const char *what, const char *text)
{
	snprintf(client->error, sizeof(client->error), "%s: %.300s", what, text);
	return -1;
}

/* The status of the answer, whose body is read away, or -1. */
static int ask(struct client *client, const struct step *step, const struct http_request *request)
{
	struct http *conn = client->keeps ? &client->kept[step->api] : &client->conn;
	struct http_request mine = *request;
	size_t length;
	int status;

	mine.closes = !client->keeps;
	if (conn->fd < 0 && http_open(conn, &client->addresses[step->api]) < 0)
		return wrong(client, step->label, conn->error);
	status = http_send(conn, &mine) < 0 ? -1 : http_read_head(conn, &length);
	if (status < 0 || http_skip(conn, length) < 0)
		return wrong(client, step->label, conn->error);
	if (!client->keeps)
		http_close(conn);
	return status;
}

static int call(struct client *client, const struct step *step, const struct http_request *request)
{
	char text[32];
	int status;

	while ((status = ask(client, step, request)) == 204 && step->kind == STEP_POLL)
		usleep(1000);
	if (status < 0)
		return -1;
	if ((status / 100 == 2) != (step->kind == STEP_REFUSED))
		return 0;
	snprintf(text, sizeof(text), "status %d", status);
	return wrong(client, step->label, text);
}

static int send_stdin(struct http *conn, const char *id, const char *text)
{
	char message[MAX_TEXT + 512];
	int n = 0;

	if (!*text)
		return 0;
	n = snprintf(message, sizeof(message),
		"{\"process_id\":\"%s\",\"source\":0,\"data\":%s}\n{\"process_id\":\"%s\",\"source\":0}\n",
		id, text, id);
	return http_send_bytes(conn, message, (size_t)n);
}

static int open_output(struct client *client, struct http *conn, const char *path)
{
	size_t length;
	const struct http_request request = { "GET", path, "", false };

	if (http_open(conn, client->addresses) < 0 || http_send(conn, &request) < 0)
		return -1;
	return http_read_head(conn, &length) == 200 ? 0 : -1;
}

static int open_outputs(
	struct client *client, const char *path, const char *process, const char *stream)
{
	char name[MAX_TEXT + 2 * MAX_ID + 32];
	struct http *conns[] = { &client->out, &client->err };
	const char *names[] = { "stdout", "stderr" };

	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s/%s/attaches/%s/%s", path, process, stream,
			names[i]);
		if (open_output(client, conns[i], name) < 0)
			return wrong(client, names[i], conns[i]->error);
	}
	return 0;
}

static int await_exit(struct client *client)
{
	const char *line;

	while ((line = http_read_line(&client->conn))) {
		if (strstr(line, "\"exit_status\":0"))
			return 0;
		if (strstr(line, "\"exit_status\":") || strstr(line, "\"error\":"))
			return wrong(client, "process", line);
	}
	return wrong(client, "exit status",
		client->conn.error[0] ? client->conn.error : "the connection has ended");
}

static int read_outputs(struct client *client)
{
	if (http_drain(&client->out) < 0 || http_drain(&client->err) < 0)
		return wrong(client, "output", client->out.error);
	http_close(&client->out);
	http_close(&client->err);
	return 0;
}

/* Sends the request whose connection becomes the process's own, and reads who that is. */
static int take_over(struct client *client, const struct step *step,
	const struct http_request *request, char process[MAX_ID], char stream[MAX_ID])
{
	struct http *conn = &client->conn;
	const char *line;
	size_t length;
	int status;

	if (http_open(conn, &client->addresses[step->api]) < 0)
		return wrong(client, step->label, conn->error);
	status = http_send(conn, request) < 0 ? -1 : http_read_head(conn, &length);
	line = status / 100 == 2 ? http_read_line(conn) : NULL;
	if (line && find_text(line, "process_id", process) && find_text(line, "stream_id", stream))
		return 0;
	snprintf(client->error, sizeof(client->error), "%s: status %d: %s", step->label, status,
		line ? line : conn->error);
	return -1;
}

static int hijack(
	struct client *client, const struct step *step, const struct http_request *request)
{
	char process[MAX_ID], stream[MAX_ID];
	int r = take_over(client, step, request, process, stream);

	if (r == 0 && send_stdin(&client->conn, process, step->stdin_text) < 0)
		r = wrong(client, "stdin", client->conn.error);
	if (r == 0 && step->kind == STEP_EXEC)
		r = open_outputs(client, request->path, process, stream);
	if (r == 0 && (step->kind == STEP_RUN || step->kind == STEP_EXEC))
		r = await_exit(client);
	if (r == 0 && step->kind == STEP_EXEC)
		r = read_outputs(client);
	http_close(&client->conn);
	return r;
}

int client_run(struct client *client, const struct script *script, const char *handle, double *ms)
{
	char path[MAX_TEXT], body[MAX_TEXT];

	for (int i = 0; i < script->n_steps; i++) {
		const struct step *step = &script->steps[i];
		const struct http_request request = { step->method, path, body, false };
		double begin;
		int r;

		if (!fill_in(path, step->path, handle) || !fill_in(body, step->body, handle))
			return wrong(client, step->label, "too long");
		begin = now_ms();
		r = step->kind <= STEP_POLL ? call(client, step, &request)
					    : hijack(client, step, &request);
		if (r < 0)
			return -1;
		ms[i] = now_ms() - begin;
	}
	return 0;
}

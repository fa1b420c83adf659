/* steps.h - a script: the requests that one client makes, in their order, each with the label its time is counted under.
 * A step is a line of seven fields, separated by tabs: label, api (garden or volumes), kind, method, path, body, stdin.
 * %h in a path or a body becomes the handle of this run. Kinds: */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>

#include "http.h"

enum step_kind {
	STEP_CALL, /* a plain request that must be answered with 2xx */
	STEP_REFUSED, /* one that must not */
	STEP_POLL, /* one that is made again, 1 ms later, as long as the answer is 204 */
	STEP_START, /* a process: until its ids are known; it goes on */
	STEP_RUN, /* until its exit status is known, 0; nobody reads output */
	STEP_EXEC, /* the same with both outputs read to their ends, as Go's client does */
	STEP_ATTACH, /* to a process: until its ids are known; then the connection is dropped */
	N_STEP_KINDS
};

enum step_api { API_GARDEN, API_VOLUMES, N_APIS };
enum { MAX_STEPS = 96 };

struct step {
	char *label, *method, *path, *body, *stdin_text;
	enum step_api api;
	enum step_kind kind;
};

struct script {
	char *name;
	struct step steps[MAX_STEPS];
	int n_steps;
};

/* Takes the line apart. NULL, or what is wrong with it. */
const char *script_add(struct script *script, const char *line);
void script_done(struct script *script);

struct client {
	const struct sockaddr_in *addresses; /* by API */
	bool keeps; /* one connection for all plain requests to an API */
	struct http kept[N_APIS];
	struct http conn, out, err; /* of a process */
	char error[512];
};

void client_init(struct client *client, const struct sockaddr_in addresses[N_APIS], bool keeps);
void client_done(struct client *client);
/* Runs every step; ms[i] is how long it took. 0, or -1 with a text in client->error. */
int client_run(struct client *client, const struct script *script, const char *handle, double *ms);
double now_ms(void);

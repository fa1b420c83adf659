/* driver.c - takes the times of requests to servers of the Garden and the volume API. Told what to do by lines on
 * standard input, answers each with one line of JSON on standard output:
 *
 *	script NAME, lines of steps (steps.h), a line "."      {}
 *	run NAME kept|fresh HANDLE CLIENTS N                    {"seconds": 1.5, "ms": {"create": [...], ...}}
 *
 * run has each of CLIENTS threads go through the script N times; steps of one label count together. What fails is
 * answered with {"error": "..."}, and the next line is awaited. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "null_server.h"
#include "steps.h"

enum { MAX_SCRIPTS = 64, MAX_CLIENTS = 1024, MAX_HANDLE = 128 };

struct job {
	const struct script *script;
	struct client client;
	const char *handle;
	int number, n;
	double *ms; /* n times the steps of the script */
	bool failed;
};

static struct script scripts[MAX_SCRIPTS];
static int n_scripts;
static struct sockaddr_in addresses[N_APIS];

static void answer_error(const char *text)
{
	printf("{\"error\": \"");
	for (; *text; text++)
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text >= ' ')
			putchar(*text);
	printf("\"}\n");
}

static char *read_line(char **line, size_t *size)
{
	ssize_t n = getline(line, size, stdin);

	if (n <= 0)
		return NULL;
	if ((*line)[n - 1] == '\n')
		(*line)[n - 1] = 0;
	return *line;
}

static struct script *find_script(const char *name)
{
	for (int i = 0; i < n_scripts; i++)
		if (strcmp(scripts[i].name, name) == 0)
			return &scripts[i];
	return NULL;
}

/* Reads all of it, also what is wrong. */
static void learn(const char *name)
{
	struct script *script = find_script(name);
	const char *wrong = NULL;
	char *line = NULL;
	size_t size = 0;

	if (script)
		script_done(script); /* a new one in its place */
	else if (n_scripts < MAX_SCRIPTS)
		script = &scripts[n_scripts++];
	else
		wrong = "too many scripts";
	if (!wrong)
		*script = (struct script){ .name = strdup(name) };
	while (read_line(&line, &size) && strcmp(line, ".") != 0)
		if (!wrong)
			wrong = script_add(script, line);
	free(line);
	if (wrong) {
		answer_error(wrong);
		return;
	}
	printf("{}\n");
}

static void *work(void *arg)
{
	struct job *job = arg;
	char handle[MAX_HANDLE + 32];

	for (int i = 0; i < job->n && !job->failed; i++) {
		snprintf(handle, sizeof(handle), "%s-%d-%d", job->handle, job->number, i);
		job->failed = client_run(&job->client, job->script, handle,
				      job->ms + (size_t)i * (size_t)job->script->n_steps) < 0;
	}
	client_done(&job->client);
	return NULL;
}

static bool is_first_of_label(const struct script *script, int step)
{
	for (int i = 0; i < step; i++)
		if (strcmp(script->steps[i].label, script->steps[step].label) == 0)
			return false;
	return true;
}

static double sum_of_label(const struct script *script, int step, const double *ms)
{
	double sum = 0;

	for (int i = step; i < script->n_steps; i++)
		if (strcmp(script->steps[i].label, script->steps[step].label) == 0)
			sum += ms[i];
	return sum;
}

static void answer_times(const struct job *jobs, int n_jobs, double seconds)
{
	const struct script *script = jobs->script;
	const char *between = "";

	printf("{\"seconds\": %.6f, \"ms\": {", seconds);
	for (int step = 0; step < script->n_steps; step++) {
		if (!is_first_of_label(script, step))
			continue;
		printf("%s\"%s\": [", between, script->steps[step].label);
		for (int i = 0; i < n_jobs * jobs->n; i++)
			printf("%s%.4f", i ? ", " : "",
				sum_of_label(script, step,
					jobs[i / jobs->n].ms + i % jobs->n * script->n_steps));
		printf("]");
		between = ", ";
	}
	printf("}}\n");
}

static void run_jobs(struct job *jobs, int n_jobs)
{
	pthread_t threads[MAX_CLIENTS];
	double begin = now_ms(), seconds;
	int n_threads = 0;

	if (n_jobs == 1)
		work(jobs); /* nothing but its own time */
	else
		while (n_threads < n_jobs &&
			pthread_create(&threads[n_threads], NULL, work, &jobs[n_threads]) == 0)
			n_threads++;
	for (int i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	seconds = (now_ms() - begin) / 1e3;
	if (n_jobs > 1 && n_threads < n_jobs) {
		answer_error("threads cannot be made");
		return;
	}
	for (int i = 0; i < n_jobs; i++)
		if (jobs[i].failed) {
			answer_error(jobs[i].client.error);
			return;
		}
	answer_times(jobs, n_jobs, seconds);
}

static void run(const char *words)
{
	char name[64], mode[16], handle[MAX_HANDLE];
	const struct script *script;
	struct job *jobs;
	int n_jobs, n;

	if (sscanf(words, "%63s %15s %127s %d %d", name, mode, handle, &n_jobs, &n) != 5 ||
		n_jobs < 1 || n_jobs > MAX_CLIENTS || n < 1) {
		answer_error("run NAME kept|fresh HANDLE CLIENTS N");
		return;
	}
	script = find_script(name);
	if (!script) {
		answer_error("no such script");
		return;
	}
	jobs = calloc((size_t)n_jobs, sizeof(*jobs));
	for (int i = 0; jobs && i < n_jobs; i++) {
		jobs[i].script = script;
		jobs[i].handle = handle;
		jobs[i].number = i;
		jobs[i].n = n;
		jobs[i].ms = calloc((size_t)n * (size_t)script->n_steps, sizeof(double));
		client_init(&jobs[i].client, addresses, strcmp(mode, "kept") == 0);
	}
	if (jobs)
		run_jobs(jobs, n_jobs);
	for (int i = 0; jobs && i < n_jobs; i++)
		free(jobs[i].ms);
	free(jobs);
}

static bool parse_address(const char *text, struct sockaddr_in *address)
{
	char host[64];
	unsigned short port;

	*address = (struct sockaddr_in){ .sin_family = AF_INET };
	if (sscanf(text, "%63[^:]:%hu", host, &port) != 2)
		return false;
	address->sin_port = htons(port);
	return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t size = 0;

	if ((argc == 2 || argc == 3) && strcmp(argv[1], "--null") == 0)
		return null_server(argc == 3 ? strtol(argv[2], NULL, 10) : 0);
	if (argc != 3 || !parse_address(argv[1], &addresses[API_GARDEN]) ||
		!parse_address(argv[2], &addresses[API_VOLUMES])) {
		fprintf(stderr,
			"usage: driver GARDEN VOLUMES     addresses, as 127.0.0.1:7777\n"
			"       driver --null [N]          a server that does nothing, and ends with the N-th connection\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	while (read_line(&line, &size)) {
		if (strncmp(line, "script ", 7) == 0)
			learn(line + 7);
		else if (strncmp(line, "run ", 4) == 0)
			run(line + 4);
		else
			answer_error("script or run is expected");
		fflush(stdout);
	}
	free(line);
	for (int i = 0; i < n_scripts; i++)
		script_done(&scripts[i]);
	return 0;
}

#include "server/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/strv.h"
#include "linux/spawn.h"
#include "server/worker/cluster.h"

#define FIRST_BACKOFF_MS 1000
#define MAX_BACKOFF_MS 30000
#define LONG_ENOUGH_MS 60000 /* that a failure is none of the start */
#define STOP_MS 20000

struct worker {
	struct worker_spec spec;
	struct strv argv; /* of the cluster process */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	int fd; /* to the process, while there is one; else -1 */
	pid_t pid; /* not waited for yet; else 0 */
	bool is_stopping, is_registered, wants_land, wants_retire;
};

/* ---- the process ----------------------------------------------------------------------------- */

static int make_argv(struct worker *worker)
{
	const struct worker_spec *spec = &worker->spec;
	int r = strv_add(&worker->argv, "cloche");

	if (r == 0)
		r = strv_add(&worker->argv, "cluster");
	if (r == 0)
		r = strv_add(&worker->argv, spec->garden_at);
	if (r == 0)
		r = strv_add(&worker->argv, spec->volumes_at);
	if (r == 0)
		r = strv_addf(&worker->argv, "%lld", (long long)time(NULL));
	for (int i = 0; i < spec->argc && r == 0; i++)
		r = strv_add(&worker->argv, spec->argv[i]);
	return r;
}

/* The lock is held. */
static void say(struct worker *worker, char word)
{
	if (worker->fd >= 0)
		send(worker->fd, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say_wishes(struct worker *worker)
{
	if (worker->wants_land)
		say(worker, CLUSTER_LAND);
	if (worker->wants_retire)
		say(worker, CLUSTER_RETIRE);
}

/* 0 or -errno; -ECANCELED: the server is to stop. */
static int start_process(struct worker *worker)
{
	AUTO_FD int ours = -1;
	AUTO_FD int theirs = -1;
	struct spawn spawn = { .exe_fd = worker->spec.self_exe_fd,
		.argv = (const char *const *)worker->argv.items,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = 2,
		.envp = worker->spec.envp };
	int ends[2], r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	ours = ends[0];
	theirs = ends[1];
	spawn.extra_fd = theirs;
	pthread_mutex_lock(&worker->lock);
	if (worker->is_stopping)
		r = -ECANCELED;
	else
		r = spawn_program(&spawn);
	if (r > 0) {
		worker->pid = r;
		worker->fd = TAKE_FD(ours);
		say_wishes(worker);
	}
	pthread_mutex_unlock(&worker->lock);
	return r < 0 ? r : 0;
}

/* What it says, until its end. */
static int await_process(struct worker *worker)
{
	pid_t pid = worker->pid;
	char word;
	int status = 0;
	ssize_t n;

	while ((n = recv(worker->fd, &word, 1, 0)) > 0 || (n < 0 && errno == EINTR)) {
		pthread_mutex_lock(&worker->lock);
		worker->is_registered = word == CLUSTER_REGISTERED;
		pthread_cond_broadcast(&worker->changed);
		pthread_mutex_unlock(&worker->lock);
	}
	while (waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT) < 0 && errno == EINTR)
		continue;
	pthread_mutex_lock(&worker->lock);
	waitpid(pid, &status, 0);
	worker->is_registered = false;
	worker->pid = 0;
	auto_fd(&worker->fd);
	pthread_cond_broadcast(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
	return status;
}

/* true: the server is to stop. */
static bool pause_for(struct worker *worker, int64_t ms)
{
	struct timespec deadline = clock_deadline(ms);
	bool is_stopping;
	int r = 0;

	pthread_mutex_lock(&worker->lock);
	while (!worker->is_stopping && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&worker->changed, &worker->lock, &deadline);
	is_stopping = worker->is_stopping;
	pthread_mutex_unlock(&worker->lock);
	return is_stopping;
}

static void *supervise(void *arg)
{
	struct worker *worker = arg;
	int64_t backoff_ms = FIRST_BACKOFF_MS;

	for (;;) {
		int64_t started_ms = clock_ms();
		int r = start_process(worker), status = r == 0 ? await_process(worker) : 0;

		if (r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == CLUSTER_LEFT) {
			worker->spec.left();
			return NULL;
		}
		if (clock_ms() - started_ms > LONG_ENOUGH_MS)
			backoff_ms = FIRST_BACKOFF_MS;
		if (r == -ECANCELED || pause_for(worker, 0))
			return NULL;
		LOG(LOG_ERROR, "worker.cluster-process-ended", KV_INT("status", status),
			KV_INT("errno", -r), KV_INT("again-in-ms", backoff_ms));
		if (pause_for(worker, backoff_ms))
			return NULL;
		backoff_ms = 2 * backoff_ms < MAX_BACKOFF_MS ? 2 * backoff_ms : MAX_BACKOFF_MS;
	}
}

/* ---- for the server -------------------------------------------------------------------------- */

static void free_worker(struct worker *worker)
{
	strv_done(&worker->argv);
	pthread_mutex_destroy(&worker->lock);
	pthread_cond_destroy(&worker->changed);
	free(worker);
}

int worker_start(const struct worker_spec *spec, struct worker **ret_worker, struct err *err)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	int r;

	if (!worker)
		return err_system(err, -ENOMEM, "worker");
	worker->spec = *spec;
	worker->fd = -1;
	pthread_mutex_init(&worker->lock, NULL);
	clock_cond_init(&worker->changed);
	r = make_argv(worker);
	if (r == 0)
		r = -pthread_create(&worker->thread, NULL, supervise, worker);
	if (r < 0) {
		free_worker(worker);
		return err_system(err, r, "worker");
	}
	*ret_worker = worker;
	return 0;
}

void worker_land(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	worker->wants_land = true;
	say(worker, CLUSTER_LAND);
	pthread_mutex_unlock(&worker->lock);
}

void worker_retire(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	worker->wants_retire = true;
	say(worker, CLUSTER_RETIRE);
	pthread_mutex_unlock(&worker->lock);
}

bool worker_is_registered(struct worker *worker)
{
	bool is_registered;

	pthread_mutex_lock(&worker->lock);
	is_registered = worker->is_registered;
	pthread_mutex_unlock(&worker->lock);
	return is_registered;
}

void worker_drain(struct worker *worker)
{
	if (!worker)
		return;
	pthread_mutex_lock(&worker->lock);
	worker->is_stopping = true;
	pthread_cond_broadcast(&worker->changed);
	say(worker, CLUSTER_DRAIN);
	pthread_mutex_unlock(&worker->lock);
}

void worker_stop(struct worker *worker)
{
	struct timespec deadline = clock_deadline(STOP_MS);
	int r = 0;

	if (!worker)
		return;
	worker_drain(worker);
	pthread_mutex_lock(&worker->lock);
	if (worker->fd >= 0)
		shutdown(worker->fd, SHUT_WR);
	while (worker->pid > 0 && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&worker->changed, &worker->lock, &deadline);
	if (worker->pid > 0) {
		LOG(LOG_WARN, "worker.cluster-process-killed", KV_INT("pid", worker->pid));
		kill(worker->pid, SIGKILL);
	}
	pthread_mutex_unlock(&worker->lock);
	pthread_join(worker->thread, NULL);
	free_worker(worker);
}

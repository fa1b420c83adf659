#include "server/worker/cluster.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/strv.h"
#include "server/worker/config.h"
#include "server/worker/gateway.h"
#include "server/worker/session.h"
#include "server/worker/sweep.h"

#define CONTROL_FD 3
#define MAX_SESSIONS 6
#define CONNECT_MS 60000 /* ssh gives up an address that is silent after 10 s */
#define TELL_MS 10000 /* nothing else is heard meanwhile; the server waits longer for our end */
#define DELETE_MS 10000
#define TELL_AGAIN_MS 5000
#define FIRST_BACKOFF_MS 1000
#define MAX_BACKOFF_MS 30000
#define LOOK_MS 1000 /* at connections that are to end */
#define FLUSH_MS 3000
#define REGISTER_MS 120000 /* a gateway tries for ever, and says nothing of what web answers */

struct cluster {
	const struct worker_config *config;
	struct gateway gateway;
	int watch_fd; /* on the directory where sockets appear */
	struct session sessions[MAX_SESSIONS];
	size_t n_sessions;
	unsigned next_id;
	struct strv round; /* gateways, in the order in which they are tried */
	size_t next_host;
	int64_t connect_at_ms, backoff_ms, rebalance_at_ms, tell_at_ms;
	bool wants_land, wants_retire, is_draining, has_left;
	pthread_mutex_t lock; /* of what sweepers read */
	bool is_registered;
	unsigned current_id;
};

/* For the sweepers. */
static bool current_connection(void *arg, unsigned *ret_id)
{
	struct cluster *cluster = arg;
	bool is_registered;

	pthread_mutex_lock(&cluster->lock);
	is_registered = cluster->is_registered;
	*ret_id = cluster->current_id;
	pthread_mutex_unlock(&cluster->lock);
	return is_registered;
}

/* ---- which gateway, and when ----------------------------------------------------------------- */

static uint32_t random_below(uint32_t n)
{
	uint32_t number = 0;

	return getrandom(&number, sizeof(number), 0) == sizeof(number) ? number % n : 0;
}

/* All of them, in a new random order. */
static void shuffle(struct cluster *cluster)
{
	char **hosts = cluster->round.items;

	for (size_t i = cluster->round.n_items; i > 1; i--) {
		size_t other = random_below((uint32_t)i);
		char *host = hosts[i - 1];

		hosts[i - 1] = hosts[other];
		hosts[other] = host;
	}
	cluster->next_host = 0;
}

/* The next gateway at once; after the last one a pause, that grows, so that a cluster that comes back is not
 * overrun by its workers. */
static void postpone(struct cluster *cluster)
{
	int64_t wait_ms;

	if (cluster->next_host < cluster->round.n_items) {
		cluster->connect_at_ms = clock_ms();
		return;
	}
	shuffle(cluster);
	wait_ms =
		cluster->backoff_ms * 3 / 4 + random_below((uint32_t)(cluster->backoff_ms / 2 + 1));
	cluster->connect_at_ms = clock_ms() + wait_ms;
	cluster->backoff_ms *= 2;
	if (cluster->backoff_ms > MAX_BACKOFF_MS)
		cluster->backoff_ms = MAX_BACKOFF_MS;
}

/* ---- sessions -------------------------------------------------------------------------------- */

static struct session *find(
	struct cluster *cluster, enum session_state first, enum session_state last)
{
	for (size_t i = 0; i < cluster->n_sessions; i++)
		if (cluster->sessions[i].state >= first && cluster->sessions[i].state <= last)
			return &cluster->sessions[i];
	return NULL;
}

/* What the sweepers and the server are to know. */
static void publish(struct cluster *cluster)
{
	const struct session *session = find(cluster, SESSION_REGISTERED, SESSION_REGISTERED);
	char word = session ? CLUSTER_REGISTERED : CLUSTER_UNREGISTERED;

	pthread_mutex_lock(&cluster->lock);
	cluster->is_registered = session != NULL;
	cluster->current_id = session ? session->id : 0;
	pthread_mutex_unlock(&cluster->lock);
	send(CONTROL_FD, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void drop(struct cluster *cluster, struct session *session)
{
	size_t i = (size_t)(session - cluster->sessions);

	session_end(session, &cluster->gateway);
	memmove(session, session + 1, (cluster->n_sessions - i - 1) * sizeof(*session));
	cluster->n_sessions--;
	publish(cluster);
}

static void lost(struct cluster *cluster, struct session *session)
{
	bool was_registered = session->state == SESSION_REGISTERED;

	if (session->state != SESSION_LEAVING)
		LOG(was_registered ? LOG_WARN : LOG_ERROR,
			was_registered ? "worker.connection-lost" : "worker.not-registered",
			KV_STR("gateway", session->at),
			KV_STR("error",
				*session->reason ? session->reason : "the connection has ended"));
	if (was_registered && clock_ms() - session->since_ms > MAX_BACKOFF_MS) {
		cluster->backoff_ms = FIRST_BACKOFF_MS;
		shuffle(cluster);
	} else if (was_registered) {
		cluster->next_host = cluster->round.n_items; /* not at once, again and again */
	}
	if (session->state != SESSION_LEAVING)
		postpone(cluster);
	drop(cluster, session);
}

static void registered(struct cluster *cluster, const struct session *session)
{
	unsigned id = session->id;

	cluster->rebalance_at_ms = clock_ms() + cluster->config->rebalance_ms;
	cluster->tell_at_ms = 0;
	shuffle(cluster);
	for (size_t i = 0; i < cluster->n_sessions; i++)
		if (cluster->sessions[i].state == SESSION_REGISTERED &&
			cluster->sessions[i].id != id)
			session_leave(&cluster->sessions[i]);
	publish(cluster);
}

static void hear(struct cluster *cluster, struct session *session, enum session_news news)
{
	switch (news) {
	case SESSION_NOTHING:
		break;
	case SESSION_IS_REGISTERED:
		registered(cluster, session);
		break;
	case SESSION_LEFT:
		LOG(LOG_INFO, "worker.left-cluster", KV_STR("gateway", session->at));
		cluster->has_left = true;
		break;
	case SESSION_LOST:
		lost(cluster, session);
		break;
	}
}

static void connect_next(struct cluster *cluster)
{
	struct session *session = &cluster->sessions[cluster->n_sessions];
	const char *host = cluster->round.items[cluster->next_host++];
	struct err err = { 0 };

	cluster->n_sessions++;
	if (session_start(session, &cluster->gateway, cluster->next_id++, host, &err) < 0) {
		snprintf(session->reason, sizeof(session->reason), "%.250s", err.msg);
		lost(cluster, session);
		return;
	}
	LOG(LOG_DEBUG, "worker.connecting", KV_STR("gateway", host));
}

/* ---- what is due ----------------------------------------------------------------------------- */

static bool is_rebalance_due(const struct cluster *cluster, int64_t now)
{
	return cluster->config->rebalance_ms > 0 && now >= cluster->rebalance_at_ms &&
		!cluster->wants_land && !cluster->wants_retire &&
		cluster->n_sessions < MAX_SESSIONS - 1;
}

static void connect_if_due(struct cluster *cluster, int64_t now)
{
	if (cluster->is_draining || now < cluster->connect_at_ms ||
		cluster->n_sessions == MAX_SESSIONS ||
		find(cluster, SESSION_CONNECTING, SESSION_REGISTERING))
		return;
	if (!find(cluster, SESSION_REGISTERED, SESSION_REGISTERED) ||
		is_rebalance_due(cluster, now))
		connect_next(cluster);
}

/* Each registration makes the cluster believe that we stay: it is told again after each. */
static struct session *find_to_tell(struct cluster *cluster)
{
	struct session *session = find(cluster, SESSION_REGISTERED, SESSION_REGISTERED);

	return session && !session->is_told && !cluster->is_draining &&
			(cluster->wants_land || cluster->wants_retire)
		? session
		: NULL;
}

static void tell_if_due(struct cluster *cluster, int64_t now)
{
	struct session *session = find_to_tell(cluster);
	const char *word = cluster->wants_retire ? "retire-worker" : "land-worker";
	struct err err = { 0 };

	if (!session || now < cluster->tell_at_ms)
		return;
	session->is_told = gateway_tell(&cluster->gateway, session->id, word, TELL_MS, &err) == 0;
	if (session->is_told)
		LOG(LOG_INFO, "worker.told", KV_STR("command", word));
	else
		LOG(LOG_ERROR, "worker.not-told", KV_STR("error", err.msg));
	cluster->tell_at_ms = clock_ms() + TELL_AGAIN_MS;
}

static void end_overdue(struct cluster *cluster, int64_t now)
{
	for (size_t i = cluster->n_sessions; i-- > 0;) {
		struct session *session = &cluster->sessions[i];
		int64_t age_ms = now - session->since_ms;

		if (session->state == SESSION_CONNECTING && age_ms > CONNECT_MS) {
			snprintf(session->reason, sizeof(session->reason),
				"no connection after %d s", CONNECT_MS / 1000);
			lost(cluster, session);
		} else if (session->state == SESSION_REGISTERING && age_ms > REGISTER_MS) {
			snprintf(session->reason, sizeof(session->reason),
				"connected, but not registered after %d s: web's log says why; is the worker's name another team's?",
				REGISTER_MS / 1000);
			lost(cluster, session);
		} else if (session->state == SESSION_LEAVING &&
			(!session_n_tunnelled(session) ||
				(age_ms >= cluster->config->drain_ms &&
					!session_goes_on(session)))) {
			LOG(LOG_INFO, "worker.connection-ended", KV_STR("gateway", session->at),
				KV_INT("ms", age_ms));
			drop(cluster, session);
		}
	}
}

static int64_t sooner(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* When to look again. */
static int wait_ms(struct cluster *cluster, int64_t now)
{
	int64_t at = now + 3600000;

	if (find(cluster, SESSION_REGISTERING, SESSION_REGISTERING))
		at = sooner(at, now + REGISTER_MS);
	if (find(cluster, SESSION_LEAVING, SESSION_LEAVING))
		at = sooner(at, now + LOOK_MS);
	if (find(cluster, SESSION_CONNECTING, SESSION_CONNECTING))
		at = sooner(at, now + CONNECT_MS);
	if (find_to_tell(cluster))
		at = sooner(at, cluster->tell_at_ms);
	if (!cluster->is_draining && !find(cluster, SESSION_CONNECTING, SESSION_REGISTERED))
		at = sooner(at, cluster->connect_at_ms);
	else if (!cluster->is_draining && is_rebalance_due(cluster, INT64_MAX) &&
		!find(cluster, SESSION_CONNECTING, SESSION_REGISTERING))
		at = sooner(at,
			cluster->rebalance_at_ms > cluster->connect_at_ms ? cluster->rebalance_at_ms
									  : cluster->connect_at_ms);
	return at <= now ? 1 : (int)(at - now);
}

static void do_due(struct cluster *cluster)
{
	int64_t now = clock_ms();

	end_overdue(cluster, now);
	tell_if_due(cluster, now);
	connect_if_due(cluster, now);
}

/* ---- what comes ------------------------------------------------------------------------------ */

/* No new work; who is retiring is gone for good. */
static void drain(struct cluster *cluster)
{
	const struct session *session = find(cluster, SESSION_REGISTERED, SESSION_REGISTERED);
	struct err err = { 0 };

	if (cluster->is_draining)
		return;
	cluster->is_draining = true;
	if (session && cluster->wants_retire &&
		gateway_tell(&cluster->gateway, session->id, "delete-worker", DELETE_MS, &err) < 0)
		LOG(LOG_ERROR, "worker.not-deleted", KV_STR("error", err.msg));
	for (size_t i = cluster->n_sessions; i-- > 0;)
		if (cluster->sessions[i].state == SESSION_CONNECTING)
			drop(cluster, &cluster->sessions[i]);
		else
			session_leave(&cluster->sessions[i]);
	publish(cluster);
}

/* false at the end. */
static bool listen_to_server(struct cluster *cluster)
{
	char word;
	ssize_t n = recv(CONTROL_FD, &word, 1, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	cluster->wants_land |= word == CLUSTER_LAND;
	if (word == CLUSTER_RETIRE && !cluster->wants_retire) {
		cluster->wants_retire = true;
		for (size_t i = 0; i < cluster->n_sessions; i++)
			cluster->sessions[i].is_told = false; /* to land, perhaps, which is less */
	}
	if (word == CLUSTER_DRAIN)
		drain(cluster);
	return true;
}

static void look(struct cluster *cluster)
{
	char events[4096];

	while (read(cluster->watch_fd, events, sizeof(events)) > 0)
		continue;
	for (size_t i = cluster->n_sessions; i-- > 0;)
		hear(cluster, &cluster->sessions[i],
			session_look(&cluster->sessions[i], &cluster->gateway, cluster->config));
}

/* Until the server ends, or the cluster is left. */
static void serve(struct cluster *cluster)
{
	while (!cluster->has_left) {
		struct pollfd fds[2 + MAX_SESSIONS * SESSION_N_FDS] = { { .fd = CONTROL_FD,
										.events = POLLIN },
			{ .fd = cluster->watch_fd, .events = POLLIN } };
		nfds_t n = 2;

		do_due(cluster);
		for (size_t i = 0; i < cluster->n_sessions; i++) {
			int session_fds[SESSION_N_FDS];

			session_descriptors(&cluster->sessions[i], session_fds);
			for (unsigned j = 0; j < SESSION_N_FDS; j++)
				fds[n++] =
					(struct pollfd){ .fd = session_fds[j], .events = POLLIN };
		}
		if (poll(fds, n, wait_ms(cluster, clock_ms())) < 0 && errno != EINTR)
			return;
		if (fds[0].revents && !listen_to_server(cluster))
			return;
		if (fds[1].revents)
			look(cluster);
		for (size_t i = cluster->n_sessions; i-- > 0;)
			hear(cluster, &cluster->sessions[i], session_handle(&cluster->sessions[i]));
	}
}

/* ---- start and end --------------------------------------------------------------------------- */

/* What the server has written at last is still on its way through the tunnels. */
static void flush(struct cluster *cluster)
{
	int64_t deadline_ms = clock_ms() + FLUSH_MS;

	for (size_t i = 0; i < cluster->n_sessions; i++)
		while (clock_ms() < deadline_ms && session_n_tunnelled(&cluster->sessions[i]))
			poll(NULL, 0, 20);
}

static int prepare(struct cluster *cluster, struct err *err)
{
	char path[64];
	int r = gateway_open(&cluster->gateway, cluster->config, CONTROL_FD, err);

	if (r == 0)
		r = strv_copy(&cluster->round, cluster->config->tsa_hosts);
	if (r < 0)
		return *err->msg ? r : err_system(err, r, "worker");
	shuffle(cluster);
	cluster->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", cluster->gateway.dir_fd);
	if (cluster->watch_fd < 0 ||
		inotify_add_watch(cluster->watch_fd, path, IN_CREATE | IN_MOVED_TO) < 0)
		return err_system(err, -errno, "inotify");
	return 0;
}

int cluster_main(const struct worker_config *config)
{
	static struct cluster cluster = { .watch_fd = -1,
		.next_id = 1,
		.backoff_ms = FIRST_BACKOFF_MS,
		.lock = PTHREAD_MUTEX_INITIALIZER };
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct err err = { 0 };
	int r;

	sigaction(SIGPIPE, &ignore, NULL);
	cluster.config = config;
	r = prepare(&cluster, &err);
	if (r == 0)
		r = sweepers_start(&cluster.gateway, current_connection, &cluster, &err);
	if (r < 0) {
		LOG(LOG_ERROR, "worker.cluster-failed", KV_STR("error", err.msg));
		gateway_done(&cluster.gateway);
		return 1;
	}
	serve(&cluster);
	for (size_t i = 0; i < cluster.n_sessions; i++)
		session_leave(&cluster.sessions[i]); /* else it counts as something that goes on */
	flush(&cluster);
	while (cluster.n_sessions)
		drop(&cluster, &cluster.sessions[0]);
	gateway_forget_keys(&cluster.gateway);
	_exit(cluster.has_left ? CLUSTER_LEFT : CLUSTER_STOPPED); /* sweepers may be at work */
}

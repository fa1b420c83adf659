#include "server/connections.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"

#define MAX_CONNECTIONS 16384
#define FDS_PER_CONNECTION 4 /* its socket, and what a stream needs beside it */
#define FDS_FOR_OTHERS 512
#define STOP_WAIT_MS 30000
#define ARRIVAL_TRIES 50
#define ARRIVAL_PAUSE_US 10000
#define BACKLOG 1024

TAILQ_HEAD(connection_list, connection);

struct connection {
	TAILQ_ENTRY(connection) entry;
	struct connections *owner;
	enum phase phase;
	int64_t deadline_ms; /* 0: none */
	int fd;
	bool is_cut;
};

/* In each phase the same time is allowed, so each list is in the order of its deadlines. */
struct connections {
	struct connections_config config;
	pthread_mutex_t lock; /* guards the lists and counts */
	pthread_cond_t left;
	struct connection_list in_phase[N_PHASES];
	unsigned n_connections, n_max;
	int64_t next_ms; /* when the accepting thread looks again by itself; INT64_MAX: never */
	int64_t awaited_ms; /* it looks then in any case, for the sake of whoever was accepted last */
	int tcp_fd, unix_fd, spare_fd, wake_fd, stop_fd;
	bool is_stopping;
	pthread_t thread;
	bool is_serving; /* there is a thread */
};

static void wake(int fd)
{
	uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

/* ---- one connection -------------------------------------------------------------------------- */

static bool has_handler(const struct connections *all)
{
	return !TAILQ_EMPTY(&all->in_phase[PHASE_BUSY]) ||
		!TAILQ_EMPTY(&all->in_phase[PHASE_STREAM]);
}

/* Lock held. True if the accepting thread must think again about when to wake up: for a deadline
 * that is gone it wakes once for nothing, which is cheaper than being told each time. */
static bool put_in_phase(struct connection *connection, enum phase phase)
{
	struct connections *all = connection->owner;
	int timeout_ms = connection->is_cut ? 0 : all->config.timeout_ms[phase];

	connection->phase = phase;
	connection->deadline_ms = timeout_ms ? clock_ms() + timeout_ms : 0;
	TAILQ_INSERT_TAIL(&all->in_phase[phase], connection, entry);
	if (!timeout_ms || connection->deadline_ms >= all->next_ms)
		return false;
	all->next_ms = connection->deadline_ms;
	return true;
}

struct connection *connection_enter(struct connections *all, int fd)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	bool is_next;

	if (!connection)
		return NULL;
	connection->owner = all;
	connection->fd = fd;
	pthread_mutex_lock(&all->lock);
	all->n_connections++;
	is_next = put_in_phase(connection, PHASE_HEADER);
	pthread_mutex_unlock(&all->lock);
	if (is_next)
		wake(all->wake_fd);
	return connection;
}

void connection_set_phase(struct connection *connection, enum phase phase)
{
	struct connections *all = connection->owner;
	bool is_next;

	pthread_mutex_lock(&all->lock);
	TAILQ_REMOVE(&all->in_phase[connection->phase], connection, entry);
	is_next = put_in_phase(connection, phase);
	if (!has_handler(all))
		pthread_cond_broadcast(&all->left);
	pthread_mutex_unlock(&all->lock);
	if (is_next)
		wake(all->wake_fd);
}

void connection_leave(struct connection *connection)
{
	struct connections *all = connection->owner;

	pthread_mutex_lock(&all->lock);
	TAILQ_REMOVE(&all->in_phase[connection->phase], connection, entry);
	all->n_connections--;
	if (!has_handler(all))
		pthread_cond_broadcast(&all->left);
	pthread_mutex_unlock(&all->lock);
	free(connection);
}

/* ---- deadlines ------------------------------------------------------------------------------- */

/* Ends what is overdue; returns when to look again, -1: no need. The connection's thread sees an
 * end of file and closes. */
static int cut_overdue(struct connections *all)
{
	int64_t now = clock_ms(), next_ms;

	pthread_mutex_lock(&all->lock);
	next_ms = all->awaited_ms > now ? all->awaited_ms : INT64_MAX;
	for (int phase = 0; phase < N_PHASES; phase++) {
		struct connection *connection;

		TAILQ_FOREACH (connection, &all->in_phase[phase], entry) {
			if (!connection->deadline_ms)
				break;
			if (connection->is_cut)
				continue;
			if (connection->deadline_ms > now) {
				if (connection->deadline_ms < next_ms)
					next_ms = connection->deadline_ms;
				break;
			}
			connection->is_cut = true;
			shutdown(connection->fd, SHUT_RDWR);
		}
	}
	all->next_ms = next_ms;
	pthread_mutex_unlock(&all->lock);
	return next_ms == INT64_MAX ? -1 : (int)(next_ms - now);
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void refuse(int take_fd)
{
	static const char body[] =
		"{\"Type\":\"ServiceUnavailableError\",\"Message\":\"too many connections\","
		"\"Handle\":\"\",\"ProcessID\":\"\",\"Binary\":\"\"}\n";
	AUTO_FD int fd = take_fd;
	char nowhere[4096], text[512];
	int n = snprintf(text, sizeof(text),
		"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
		"Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
		strlen(body), body);

	(void)!send(fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	while (recv(fd, nowhere, sizeof(nowhere), MSG_DONTWAIT) > 0)
		continue;
}

/* One that is lost to somebody faster is had again when there is one. */
static void keep_spare(struct connections *all)
{
	if (all->spare_fd < 0)
		all->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* No descriptor is left: give up the spare one to take the client out of the queue, else poll would
 * say "ready" forever. */
static void accept_without_room(struct connections *all, int listen_fd)
{
	int fd;

	auto_fd(&all->spare_fd);
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		refuse(fd);
	keep_spare(all);
	if (all->spare_fd < 0)
		usleep(ARRIVAL_PAUSE_US); /* somebody else was faster: not in a tight loop */
	LOG(LOG_WARN, "out-of-descriptors");
}

/* This thread will look when the time for a header is over, so the connection, once it is entered,
 * need not wake it for that. Lock held. */
static void await_header(struct connections *all)
{
	int timeout_ms = all->config.timeout_ms[PHASE_HEADER];

	if (!timeout_ms)
		return;
	all->awaited_ms = clock_ms() + timeout_ms;
	if (all->awaited_ms < all->next_ms)
		all->next_ms = all->awaited_ms;
}

static void accept_one(struct connections *all, int listen_fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	bool is_full;
	int fd;

	keep_spare(all);
	fd = accept4(listen_fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			accept_without_room(all, listen_fd);
		return;
	}
	pthread_mutex_lock(&all->lock);
	is_full = all->n_connections >= all->n_max;
	if (!is_full)
		await_header(all);
	pthread_mutex_unlock(&all->lock);
	if (is_full) {
		refuse(fd);
		return;
	}
	all->config.on_accept(all->config.arg, fd, (struct sockaddr *)&address, len);
}

static void *accept_all(void *arg)
{
	struct connections *all = arg;
	struct pollfd fds[] = { { .fd = all->tcp_fd, .events = POLLIN },
		{ .fd = all->unix_fd, .events = POLLIN }, { .fd = all->wake_fd, .events = POLLIN },
		{ .fd = all->stop_fd, .events = POLLIN } };
	uint64_t count;

	while (!fds[3].revents) {
		if (poll(fds, N_ELEMENTS(fds), cut_overdue(all)) < 0)
			continue;
		if (fds[2].revents)
			(void)!read(all->wake_fd, &count, sizeof(count));
		for (int i = 0; i < 2; i++)
			if (fds[i].revents)
				accept_one(all, fds[i].fd);
	}
	return NULL;
}

/* ---- listening ------------------------------------------------------------------------------- */

/* Of all connections too: they get what the listening socket has. */
static void set_options(int fd)
{
	int on = 1, idle_s = 30, interval_s = 10, tries = 3, user_timeout_ms = 60000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

static int listen_tcp(const struct connections_config *config, char *address, struct err *err)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} at = { 0 };
	socklen_t len = sizeof(at.v4);
	AUTO_FD int fd = -1;
	char text[INET6_ADDRSTRLEN];
	int on = 1;

	if (inet_pton(AF_INET, config->bind_ip, &at.v4.sin_addr) == 1) {
		at.v4.sin_family = AF_INET;
		at.v4.sin_port = htons(config->port);
	} else if (inet_pton(AF_INET6, config->bind_ip, &at.v6.sin6_addr) == 1) {
		at.v6.sin6_family = AF_INET6;
		at.v6.sin6_port = htons(config->port);
		len = sizeof(at.v6);
	} else {
		return err_set(
			err, ERR_INVALID, EINVAL, "bind-ip %s: not an IP address", config->bind_ip);
	}
	fd = socket(at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		bind(fd, &at.any, len) < 0 || listen(fd, BACKLOG) < 0 ||
		getsockname(fd, &at.any, &len) < 0)
		return err_system(err, -errno, "listen on %s:%u", config->bind_ip, config->port);
	set_options(fd);
	if (at.any.sa_family == AF_INET)
		snprintf(address, 64, "%s:%u",
			inet_ntop(AF_INET, &at.v4.sin_addr, text, sizeof(text)),
			ntohs(at.v4.sin_port));
	else
		snprintf(address, 64, "[%s]:%u",
			inet_ntop(AF_INET6, &at.v6.sin6_addr, text, sizeof(text)),
			ntohs(at.v6.sin6_port));
	return TAKE_FD(fd);
}

/* A socket that is there already is a leftover: whoever served it held the work directory's lock,
 * as we do. */
static int listen_unix(const struct connections_config *config, struct err *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	AUTO_FD int fd = -1;
	struct stat st;

	if (strlen(config->socket_path) >= sizeof(at.sun_path))
		return err_set(err, ERR_INVALID, ENAMETOOLONG,
			"bind-socket %s: longer than %zu bytes", config->socket_path,
			sizeof(at.sun_path) - 1);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", config->socket_path);
	if (lstat(at.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(at.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
		chmod(at.sun_path, config->socket_mode) < 0 || listen(fd, BACKLOG) < 0)
		return err_system(err, -errno, "listen on %s", config->socket_path);
	return TAKE_FD(fd);
}

static void warn_if_open(const char *bind_ip)
{
	if (strncmp(bind_ip, "127.", 4) && strcmp(bind_ip, "::1"))
		LOG(LOG_WARN, "plain-http-beyond-loopback", KV_STR("bind-ip", bind_ip),
			KV_STR("meaning", "whoever can connect is root on this host"));
}

/* ---- life ------------------------------------------------------------------------------------ */

static unsigned room_for_connections(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 256;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur <= FDS_FOR_OTHERS + FDS_PER_CONNECTION)
		return limit.rlim_cur / 2;
	if ((limit.rlim_cur - FDS_FOR_OTHERS) / FDS_PER_CONNECTION < MAX_CONNECTIONS)
		return (limit.rlim_cur - FDS_FOR_OTHERS) / FDS_PER_CONNECTION;
	return MAX_CONNECTIONS;
}

static void init_sync(struct connections *all)
{
	pthread_mutex_init(&all->lock, NULL);
	clock_cond_init(&all->left);
}

int connections_open(const struct connections_config *config, struct connections **ret,
	char *address, struct err *err)
{
	struct connections *all = calloc(1, sizeof(*all));

	if (!all)
		return err_system(err, -ENOMEM, "connections");
	all->config = *config;
	init_sync(all);
	all->next_ms = INT64_MAX;
	for (int i = 0; i < N_PHASES; i++)
		TAILQ_INIT(&all->in_phase[i]);
	all->n_max = room_for_connections();
	if (config->n_max && config->n_max < all->n_max)
		all->n_max = config->n_max;
	all->unix_fd = -1;
	all->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	all->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	all->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (all->wake_fd < 0 || all->stop_fd < 0)
		return err_system(err, -errno, "eventfd");
	warn_if_open(config->bind_ip);
	all->tcp_fd = listen_tcp(config, address, err);
	if (all->tcp_fd < 0)
		return all->tcp_fd;
	if (config->socket_path) {
		all->unix_fd = listen_unix(config, err);
		if (all->unix_fd < 0)
			return all->unix_fd;
	}
	*ret = all;
	return 0;
}

int connections_serve(struct connections *all, struct err *err)
{
	int r = pthread_create(&all->thread, NULL, accept_all, all);

	all->is_serving = r == 0;
	return r ? err_system(err, -r, "accepting thread") : 0;
}

int connections_stop_fd(const struct connections *all)
{
	return all->stop_fd;
}

static bool has_arrivals(struct connections *all)
{
	bool yes;

	pthread_mutex_lock(&all->lock);
	yes = !TAILQ_EMPTY(&all->in_phase[PHASE_HEADER]) ||
		!TAILQ_EMPTY(&all->in_phase[PHASE_BODY]);
	pthread_mutex_unlock(&all->lock);
	return yes;
}

/* Requests that are on their way in have a moment to become requests in flight. */
static void await_arrivals(struct connections *all)
{
	for (int i = 0; i < ARRIVAL_TRIES && has_arrivals(all); i++)
		usleep(ARRIVAL_PAUSE_US);
}

void connections_stop(struct connections *all)
{
	struct connection *connection;
	struct timespec at;
	int r = 0;

	wake(all->stop_fd);
	if (all->is_serving)
		pthread_join(all->thread, NULL);
	auto_fd(&all->tcp_fd);
	auto_fd(&all->unix_fd);
	await_arrivals(all);
	at = clock_deadline(STOP_WAIT_MS);
	pthread_mutex_lock(&all->lock);
	TAILQ_FOREACH (connection, &all->in_phase[PHASE_IDLE], entry)
		shutdown(connection->fd, SHUT_RD);
	TAILQ_FOREACH (connection, &all->in_phase[PHASE_UPLOAD], entry)
		shutdown(connection->fd, SHUT_RD);
	while (has_handler(all) && r == 0)
		r = pthread_cond_timedwait(&all->left, &all->lock, &at);
	pthread_mutex_unlock(&all->lock);
}

void connections_close(struct connections *all)
{
	if (all->config.socket_path)
		unlink(all->config.socket_path);
	auto_fd(&all->spare_fd);
	auto_fd(&all->wake_fd);
	auto_fd(&all->stop_fd);
	pthread_cond_destroy(&all->left);
	pthread_mutex_destroy(&all->lock);
	free(all);
}

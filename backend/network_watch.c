/* A thread that makes the table and hears of every change to rules: what others take from our table is put back at
 * once, and counted. Beside that it forgets the connections of addresses that were given back. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "network_internal.h"

#define SWEEP_MS 3000 /* many are forgotten in one go */
#define FIRST_RETRY_MS 500 /* after a repair that failed: until then nothing is filtered */
#define MAX_RETRY_MS 30000

struct watch {
	struct network *network;
	int retry_ms; /* 0: the table is whole */
	int64_t retry_at_ms, sweep_at_ms; /* clock_ms; 0: not */
};

static void restore(struct watch *watch)
{
	struct network *network = watch->network;
	struct err err;
	unsigned n_repairs;
	int r;

	pthread_mutex_lock(&network->lock);
	r = network_repair(network, &err);
	n_repairs = network->n_repairs;
	pthread_mutex_unlock(&network->lock);
	if (r == 0) {
		LOG(LOG_WARN, "table-repaired", KV_STR("table", network->table),
			KV_INT("times", n_repairs));
		watch->retry_at_ms = watch->retry_ms = 0;
		return;
	}
	watch->retry_ms = watch->retry_ms ? watch->retry_ms * 2 : FIRST_RETRY_MS;
	if (watch->retry_ms > MAX_RETRY_MS)
		watch->retry_ms = MAX_RETRY_MS;
	watch->retry_at_ms = clock_ms() + watch->retry_ms;
	LOG(LOG_ERROR, "table-not-repaired", KV_STR("table", network->table),
		KV_STR("error", err.msg), KV_INT("again-in-ms", watch->retry_ms));
}

static bool is_due(int64_t at_ms)
{
	return at_ms && clock_ms() >= at_ms;
}

/* Until there is something to do without being told; -1: nothing. */
static int patience_ms(const struct watch *watch)
{
	int64_t at_ms = watch->retry_at_ms ? watch->retry_at_ms : watch->sweep_at_ms, left_ms;

	if (!at_ms)
		return -1;
	left_ms = at_ms - clock_ms();
	return left_ms < 0 ? 0 : (int)left_ms + 1;
}

/* See nft_watch_wait. */
static int hear(const struct network *network, const struct pollfd *poll)
{
	return poll->revents ? nft_watch_wait(network->watch_fd, &network->nft,
				       __atomic_load_n(&network->helper, __ATOMIC_ACQUIRE))
			     : 0;
}

static void act(struct watch *watch, const struct pollfd polls[2])
{
	struct network *network = watch->network;
	int heard = hear(network, &polls[0]);
	uint64_t count;

	if (polls[1].revents && read(network->wake_fd, &count, sizeof(count)) > 0)
		watch->sweep_at_ms = clock_ms() + SWEEP_MS;
	if (heard > 0 || is_due(watch->retry_at_ms))
		restore(watch);
	if (heard == 2) /* else a large table that is made anew could overflow again and again */
		nft_watch_skip(network->watch_fd);
	if (is_due(watch->sweep_at_ms)) {
		network_connections_sweep(network);
		watch->sweep_at_ms =
			network_connections_are_stale(network) ? clock_ms() + SWEEP_MS : 0;
	}
}

static void *run(void *arg)
{
	struct watch watch = { .network = arg };
	struct pollfd polls[2] = { { .events = POLLIN }, { .events = POLLIN } };

	if (network_begin(watch.network) < 0)
		return NULL;
	polls[0].fd = watch.network->watch_fd;
	polls[1].fd = watch.network->wake_fd;
	for (;;) {
		int n = poll(polls, 2, patience_ms(&watch));

		if ((n < 0 && errno != EINTR) ||
			__atomic_load_n(&watch.network->is_ending, __ATOMIC_ACQUIRE))
			break;
		if (n >= 0)
			act(&watch, polls);
	}
	return NULL;
}

int network_watch_start(struct network *network)
{
	network->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (network->wake_fd < 0)
		return -errno;
	if (pthread_create(&network->watcher, NULL, run, network))
		return -EAGAIN;
	network->is_watching = true;
	return 0;
}

void network_watch_wake(struct network *network)
{
	uint64_t one = 1;

	if (network->wake_fd >= 0 && write(network->wake_fd, &one, sizeof(one)) < 0)
		LOG(LOG_WARN, "watcher-not-woken", KV_INT("errno", errno));
}

void network_watch_stop(struct network *network)
{
	if (network->is_watching) {
		__atomic_store_n(&network->is_ending, true, __ATOMIC_RELEASE);
		network_watch_wake(network);
		pthread_join(network->watcher, NULL);
	}
	network->is_watching = false;
	auto_fd(&network->watch_fd);
	auto_fd(&network->wake_fd);
}

/* A thread that hears of every change to rules: what others take from our table is put back at
 * once, and counted. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "network_internal.h"

#define RETRY_MS 1000 /* after a repair that failed: until then nothing is filtered */

static bool restore(struct network *network)
{
	struct err err;
	unsigned n_repairs;
	int r;

	pthread_mutex_lock(&network->lock);
	r = network_repair(network, &err);
	n_repairs = network->n_repairs;
	pthread_mutex_unlock(&network->lock);
	if (r < 0)
		LOG(LOG_ERROR, "table-not-repaired", KV_STR("table", network->table),
			KV_STR("error", err.msg));
	else
		LOG(LOG_WARN, "table-repaired", KV_STR("table", network->table),
			KV_INT("times", n_repairs));
	return r == 0;
}

static void *watch(void *arg)
{
	struct network *network = arg;
	struct pollfd polls[] = { { .fd = network->watch_fd, .events = POLLIN },
		{ .fd = network->end_fd, .events = POLLIN } };
	bool is_whole = true;

	for (;;) {
		int n = poll(polls, 2, is_whole ? -1 : RETRY_MS);

		if ((n < 0 && errno != EINTR) || polls[1].revents)
			break;
		if (polls[0].revents &&
			nft_watch_wait(network->watch_fd, &network->nft,
				__atomic_load_n(&network->helper, __ATOMIC_ACQUIRE)) == 1)
			is_whole = false;
		if (!is_whole)
			is_whole = restore(network);
	}
	return NULL;
}

int network_watch_start(struct network *network)
{
	network->watch_fd = nft_watch_open();
	network->end_fd = eventfd(0, EFD_CLOEXEC);
	if (network->watch_fd < 0 || network->end_fd < 0)
		return -EPROTO;
	if (pthread_create(&network->watcher, NULL, watch, network))
		return -EAGAIN;
	network->is_watching = true;
	return 0;
}

void network_watch_stop(struct network *network)
{
	uint64_t one = 1;

	if (network->is_watching && write(network->end_fd, &one, sizeof(one)) > 0)
		pthread_join(network->watcher, NULL);
	network->is_watching = false;
	auto_fd(&network->watch_fd);
	auto_fd(&network->end_fd);
}

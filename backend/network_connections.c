/* Connections of addresses that are given back: the kernel remembers them for days, and would let in to
 * the next holder of an address, or of a port, what was meant for the one before. They are forgotten soon after, by
 * the watcher, or at once when somebody takes the address or a port before that. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "linux/conntrack.h"
#include "network_internal.h"

static bool is_stale(const struct network *network, uint32_t address)
{
	for (size_t i = 0; i < network->n_stale; i++)
		if (network->stale[i].address == address)
			return true;
	return netpool_is_free(&network->pool, address);
}

static bool match_locked(int family, const void *address, void *arg)
{
	const struct network *network = arg;
	uint32_t low;

	if (family == AF_INET6 &&
		(!network->config->v6 || memcmp(address, network->v6_prefix, 12) != 0))
		return false;
	memcpy(&low, (const char *)address + (family == AF_INET6 ? 12 : 0), sizeof(low));
	return is_stale(network, ntohl(low));
}

/* What matches is asked anew for each: somebody may take the address while we read on. */
static bool match(int family, const void *address, void *arg)
{
	struct network *network = arg;
	bool matches;

	pthread_mutex_lock(&network->lock);
	matches = match_locked(family, address, network);
	pthread_mutex_unlock(&network->lock);
	return matches;
}

/* Said once. */
static void explain(struct network *network, int r)
{
	if (r >= 0 || network->is_conntrack_told)
		return;
	network->is_conntrack_told = true;
	LOG(LOG_WARN, "connections-not-forgotten",
		KV_STR("reason",
			"without ctnetlink the next holder of an address may get packets for the last one"),
		KV_INT("errno", -r));
}

void network_connections_clear(struct network *network)
{
	explain(network, conntrack_forget(match_locked, network));
	network->n_stale = 0;
}

void network_connections_leave(struct network *network, const struct lease *lease)
{
	struct stale *more;

	if (*network->missing)
		return;
	more = realloc(network->stale, (network->n_stale + 1) * sizeof(*more));
	if (!more) { /* those of the pool need not be noted */
		network_connections_clear(network);
		return;
	}
	network->stale = more;
	more[network->n_stale++] =
		(struct stale){ .address = lease->place.address, .has_ports = lease->n_ports };
	if (network->n_stale == 1)
		network_watch_wake(network);
}

void network_connections_take(struct network *network, uint32_t address)
{
	for (size_t i = 0; i < network->n_stale; i++)
		if (network->stale[i].address == address) {
			network_connections_clear(network);
			return;
		}
}

void network_connections_take_port(struct network *network)
{
	for (size_t i = 0; i < network->n_stale; i++)
		if (network->stale[i].has_ports) {
			network_connections_clear(network);
			return;
		}
}

void network_connections_sweep(struct network *network)
{
	size_t n_kept = 0;
	int r;

	pthread_mutex_lock(&network->lock);
	for (size_t i = 0; i < network->n_stale; i++)
		network->stale[i].is_being_swept = true;
	pthread_mutex_unlock(&network->lock);
	r = conntrack_forget(match, network);
	pthread_mutex_lock(&network->lock);
	explain(network, r);
	for (size_t i = 0; i < network->n_stale; i++) /* others came meanwhile */
		if (!network->stale[i].is_being_swept || (r < 0 && r != -EINVAL))
			network->stale[n_kept++] = network->stale[i]; /* or it is tried again */
	network->n_stale = n_kept;
	pthread_mutex_unlock(&network->lock);
}

bool network_connections_are_stale(struct network *network)
{
	bool are;

	pthread_mutex_lock(&network->lock);
	are = network->n_stale > 0;
	pthread_mutex_unlock(&network->lock);
	return are;
}

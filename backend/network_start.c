/* After a start: what nobody holds is forgotten and swept, the table is made, and watched. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "base/log.h"
#include "base/registry.h"
#include "linux/rtnl.h"
#include "network_internal.h"

struct strays {
	bool (*is_known)(const char *id, void *arg);
	void *arg;
	struct strv ids;
};

static int note_stray(const struct db_row *row, void *arg)
{
	struct strays *strays = arg;

	return strays->is_known(db_row_text(row, 0), strays->arg)
		? 0
		: strv_add(&strays->ids, db_row_text(row, 0));
}

static void forget_strays(
	struct network *network, bool (*is_known)(const char *id, void *arg), void *arg)
{
	struct strays strays = { .is_known = is_known, .arg = arg };
	struct err err;

	if (db_each(network->db, note_stray, &strays, &err,
		    "SELECT container FROM addresses UNION SELECT container FROM ports"
		    " UNION SELECT container FROM rules",
		    "") < 0)
		LOG(LOG_ERROR, "addresses-not-read", KV_STR("error", err.msg));
	for (size_t i = 0; i < strays.ids.n_items; i++)
		if (network_forget_record(network, strays.ids.items[i], &err) < 0)
			LOG(LOG_ERROR, "address-not-forgotten", KV_STR("error", err.msg));
	strv_done(&strays.ids);
}

/* Names of links, each of which a lease holds. NULL when out of memory. */
static struct registry *held_links(const struct network *network)
{
	struct registry *held = registry_new();
	struct lease *lease;
	int r = 0;

	LIST_FOREACH(lease, &network->leases, entry)
	{
		const char *names[] = { lease->link, lease->source_link, lease->ifb };

		for (size_t i = 0; held && r == 0 && i < N_ELEMENTS(names); i++)
			if (*names[i] && !registry_find(held, names[i])) /* many share a bridge */
				r = registry_add(held, names[i], lease);
	}
	if (r < 0) {
		registry_free(held);
		held = NULL;
	}
	return held;
}

#define MAX_SWEPT 4096
struct sweep {
	const struct network *network;
	struct registry *held;
	uint32_t indexes[MAX_SWEPT];
	size_t n;
};

/* Ours by the group that it was made with, not only by its name. */
static int note_link(const struct rtnl_link *link, void *arg)
{
	struct sweep *sweep = arg;
	const struct network *network = sweep->network;

	if (link->group == network->group && sweep->n < MAX_SWEPT &&
		!strncmp(link->name, network->links, strlen(network->links)) &&
		!registry_find(sweep->held, link->name))
		sweep->indexes[sweep->n++] = link->index;
	return 0;
}

static void sweep_links(struct network *network)
{
	AUTO_FREE struct sweep *sweep = calloc(1, sizeof(*sweep));

	if (!sweep || !(sweep->held = held_links(network)))
		return;
	sweep->network = network;
	rtnl_each_link(note_link, sweep);
	registry_free(sweep->held);
	for (size_t i = 0; i < sweep->n; i++)
		rtnl_delete_link(sweep->indexes[i]);
	if (sweep->n)
		LOG(LOG_INFO, "links-swept", KV_INT("links", (int64_t)sweep->n));
}

/* Lock held. */
static int make_table(struct network *network, struct err *err)
{
	int r = network_try(network, err);

	if (r < 0)
		return r;
	sweep_links(network);
	network_connections_clear(network);
	network_learn_resolvers(network);
	r = network_repair(network, err);
	network->n_repairs = 0;
	if (r < 0)
		return r;
	network->watch_fd = nft_watch_open(&network->nft);
	return network->watch_fd < 0
		? err_system(err, network->watch_fd, "changes of rules cannot be watched")
		: 0;
}

static void give_up(struct network *network, const struct err *err)
{
	snprintf(network->missing, sizeof(network->missing), "%.250s", err->msg);
	LOG(LOG_WARN, "no-network", KV_STR("reason", network->missing));
}

int network_begin(struct network *network)
{
	struct err err;
	int r;

	pthread_mutex_lock(&network->lock);
	r = make_table(network, &err);
	if (r < 0)
		give_up(network, &err);
	else
		LOG(LOG_INFO, "network-ready", KV_STR("table", network->table));
	network->is_starting = false;
	pthread_cond_broadcast(&network->started);
	pthread_mutex_unlock(&network->lock);
	return r;
}

void network_start(struct network *network, bool (*is_known)(const char *id, void *arg), void *arg)
{
	struct err err;
	int r;

	forget_strays(network, is_known, arg);
	if (*network->missing)
		return;
	network->is_starting = true;
	r = network_watch_start(network);
	if (r == 0)
		return;
	network->is_starting = false;
	err_system(&err, r, "the thread that watches rules");
	give_up(network, &err);
}

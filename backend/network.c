#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "linux/rtnl.h"
#include "linux/sys.h"
#include "network_internal.h"

#define MAX_TAG 2

/* ---- life ------------------------------------------------------------------------------------ */

static int check_tag(const char *tag, struct err *err)
{
	if (strlen(tag) <= MAX_TAG && !tag[strspn(tag, "abcdefghijklmnopqrstuvwxyz0123456789")])
		return 0;
	return err_set(err, ERR_INVALID, EINVAL, "--tag '%s': expected up to %d of [a-z0-9]", tag,
		MAX_TAG);
}

static int check_networks(const char *option, const struct strv *networks, struct err *err)
{
	int family;

	for (size_t i = 0; networks && i < networks->n_items; i++)
		if (network_text_check(networks->items[i], &family) < 0)
			return err_set(err, ERR_INVALID, EINVAL,
				"--%s '%s': expected a network (10.0.0.0/8), an address or a range",
				option, networks->items[i]);
	return 0;
}

static int check_config(const struct network_config *config, struct err *err)
{
	int r = check_tag(config->tag, err);

	if (r == 0)
		r = check_networks("deny-network", config->denied, err);
	if (r == 0)
		r = check_networks("restricted-network", config->restricted, err);
	if (r == 0)
		r = check_networks("dns-server", config->dns_servers, err);
	if (r == 0)
		r = check_networks("additional-dns-server", config->additional_dns, err);
	if (r == 0 && config->mtu && (config->mtu < 576 || config->mtu > 1500))
		r = err_set(err, ERR_INVALID, EINVAL, "--mtu: expected 576 to 1500, or 0");
	return r;
}

static uint32_t group_of(const char *instance)
{
	uint32_t group = 0;

	for (const char *at = instance; *at; at++)
		group = group << 4 | (uint32_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
	return group | 1; /* 0 is the group of all others */
}

static void name_things(struct network *network, const char *instance)
{
	const struct network_config *config = network->config;

	network->group = group_of(instance);
	snprintf(network->table, sizeof(network->table), "cloche%s%s", *config->tag ? "-" : "",
		config->tag);
	snprintf(network->links, sizeof(network->links), "cl%s-", config->tag);
	snprintf(network->owner, sizeof(network->owner), "instance-%.8s", instance);
	network->policy = (struct network_policy){ .table = network->table,
		.links = network->links,
		.owner = network->owner,
		.denied = config->denied,
		.restricted = config->restricted,
		.own_ports = config->own_ports,
		.n_own_ports = config->n_own_ports,
		.host_access = config->host_access };
}

int network_open(const struct network_config *config, struct db *db, const char *instance,
	int self_exe_fd, struct network **ret_network, struct err *err)
{
	struct network *network;
	int r = check_config(config, err);

	if (r < 0)
		return r;
	network = calloc(1, sizeof(*network));
	if (!network)
		return err_system(err, -ENOMEM, "network");
	*network = (struct network){ .config = config,
		.db = db,
		.self_exe_fd = self_exe_fd,
		.nft = { .fd = -1 },
		.watch_fd = -1,
		.end_fd = -1 };
	pthread_mutex_init(&network->lock, NULL);
	LIST_INIT(&network->leases);
	name_things(network, instance);
	r = netpool_init(&network->pool, config->pool);
	if (r < 0) {
		network_close(network);
		return err_set(err, ERR_INVALID, -r,
			"--network-pool '%s': expected a network from /8 to /30", config->pool);
	}
	r = network_ports_open(network, err);
	if (r < 0) {
		network_close(network);
		return r;
	}
	if (network_setup(network, err) < 0) {
		snprintf(network->missing, sizeof(network->missing), "%.290s", err->msg);
		LOG(LOG_WARN, "no-network", KV_STR("reason", network->missing));
	}
	*ret_network = network;
	return 0;
}

void network_close(struct network *network)
{
	if (!network)
		return;
	network_watch_stop(network);
	nft_close(&network->nft);
	netpool_done(&network->pool);
	idpool_done(&network->port_pool);
	pthread_mutex_destroy(&network->lock);
	free(network);
}

const char *network_missing(const struct network *network)
{
	return *network->missing ? network->missing : NULL;
}

uint32_t network_capacity(const struct network *network)
{
	return network->pool.n_subnets;
}

/* ---- the record ------------------------------------------------------------------------------ */

static int record(const struct lease *lease, struct err *err)
{
	const struct net_place *place = &lease->place;

	return db_change(lease->network->db, err, "INSERT INTO addresses VALUES (?, ?, ?, ?, ?)",
		"siiii", lease->id, (int64_t)place->address, (int64_t)place->gateway,
		(int64_t)place->prefix, (int64_t)place->is_shared);
}

static int copy_place(const struct db_row *row, void *arg)
{
	struct net_place *place = arg;

	*place = (struct net_place){ .address = (uint32_t)db_row_int(row, 0),
		.gateway = (uint32_t)db_row_int(row, 1),
		.prefix = (unsigned)db_row_int(row, 2),
		.is_shared = db_row_int(row, 3) };
	return 0;
}

static int forget_record(struct network *network, const char *id, struct err *err)
{
	static const char *const tables[] = { "DELETE FROM rules WHERE container = ?",
		"DELETE FROM ports WHERE container = ?",
		"DELETE FROM addresses WHERE container = ?" };
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(tables) && r == 0; i++)
		r = db_change(network->db, err, tables[i], "s", id);
	return r;
}

/* ---- leases ---------------------------------------------------------------------------------- */

static struct lease *lease_new(struct network *network, const char *id)
{
	struct lease *lease = calloc(1, sizeof(*lease));

	if (!lease)
		return NULL;
	lease->network = network;
	snprintf(lease->id, sizeof(lease->id), "%s", id);
	return lease;
}

static void lease_free(struct lease *lease)
{
	free(lease->ports);
	net_rules_free(lease->rules, lease->n_rules);
	free(lease);
}

static void auto_lease(struct lease **lease)
{
	if (*lease)
		lease_free(*lease);
}

/* Named by the address, which nobody else has, and a bridge by its subnet. */
static void name_link(struct lease *lease)
{
	const char *links = lease->network->links;

	snprintf(lease->link, sizeof(lease->link), "%s%08x", links, lease->place.address);
	memcpy(lease->source_link, lease->link, sizeof(lease->link));
	if (lease->place.is_shared)
		snprintf(lease->source_link, sizeof(lease->source_link), "%sb%08x", links,
			net_subnet(&lease->place));
}

/* The bridge of a subnet comes with its first container and goes with its last. Lock held. */
static int open_bridge(struct lease *lease, struct err *err)
{
	struct network *network = lease->network;
	uint32_t gateway = htonl(lease->place.gateway);
	int r;

	if (!lease->place.is_shared || rtnl_link_index(lease->source_link, &lease->bridge) == 0)
		return 0;
	r = rtnl_make_bridge(lease->source_link, network->group, network->mtu, &lease->bridge);
	if (r == 0)
		r = rtnl_add_address(lease->source_link, AF_INET, &gateway, lease->place.prefix);
	return r < 0 ? err_system(err, r, "bridge %s", lease->source_link) : 0;
}

static void close_bridge(struct lease *lease)
{
	uint32_t index;

	network_rules_close_bridge(lease);
	if (rtnl_link_index(lease->source_link, &index) == 0)
		rtnl_delete_link(index);
}

struct link_named {
	const char *name;
	uint32_t group, index;
};

static int find_link(const struct rtnl_link *link, void *arg)
{
	struct link_named *search = arg;

	if (strcmp(link->name, search->name))
		return 0;
	search->index = link->index;
	search->group = link->group;
	return 0;
}

/* The link of an earlier holder of the address may still be on its way out: then it goes now. A
 * stranger's of the same name is left alone: -EEXIST. */
static int clear_name(const struct lease *lease)
{
	struct link_named search = { .name = lease->link };
	uint32_t index;
	int r = rtnl_link_index(lease->link, &index);

	if (r < 0)
		return r == -ENODEV ? 0 : r;
	r = rtnl_each_link(find_link, &search);
	if (r < 0 || !search.index)
		return r;
	if (search.group != lease->network->group)
		return -EEXIST;
	r = rtnl_delete_link(search.index);
	return r == -ENODEV ? 0 : r;
}

/* Lock held. An address whose link is a stranger's stays taken: it would be the next one's trouble. */
static int take(struct lease *lease, const char *wanted, struct err *err)
{
	struct network *network = lease->network;
	int r;

	do {
		r = netpool_take(&network->pool, wanted, &lease->place, err);
		if (r < 0)
			return r;
		name_link(lease);
		r = clear_name(lease);
		if (r == -EEXIST)
			LOG(LOG_WARN, "foreign-link", KV_STR("name", lease->link));
	} while (r == -EEXIST && !lease->place.is_shared);
	if (r < 0) {
		netpool_give(&network->pool, &lease->place);
		return err_system(err, r, "link %s", lease->link);
	}
	LIST_INSERT_HEAD(&network->leases, lease, entry);
	return 0;
}

static void drop(struct lease *lease)
{
	struct network *network = lease->network;

	LIST_REMOVE(lease, entry);
	for (size_t i = 0; i < lease->n_ports; i++)
		network_port_give(network, lease->ports[i].host);
	if (netpool_give(&network->pool, &lease->place) && lease->place.is_shared)
		close_bridge(lease);
}

int network_reserve(struct network *network, const char *id, const char *wanted,
	struct lease **ret_lease, struct err *err)
{
	AUTO(auto_lease) struct lease *lease = NULL;
	int r;

	*ret_lease = NULL;
	if (*network->missing)
		return wanted && *wanted
			? err_set(err, ERR_UNSUPPORTED, ENOSYS, "network: there is none here: %s",
				  network->missing)
			: 0;
	lease = lease_new(network, id);
	if (!lease)
		return err_system(err, -ENOMEM, "network");
	pthread_mutex_lock(&network->lock);
	r = take(lease, wanted, err);
	pthread_mutex_unlock(&network->lock);
	if (r < 0)
		return r;
	r = record(lease, err);
	pthread_mutex_lock(&network->lock);
	if (r == 0)
		r = open_bridge(lease, err);
	if (r < 0)
		drop(lease);
	pthread_mutex_unlock(&network->lock);
	if (r < 0) {
		forget_record(network, id, NULL);
		return r;
	}
	*ret_lease = TAKE_PTR(lease);
	return 0;
}

int network_adopt(
	struct network *network, const char *id, struct lease **ret_lease, struct err *err)
{
	AUTO(auto_lease) struct lease *lease = lease_new(network, id);
	int r;

	*ret_lease = NULL;
	if (!lease)
		return err_system(err, -ENOMEM, "network");
	r = db_each(network->db, copy_place, &lease->place, err,
		"SELECT address, gateway, prefix, shared FROM addresses WHERE container = ?", "s",
		id);
	if (r < 0 || !lease->place.address)
		return r;
	name_link(lease);
	r = network_ports_load(lease, err);
	if (r < 0)
		return r;
	if (lease->place.is_shared)
		rtnl_link_index(lease->source_link, &lease->bridge);
	pthread_mutex_lock(&network->lock);
	r = netpool_mark(&network->pool, &lease->place);
	if (r == 0)
		LIST_INSERT_HEAD(&network->leases, lease, entry);
	pthread_mutex_unlock(&network->lock);
	if (r < 0)
		return err_system(err, r, "the recorded address of container %s", id);
	lease->is_admitted = true; /* network_start puts it into the table */
	*ret_lease = TAKE_PTR(lease);
	return 0;
}

int network_admit(struct lease *lease, struct err *err)
{
	struct network *network = lease->network;
	int r;

	pthread_mutex_lock(&network->lock);
	r = network_rules_admit(lease, err);
	pthread_mutex_unlock(&network->lock);
	return r;
}

int network_release(struct lease *lease, struct err *err)
{
	struct network *network = lease->network;
	int r;

	pthread_mutex_lock(&network->lock);
	if (lease->is_admitted)
		network_rules_withdraw(lease);
	pthread_mutex_unlock(&network->lock);
	r = forget_record(network, lease->id, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&network->lock);
	drop(lease);
	pthread_mutex_unlock(&network->lock);
	lease_free(lease);
	return 0;
}

void network_forget(struct lease *lease)
{
	if (!lease)
		return;
	pthread_mutex_lock(&lease->network->lock);
	LIST_REMOVE(lease, entry);
	pthread_mutex_unlock(&lease->network->lock);
	lease_free(lease);
}

/* ---- after a start --------------------------------------------------------------------------- */

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
		if (forget_record(network, strays.ids.items[i], &err) < 0)
			LOG(LOG_ERROR, "address-not-forgotten", KV_STR("error", err.msg));
	strv_done(&strays.ids);
}

static bool is_held(const struct network *network, const char *link)
{
	struct lease *lease;

	LIST_FOREACH(lease, &network->leases, entry)
	if (!strcmp(lease->link, link) || !strcmp(lease->source_link, link))
		return true;
	return false;
}

#define MAX_SWEPT 4096
struct sweep {
	struct network *network;
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
		!is_held(network, link->name))
		sweep->indexes[sweep->n++] = link->index;
	return 0;
}

static void sweep_links(struct network *network)
{
	AUTO_FREE struct sweep *sweep = calloc(1, sizeof(*sweep));

	if (!sweep)
		return;
	sweep->network = network;
	rtnl_each_link(note_link, sweep);
	for (size_t i = 0; i < sweep->n; i++)
		rtnl_delete_link(sweep->indexes[i]);
	if (sweep->n)
		LOG(LOG_INFO, "links-swept", KV_INT("links", (int64_t)sweep->n));
}

void network_start(struct network *network, bool (*is_known)(const char *id, void *arg), void *arg)
{
	struct err err;
	int r;

	forget_strays(network, is_known, arg);
	if (*network->missing)
		return;
	pthread_mutex_lock(&network->lock);
	sweep_links(network);
	r = network_repair(network, &err);
	network->n_repairs = 0;
	pthread_mutex_unlock(&network->lock);
	if (r == 0)
		r = network_watch_start(network);
	if (r == 0)
		return;
	snprintf(network->missing, sizeof(network->missing), "%.250s",
		r == -EIO ? err.msg : "changes of rules cannot be watched");
	LOG(LOG_WARN, "no-network", KV_STR("reason", network->missing));
}

/* ---- what others need to know ---------------------------------------------------------------- */

static void write_address(char text[16], uint32_t address)
{
	snprintf(text, 16, "%u.%u.%u.%u", address >> 24, address >> 16 & 255, address >> 8 & 255,
		address & 255);
}

void network_describe(const struct lease *lease, struct network_link *ret_link)
{
	const struct network *network = lease->network;
	const struct net_place *place = &lease->place;
	char address[16];

	*ret_link = (struct network_link){ .name = lease->link,
		.mtu = network->mtu,
		.group = network->group,
		.bridge = lease->bridge };
	write_address(ret_link->gateway, place->gateway);
	write_address(address, place->address);
	snprintf(ret_link->address, sizeof(ret_link->address), "%s/%u", address, place->prefix);
	if (!lease->bridge)
		snprintf(ret_link->host_address, sizeof(ret_link->host_address), "%s/%u",
			ret_link->gateway, place->prefix);
}

static int read_counter(const char *link, const char *name, uint64_t *ret_bytes)
{
	char path[96], text[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/%s", link, name);
	n = sys_read_small(AT_FDCWD, path, 0, text, sizeof(text));
	if (n < 0)
		return (int)n;
	text[strcspn(text, "\n")] = '\0';
	return parse_u64(text, UINT64_MAX, ret_bytes);
}

/* What the host's end has sent is what the container has received. */
int network_traffic(const struct lease *lease, struct network_traffic *ret_traffic)
{
	int r = read_counter(lease->link, "tx_bytes", &ret_traffic->rx_bytes);

	return r < 0 ? r : read_counter(lease->link, "rx_bytes", &ret_traffic->tx_bytes);
}

const struct net_port *network_ports(const struct lease *lease, size_t *ret_n)
{
	*ret_n = lease ? lease->n_ports : 0;
	return lease ? lease->ports : NULL;
}

/* A packet that the host sent itself from 127.0.0.1 gets the gateway's address on its way; what comes
 * back must be let in as one for 127.0.0.1. The containers' own packets for 127/8 are dropped
 * before that. */
void network_link_made(struct lease *lease)
{
	char path[64];
	int r;

	if (!lease->n_ports)
		return;
	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/route_localnet",
		lease->source_link);
	r = sys_write_file(AT_FDCWD, path, "1");
	if (r < 0)
		LOG(LOG_WARN, "ports-not-on-loopback", KV_STR("link", lease->source_link),
			KV_INT("errno", -r));
}

void network_facts(
	const struct network *network, const struct lease *lease, struct network_facts *ret_facts)
{
	*ret_facts = (struct network_facts){ 0 };
	if (!lease)
		return;
	write_address(ret_facts->container_ip, lease->place.address);
	write_address(ret_facts->host_ip, lease->place.gateway);
	snprintf(
		ret_facts->external_ip, sizeof(ret_facts->external_ip), "%s", network->external_ip);
}

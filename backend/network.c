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
	return err_set(err, ERR_INVALID, EINVAL,
		"--network-tag '%s': expected up to %d of [a-z0-9]", tag, MAX_TAG);
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

static int parse_pool_6(struct network *network, struct err *err)
{
	const char *text = network->config->v6_pool, *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	uint64_t prefix;

	if (!network->config->v6)
		return 0;
	if (slash && (size_t)(slash - text) < sizeof(address)) {
		memcpy(address, text, (size_t)(slash - text));
		address[slash - text] = '\0';
		if (inet_pton(AF_INET6, address, network->v6_prefix) == 1 &&
			parse_u64(slash + 1, 96, &prefix) == 0 &&
			!memcmp(network->v6_prefix + 12, "\0\0\0", 4))
			return 0;
	}
	return err_set(err, ERR_INVALID, EINVAL,
		"--v6-pool '%s': expected an IPv6 network of at most /96", text);
}

void network_address_6(const struct network *network, uint32_t address, uint8_t ret_address[16])
{
	uint32_t low = htonl(address);

	memcpy(ret_address, network->v6_prefix, 12);
	memcpy(ret_address + 12, &low, sizeof(low));
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
		.host_access = config->host_access,
		.v6 = config->v6,
		.v6_masquerade = config->v6_masquerade,
		.resolvers = &network->resolvers };
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
		.claim_fd = -1,
		.watch_fd = -1,
		.wake_fd = -1 };
	pthread_mutex_init(&network->lock, NULL);
	pthread_cond_init(&network->started, NULL);
	LIST_INIT(&network->leases);
	name_things(network, instance);
	r = netpool_init(&network->pool, config->pool);
	if (r < 0) {
		network_close(network);
		return err_set(err, ERR_INVALID, -r,
			"--network-pool '%s': expected a network from /8 to /30", config->pool);
	}
	r = network_ports_open(network, err);
	if (r == 0)
		r = parse_pool_6(network, err);
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
	auto_fd(&network->claim_fd);
	netpool_done(&network->pool);
	idpool_done(&network->port_pool);
	free(network->stale);
	strv_done(&network->resolvers);
	pthread_cond_destroy(&network->started);
	pthread_mutex_destroy(&network->lock);
	free(network);
}

void network_lock(struct network *network)
{
	pthread_mutex_lock(&network->lock);
	while (network->is_starting)
		pthread_cond_wait(&network->started, &network->lock);
}

const char *network_missing(struct network *network)
{
	bool is_missing;

	network_lock(network);
	is_missing = *network->missing;
	pthread_mutex_unlock(&network->lock);
	return is_missing ? network->missing : NULL; /* it stays */
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

static int delete_rows(struct db *db, void *id, struct err *err)
{
	static const char *const tables[] = { "DELETE FROM rules WHERE container = ?",
		"DELETE FROM ports WHERE container = ?",
		"DELETE FROM addresses WHERE container = ?" };
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(tables) && r == 0; i++)
		r = db_change(db, err, tables[i], "s", id);
	return r;
}

int network_forget_record(struct network *network, const char *id, struct err *err)
{
	return db_transaction(network->db, delete_rows, (void *)id, err);
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
	snprintf(lease->ifb, sizeof(lease->ifb), "%su%08x", links, lease->place.address);
	memcpy(lease->source_link, lease->link, sizeof(lease->link));
	if (lease->place.is_shared)
		snprintf(lease->source_link, sizeof(lease->source_link), "%sb%08x", links,
			net_subnet(&lease->place));
}

/* Nobody at the bridge tells this host its routes. A kernel without IPv6 has no such file. */
static int refuse_routers(const char *link)
{
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_ra", link);
	r = sys_write_file(AT_FDCWD, path, "0");
	return r == -ENOENT ? 0 : r;
}

/* The bridge of a subnet comes with its first container and goes with its last. Lock held. */
static int open_bridge(struct lease *lease, struct err *err)
{
	struct network *network = lease->network;
	uint32_t gateway = htonl(lease->place.gateway);
	struct rtnl_bridge bridge = { .name = lease->source_link,
		.mac = { 0x02, 0x63 }, /* a local address */
		.mtu = network->mtu,
		.group = network->group,
		.v6 = network->config->v6 };
	uint8_t gateway_6[16];
	int r;

	if (!lease->place.is_shared || rtnl_find_link(lease->source_link, &lease->bridge) == 0)
		return 0;
	memcpy(bridge.mac + 2, &gateway, sizeof(gateway));
	r = rtnl_make_bridge(&bridge, &lease->bridge);
	if (r == 0)
		r = refuse_routers(lease->source_link);
	if (r == 0)
		r = rtnl_add_address(lease->source_link, AF_INET, &gateway, lease->place.prefix);
	if (r == 0 && network->config->v6) {
		network_address_6(network, lease->place.gateway, gateway_6);
		r = rtnl_add_address(
			lease->source_link, AF_INET6, gateway_6, 96 + lease->place.prefix);
	}
	return r < 0 ? err_system(err, r, "bridge %s", lease->source_link) : 0;
}

static void close_bridge(struct lease *lease)
{
	uint32_t index;

	network_rules_close_bridge(lease);
	if (rtnl_find_link(lease->source_link, &index) == 0)
		rtnl_delete_link(index);
}

/* The link of an earlier holder of the address may still be on its way out: then it goes now. A
 * stranger's of the same name is left alone: -EEXIST. */
static int clear_name(const struct lease *lease)
{
	struct rtnl_facts link;
	int r = rtnl_look(lease->link, &link);

	if (r == 0 && link.group != lease->network->group)
		return -EEXIST;
	if (r == 0)
		r = rtnl_delete_link(link.index);
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
	network_connections_take(network, lease->place.address);
	LIST_INSERT_HEAD(&network->leases, lease, entry);
	return 0;
}

static void drop(struct lease *lease)
{
	struct network *network = lease->network;

	LIST_REMOVE(lease, entry);
	network_connections_leave(network, lease);
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
	if (network_missing(network))
		return wanted && *wanted
			? err_set(err, ERR_UNSUPPORTED, ENOSYS, "network: there is none here: %s",
				  network->missing)
			: 0;
	lease = lease_new(network, id);
	if (!lease)
		return err_system(err, -ENOMEM, "network");
	network_lock(network);
	r = take(lease, wanted, err);
	pthread_mutex_unlock(&network->lock);
	if (r < 0)
		return r;
	r = record(lease, err);
	network_lock(network);
	if (r == 0)
		r = open_bridge(lease, err);
	pthread_mutex_unlock(&network->lock);
	if (r < 0) {
		network_forget_record(network, id, NULL); /* before somebody else has the address */
		network_lock(network);
		drop(lease);
		pthread_mutex_unlock(&network->lock);
		return r;
	}
	*ret_lease = TAKE_PTR(lease);
	return 0;
}

static int load_place(const struct db_row *row, void *arg)
{
	const struct lease_finder *finder = arg;
	struct lease **slot = finder->slot(db_row_text(row, 0), finder->arg);
	struct lease *lease = slot ? lease_new(finder->network, db_row_text(row, 0)) : NULL;

	if (!lease)
		return slot ? -ENOMEM : 0;
	lease->place = (struct net_place){ .address = (uint32_t)db_row_int(row, 1),
		.gateway = (uint32_t)db_row_int(row, 2),
		.prefix = (unsigned)db_row_int(row, 3),
		.is_shared = db_row_int(row, 4) };
	name_link(lease);
	if (lease->place.is_shared)
		rtnl_link_index(lease->source_link, &lease->bridge);
	lease->is_admitted = true; /* network_start puts it into the table */
	LIST_INSERT_HEAD(&finder->network->leases, lease, entry);
	*slot = lease;
	return 0;
}

int network_load(struct network *network, struct lease **(*slot)(const char *id, void *arg),
	void *arg, struct err *err)
{
	struct lease_finder finder = { network, slot, arg };
	int r = db_each(network->db, load_place, &finder, err,
		"SELECT container, address, gateway, prefix, shared FROM addresses", "");

	return r < 0 ? r : network_ports_load(&finder, err);
}

int network_adopt(struct lease *lease, struct err *err)
{
	int r = lease->is_damaged ? -EINVAL : netpool_mark(&lease->network->pool, &lease->place);

	if (r < 0)
		return err_system(err, r, "the recorded network of container %s", lease->id);
	network_ports_mark(lease);
	return 0;
}

int network_admit(struct lease *lease, struct err *err)
{
	struct network *network = lease->network;
	int r;

	network_lock(network);
	r = network_rules_admit(lease, err);
	pthread_mutex_unlock(&network->lock);
	return r;
}

int network_release(struct lease *lease, struct err *err)
{
	struct network *network = lease->network;
	int r;

	network_unlimit(lease);
	network_lock(network);
	if (!*network->missing) /* also what was not admitted: how far that came is not known */
		network_rules_withdraw(lease);
	pthread_mutex_unlock(&network->lock);
	r = network_forget_record(network, lease->id, err);
	if (r < 0)
		return r;
	network_lock(network);
	drop(lease);
	pthread_mutex_unlock(&network->lock);
	lease_free(lease);
	return 0;
}

void network_forget(struct lease *lease)
{
	if (!lease)
		return;
	network_lock(lease->network);
	LIST_REMOVE(lease, entry);
	pthread_mutex_unlock(&lease->network->lock);
	lease_free(lease);
}

/* What leases mean in the table of nf_tables: elements and small chains that come and go. The
 * network's lock is held. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "network_internal.h"

/* ---- elements -------------------------------------------------------------------------------- */

struct source_key {
	char link[LINK_NAME_SIZE];
	uint32_t address;
};

static struct source_key source_key(const struct lease *lease)
{
	struct source_key key = { .address = htonl(lease->place.address) };

	memcpy(key.link, lease->source_link, sizeof(key.link));
	return key;
}

#define ELEMENT_BYTES 512
#define RULE_BYTES 2048
#define MAX_RULE_PARTS 4096 /* networks times ports of all rules of one container */

struct source_key_6 {
	char link[LINK_NAME_SIZE];
	uint8_t address[16];
};

static struct source_key_6 source_key_6(const struct lease *lease)
{
	struct source_key_6 key;

	memcpy(key.link, lease->source_link, sizeof(key.link));
	network_address_6(lease->network, lease->place.address, key.address);
	return key;
}

/* At a port of a bridge, where siblings share the wire. */
struct station_key {
	char link[LINK_NAME_SIZE];
	uint8_t mac[6], padding[2];
	uint32_t address;
};

struct station_key_6 {
	char link[LINK_NAME_SIZE];
	uint8_t mac[6], padding[2], address[16];
};

static struct station_key station_key(const struct lease *lease)
{
	struct station_key key = { .address = htonl(lease->place.address) };

	memcpy(key.link, lease->link, sizeof(key.link));
	network_mac(lease, key.mac);
	return key;
}

static struct station_key_6 station_key_6(const struct lease *lease)
{
	struct station_key_6 key = { 0 };

	memcpy(key.link, lease->link, sizeof(key.link));
	network_mac(lease, key.mac);
	network_address_6(lease->network, lease->place.address, key.address);
	return key;
}

/* Who it is: what every lease has in the sets, but for ports and rules. */
#define MAX_MARKS 6
struct marks {
	struct source_key source;
	struct source_key_6 source_6;
	struct station_key station;
	struct station_key_6 station_6;
	struct nft_element elements[MAX_MARKS];
	size_t n;
};

static void add_mark(
	struct marks *marks, uint8_t family, const char *set, const void *key, size_t key_bytes)
{
	marks->elements[marks->n++] = (struct nft_element){
		.family = family, .set = set, .key = key, .key_bytes = key_bytes
	};
}

static void mark(const struct lease *lease, struct marks *marks)
{
	bool v6 = lease->network->config->v6, is_shared = lease->place.is_shared;

	*marks = (struct marks){ .source = source_key(lease),
		.source_6 = source_key_6(lease),
		.station = station_key(lease),
		.station_6 = station_key_6(lease) };
	add_mark(marks, NFPROTO_INET, "sources4", &marks->source, sizeof(marks->source));
	add_mark(marks, NFPROTO_ARP, "senders4", &marks->source, sizeof(marks->source));
	if (v6)
		add_mark(
			marks, NFPROTO_INET, "sources6", &marks->source_6, sizeof(marks->source_6));
	if (is_shared)
		add_mark(marks, NFPROTO_BRIDGE, "stations4", &marks->station,
			sizeof(marks->station));
	if (is_shared && v6) {
		add_mark(marks, NFPROTO_BRIDGE, "stations6", &marks->station_6,
			sizeof(marks->station_6));
		add_mark(marks, NFPROTO_BRIDGE, "targets6", &marks->station_6,
			sizeof(marks->station_6));
	}
}

struct port_pair_6 {
	uint16_t host; /* network order, all of them */
	uint8_t address[16];
	uint16_t container, padding;
} __attribute__((packed));

static struct port_pair_6 port_pair_6(const struct lease *lease, const struct net_port *port)
{
	struct port_pair_6 pair = { .host = htons(port->host),
		.container = htons(port->container) };

	network_address_6(lease->network, lease->place.address, pair.address);
	return pair;
}

static struct nft_element port_element_6(const struct port_pair_6 *pair)
{
	return (struct nft_element){ .set = "ports6",
		.key = &pair->host,
		.key_bytes = sizeof(pair->host),
		.data = (const char *)pair + sizeof(pair->host),
		.data_bytes = sizeof(*pair) - sizeof(pair->host) };
}

struct port_pair {
	uint16_t host; /* network order, all of them */
	uint32_t address;
	uint16_t container, padding;
} __attribute__((packed));

static struct port_pair port_pair(const struct lease *lease, const struct net_port *port)
{
	return (struct port_pair){ .host = htons(port->host),
		.address = htonl(lease->place.address),
		.container = htons(port->container) };
}

static struct nft_element port_element(const struct port_pair *pair)
{
	return (struct nft_element){ .set = "ports4",
		.key = &pair->host,
		.key_bytes = sizeof(pair->host),
		.data = (const char *)pair + sizeof(pair->host),
		.data_bytes = sizeof(*pair) - sizeof(pair->host) };
}

struct bridge_key {
	char in[LINK_NAME_SIZE], out[LINK_NAME_SIZE];
};

static struct nft_element bridge_element(const struct lease *lease, struct bridge_key *key)
{
	memcpy(key->in, lease->source_link, sizeof(key->in));
	memcpy(key->out, lease->source_link, sizeof(key->out));
	return (struct nft_element){ .set = "bridges", .key = key, .key_bytes = sizeof(*key) };
}

/* ---- rules ----------------------------------------------------------------------------------- */

struct rule_chain {
	char name[32];
	uint32_t address; /* network order */
	uint8_t address_6[16];
};

static struct rule_chain rule_chain(const struct lease *lease)
{
	struct rule_chain chain = { .address = htonl(lease->place.address) };

	snprintf(chain.name, sizeof(chain.name), "rules-%08x", lease->place.address);
	network_address_6(lease->network, lease->place.address, chain.address_6);
	return chain;
}

static struct nft_element chain_element(const struct rule_chain *chain)
{
	return (struct nft_element){ .set = "rules4",
		.key = &chain->address,
		.key_bytes = sizeof(chain->address),
		.jump = chain->name };
}

static struct nft_element chain_element_6(const struct rule_chain *chain)
{
	return (struct nft_element){ .set = "rules6",
		.key = chain->address_6,
		.key_bytes = sizeof(chain->address_6),
		.jump = chain->name };
}

static uint8_t protocol_of(enum net_protocol protocol, int family)
{
	switch (protocol) {
	case NET_TCP:
		return IPPROTO_TCP;
	case NET_UDP:
		return IPPROTO_UDP;
	case NET_ICMP:
		return family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	case NET_ALL:
	case N_NET_PROTOCOLS:
		break;
	}
	return 0;
}

/* One network (NULL: all of the family but what is reserved) and one range of ports (NULL: all). */
static void put_part(struct lease *lease, struct nft_batch *batch, const struct net_rule *rule,
	int family, const struct net_range *range, const struct net_port_range *ports)
{
	struct rule_chain chain = rule_chain(lease);
	struct nft_range network;
	struct nft_rule part = { .chain = chain.name,
		.comment = lease->id,
		.family = family,
		.except_set = family == AF_INET ? "reserved4" : "reserved6",
		.protocol = protocol_of(rule->protocol, family),
		.has_icmp_type = rule->protocol == NET_ICMP && rule->has_type,
		.has_icmp_code = rule->protocol == NET_ICMP && rule->has_code,
		.icmp_type = rule->type,
		.icmp_code = rule->code,
		.log_prefix = rule->log ? "cloche " : NULL };

	if (range) {
		memcpy(network.first, range->first, sizeof(network.first));
		memcpy(network.last, range->last, sizeof(network.last));
		part.network = &network;
	}
	if (ports) {
		part.has_ports = true;
		part.first_port = ports->first;
		part.last_port = ports->last;
	}
	nft_insert_rule(&lease->network->nft, batch, &part);
}

static size_t n_parts(const struct net_rule *rule)
{
	/* without networks: one for each family */
	return (rule->n_networks ? rule->n_networks : 2) * (rule->n_ports ? rule->n_ports : 1);
}

static void put_rule(struct lease *lease, struct nft_batch *batch, const struct net_rule *rule)
{
	static const int families[] = { AF_INET, AF_INET6 };
	size_t n_ports = rule->n_ports ? rule->n_ports : 1;

	for (size_t i = 0; i < n_parts(rule); i++) {
		const struct net_port_range *ports =
			rule->n_ports ? &rule->ports[i % n_ports] : NULL;
		const struct net_range *range =
			rule->n_networks ? &rule->networks[i / n_ports] : NULL;

		put_part(lease, batch, rule, range ? range->family : families[i / n_ports], range,
			ports);
	}
}

/* From the n-th on; with the first goes the chain. */
static void put_rules(struct lease *lease, struct nft_batch *batch, size_t n)
{
	struct rule_chain chain = rule_chain(lease);
	struct nft_element jump = chain_element(&chain), jump_6 = chain_element_6(&chain);

	if (n == lease->n_rules)
		return;
	lease->has_chain = true;
	if (n == 0)
		nft_put_chain(&lease->network->nft, batch, chain.name);
	for (size_t i = n; i < lease->n_rules; i++)
		put_rule(lease, batch, &lease->rules[i]);
	if (n == 0) {
		nft_put_element(&lease->network->nft, batch, &jump);
		nft_put_element(&lease->network->nft, batch, &jump_6);
	}
}

/* Room for rules from the n-th on and for every element. 0: too many parts. */
static size_t batch_bytes(const struct lease *lease, size_t n)
{
	size_t total = 0;

	for (size_t i = 0; i < lease->n_rules; i++)
		total += n_parts(&lease->rules[i]);
	if (total > MAX_RULE_PARTS)
		return 0;
	for (size_t i = total = 0; n + i < lease->n_rules; i++)
		total += n_parts(&lease->rules[n + i]);
	return total * RULE_BYTES + (2 * lease->n_ports + MAX_MARKS + 8) * ELEMENT_BYTES;
}

/* ---- coming and going ------------------------------------------------------------------------ */

static int explain(struct lease *lease, int r, struct err *err)
{
	return r < 0 ? err_system(err, r, "table inet %s", lease->network->table) : 0;
}

static void put_port(struct lease *lease, struct nft_batch *batch, const struct net_port *port)
{
	struct port_pair pair = port_pair(lease, port);
	struct port_pair_6 pair_6 = port_pair_6(lease, port);
	struct nft_element element = port_element(&pair), element_6 = port_element_6(&pair_6);

	nft_put_element(&lease->network->nft, batch, &element);
	if (lease->network->config->v6)
		nft_put_element(&lease->network->nft, batch, &element_6);
}

static int try_admit(struct lease *lease)
{
	struct nft *nft = &lease->network->nft;
	size_t size = batch_bytes(lease, 0);
	AUTO_FREE void *space = size ? malloc(size) : NULL;
	struct nft_element element;
	struct bridge_key key;
	struct nft_batch batch;
	struct marks marks;

	if (!space)
		return size ? -ENOMEM : -E2BIG;
	nft_begin(nft, &batch, space, size);
	mark(lease, &marks);
	for (size_t i = 0; i < marks.n; i++)
		nft_put_element(nft, &batch, &marks.elements[i]);
	for (size_t i = 0; i < lease->n_ports; i++)
		put_port(lease, &batch, &lease->ports[i]);
	if (lease->bridge) {
		element = bridge_element(lease, &key);
		nft_put_element(nft, &batch, &element);
	}
	put_rules(lease, &batch, 0);
	return nft_commit(nft, &batch);
}

int network_rules_admit(struct lease *lease, struct err *err)
{
	int r = try_admit(lease);

	if (r == -ENOENT) { /* somebody has flushed our table: it is made anew, with us in it */
		lease->is_admitted = true;
		r = network_repair(lease->network, err);
		if (r < 0)
			lease->is_admitted = false;
		return r;
	}
	if (r == 0)
		lease->is_admitted = true;
	return explain(lease, r, err);
}

/* What is gone already does not matter. */
static void delete_element(struct lease *lease, const struct nft_element *element)
{
	unsigned char space[ELEMENT_BYTES + 256] __attribute__((aligned(8)));
	struct nft *nft = &lease->network->nft;
	struct nft_batch batch;
	int r;

	nft_begin(nft, &batch, space, sizeof(space));
	nft_delete_element(nft, &batch, element);
	r = nft_commit(nft, &batch);
	if (r < 0 && r != -ENOENT)
		LOG(LOG_WARN, "element-not-withdrawn", KV_STR("set", element->set),
			KV_INT("errno", -r));
}

static void delete_rules(struct lease *lease)
{
	unsigned char space[2048] __attribute__((aligned(8)));
	struct rule_chain chain = rule_chain(lease);
	struct nft_element jump = chain_element(&chain), jump_6 = chain_element_6(&chain);
	struct nft *nft = &lease->network->nft;
	struct nft_batch batch;
	int r;

	nft_begin(nft, &batch, space, sizeof(space));
	nft_delete_element(nft, &batch, &jump);
	nft_delete_element(nft, &batch, &jump_6);
	nft_delete_chain(nft, &batch, chain.name);
	r = nft_commit(nft, &batch);
	if (r < 0 && r != -ENOENT)
		LOG(LOG_WARN, "rules-not-withdrawn", KV_STR("chain", chain.name),
			KV_INT("errno", -r));
}

/* All in one batch: what nearly always is there costs one commit. */
static void delete_marks(struct lease *lease)
{
	unsigned char space[MAX_MARKS * ELEMENT_BYTES + 256] __attribute__((aligned(8)));
	struct nft *nft = &lease->network->nft;
	struct nft_batch batch;
	struct marks marks;

	mark(lease, &marks);
	nft_begin(nft, &batch, space, sizeof(space));
	for (size_t i = 0; i < marks.n; i++)
		nft_delete_element(nft, &batch, &marks.elements[i]);
	if (nft_commit(nft, &batch) == 0)
		return;
	for (size_t i = 0; i < marks.n; i++)
		delete_element(lease, &marks.elements[i]);
}

void network_rules_withdraw(struct lease *lease)
{
	bool v6 = lease->network->config->v6;
	struct nft_element element;

	delete_marks(lease);
	for (size_t i = 0; i < lease->n_ports; i++) {
		struct port_pair pair = port_pair(lease, &lease->ports[i]);
		struct port_pair_6 pair_6 = port_pair_6(lease, &lease->ports[i]);

		element = port_element(&pair);
		delete_element(lease, &element);
		element = port_element_6(&pair_6);
		if (v6)
			delete_element(lease, &element);
	}
	if (lease->has_chain)
		delete_rules(lease);
	lease->is_admitted = lease->has_chain = false;
}

void network_rules_close_bridge(struct lease *lease)
{
	struct bridge_key key;
	struct nft_element element = bridge_element(lease, &key);

	delete_element(lease, &element);
}

int network_rules_open_port(struct lease *lease, const struct net_port *port, struct err *err)
{
	unsigned char space[2 * ELEMENT_BYTES + 256] __attribute__((aligned(8)));
	struct nft *nft = &lease->network->nft;
	struct nft_batch batch;
	int r;

	nft_begin(nft, &batch, space, sizeof(space));
	put_port(lease, &batch, port);
	r = nft_commit(nft, &batch);
	if (r == -ENOENT)
		return network_repair(lease->network, err);
	return explain(lease, r, err);
}

int network_rules_put(struct lease *lease, size_t n)
{
	struct nft *nft = &lease->network->nft;
	size_t size = batch_bytes(lease, n);
	AUTO_FREE void *space = size ? malloc(size) : NULL;
	struct nft_batch batch;

	if (!space)
		return size ? -ENOMEM : -E2BIG;
	nft_begin(nft, &batch, space, size);
	put_rules(lease, &batch, n);
	return nft_commit(nft, &batch);
}

int network_rules_open(struct lease *lease, size_t n, struct err *err)
{
	int r = network_rules_put(lease, n);

	if (r == -ENOENT)
		return network_repair(lease->network, err);
	if (r == -E2BIG)
		return err_set(err, ERR_INVALID, E2BIG, "rules: more than %d networks times ports",
			MAX_RULE_PARTS);
	return explain(lease, r, err);
}

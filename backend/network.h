/* network.h - the network of containers: addresses, links, rules, ports. A container holds a lease,
 * recorded under its id before there is anything of it. The default container has a veth pair of
 * its own: the host's end carries the gateway's address of a /30; nobody else is on that wire. A
 * subnet that requests name has a bridge. Where the kernel lacks something, network_missing says
 * what, and containers have a loopback only. Threads: any; one lock inside. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"
#include "netpool.h"

struct buf;
struct db;
struct err;
struct lease;
struct network;

struct network_config {
	const char *pool; /* "10.254.0.0/16" */
	const char *tag; /* up to 2 of [a-z0-9]: names of links and of the table; "": none */
	const char *external_ip; /* "": that of the link of the default route */
	const struct strv *denied, *restricted; /* see network_table.h */
	const struct strv *dns_servers, *additional_dns, *hosts;
	uint64_t mtu; /* 0: that of the link of the default route, at most 1500 */
	uint64_t first_pool_port, n_pool_ports; /* what NetIn takes host ports from */
	uint16_t own_ports[4];
	size_t n_own_ports;
	bool host_access, hermetic_without_netout;
	bool v6, v6_masquerade;
	const char *v6_pool; /* "fd9c:31a6:c759::/64": its last 32 bits are the IPv4 address */
};

/* Checks the options (-EINVAL names the one) and what the kernel offers. self_exe_fd: the running
 * program, for its helper "cloche nft". config and db are borrowed for the network's life. */
int network_open(const struct network_config *config, struct db *db, const char *instance,
	int self_exe_fd, struct network **ret_network, struct err *err);
/* Once the containers of the last run hold their leases again: what nobody holds is removed, the
 * table is made, and from now on watched. A thread does that, and nobody waits but who calls what follows. */
void network_start(struct network *network, bool (*is_known)(const char *id, void *arg), void *arg);
void network_close(struct network *network); /* NULL is allowed; containers keep their network */
void network_watch_stop(
	struct network *network); /* its thread has ended: nothing is put back any more */

/* Why containers have a loopback only, or NULL. */
const char *network_missing(struct network *network);
uint32_t network_capacity(const struct network *network); /* subnets of the pool */

/* Takes and records an address for the id. wanted: see netpool_take. *ret_lease is NULL if there is
 * no network and none is asked for. */
int network_reserve(struct network *network, const char *id, const char *wanted,
	struct lease **ret_lease, struct err *err);
/* Those that the last run recorded, all of them: slot says where a container's goes, NULL: it is not wanted. Each holds
 * what it names from network_adopt on. Before network_start, when there is one thread: they take no lock, for the
 * caller may hold the database's. */
int network_load(struct network *network, struct lease **(*slot)(const char *id, void *arg),
	void *arg, struct err *err);
int network_adopt(struct lease *lease, struct err *err);
/* Before its link is made: from now on its packets pass. */
int network_admit(struct lease *lease, struct err *err);
struct net_port;
struct net_rule;
/* Recorded at once, in force at once or with network_admit. A port: see net_rule.h; *ret_port is what
 * was taken. Rules: all or none; later ones stand in front. */
int network_in(struct lease *lease, const struct net_port *wanted, struct net_port *ret_port,
	struct err *err);
int network_out(struct lease *lease, const struct net_rule *rules, size_t n_rules, struct err *err);
/* Once its link is there: what came over the host's loopback is answered, too. */
void network_link_made(struct lease *lease);

/* As soon as its link is there: each direction gets so many bytes a second. burst_bytes 0: some. */
int network_limit(struct lease *lease, uint64_t rate_bytes, uint64_t burst_bytes, struct err *err);
/* What the container has received and sent. 0 or -errno. */
int network_traffic(const struct lease *lease, uint64_t *ret_rx_bytes, uint64_t *ret_tx_bytes);

/* Ends it: rules, record, address. The link goes with the container's namespace. Idempotent by the
 * record; a lease that is released is freed. */
int network_release(struct lease *lease, struct err *err);
/* Only memory: the container lives on. NULL is allowed. */
void network_forget(struct lease *lease);

/* What the plan needs of a lease; valid as long as it is held. */
struct network_link {
	const char *name; /* of the host's end */
	char address[20], gateway[16]; /* "10.254.0.2/30", "10.254.0.1" */
	char host_address[20]; /* "10.254.0.1/30"; "" for a port of a bridge */
	char address_6[52], gateway_6[46], host_address_6[52]; /* "": IPv6 is off */
	char mac[18]; /* of the container's end at a bridge; "": whatever it has */
	uint32_t mtu, group, bridge;
};
void network_describe(const struct lease *lease, struct network_link *ret_link);

/* Borrowed: valid as long as the lease is not changed. */
const struct net_port *network_ports(const struct lease *lease, size_t *ret_n);

struct network_facts {
	char container_ip[16], host_ip[16], external_ip[46], container_ip_6[46];
};
void network_facts(
	const struct network *network, const struct lease *lease, struct network_facts *ret_facts);

/* Contents of /etc/hosts and /etc/resolv.conf; lease NULL: loopback only. */
void network_hosts(const struct network *network, const struct lease *lease, const char *hostname,
	struct buf *text);
void network_resolvers(struct network *network, const struct lease *lease, struct buf *text);

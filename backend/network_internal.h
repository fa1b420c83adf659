/* network_internal.h - the network's own state, for its files. */
#pragma once
#include <pthread.h>
#include <sys/queue.h>

#include "idpool.h"
#include "linux/nft.h"
#include "net_rule.h"
#include "network.h"
#include "network_table.h"

#define LINK_NAME_SIZE 16

struct lease {
	LIST_ENTRY(lease) entry;
	struct network *network;
	char id[17];
	struct net_place place;
	char link[LINK_NAME_SIZE]; /* the host's end of the veth pair */
	char source_link[LINK_NAME_SIZE]; /* where its packets come in: link, or the bridge */
	char ifb[LINK_NAME_SIZE]; /* of one whose traffic is limited: where what it sends waits */
	uint32_t bridge; /* ifindex; 0: none */
	bool is_admitted;
	bool is_damaged; /* its record is */
	bool has_chain; /* a chain of rules was asked for, and may be there */
	struct net_port *ports; /* in the order of their NetIn */
	size_t n_ports;
	struct net_rule *rules; /* later ones stand in front */
	size_t n_rules;
};

/* An address that was given back, see network_connections.c. */
struct stale {
	uint32_t address;
	bool has_ports, is_being_swept;
};

struct network {
	const struct network_config *config;
	struct db *db;
	int self_exe_fd;
	uint32_t group; /* marks our links: the instance as a number */
	char table[16], links[6], owner[24];
	char missing[300]; /* "": nothing */
	char external_ip[46];
	uint32_t mtu;
	uint8_t v6_prefix[16];
	struct network_policy policy;

	pthread_mutex_t lock; /* guards the rest, and missing; see network_lock */
	pthread_cond_t started;
	bool is_starting;
	struct netpool pool;
	struct idpool port_pool; /* of numbers above first_pool_port */
	LIST_HEAD(, lease) leases;
	struct nft nft;
	unsigned n_repairs;
	struct strv resolvers; /* those that containers are told */
	struct stale *stale;
	size_t n_stale;
	bool is_conntrack_told; /* that it is lacking */
	uint32_t helper; /* port of the last helper's socket; atomic, the watcher reads it */

	int claim_fd; /* says that the server of this tag lives */
	int watch_fd, wake_fd;
	pthread_t watcher;
	bool is_watching, is_ending; /* is_ending: atomic */
};

/* network.c: the IPv6 address that belongs to an IPv4 one of our subnets. */
void network_address_6(const struct network *network, uint32_t address, uint8_t ret_address[16]);

/* network_facts.c: the hardware address of a container at a bridge, which is not to take another one's. */
void network_mac(const struct lease *lease, uint8_t ret_mac[6]);

/* network.c: takes the lock, once there is a table. */
void network_lock(struct network *network);
int network_forget_record(struct network *network, const char *id, struct err *err);

/* network_files.c: what the host's configuration says of them now. Lock held. */
void network_learn_resolvers(struct network *network);

/* network_repair.c; the lock is held. Makes the table anew with everything that is in it. */
int network_repair(struct network *network, struct err *err);

/* network_rules.c; the lock is held. */
int network_rules_admit(struct lease *lease, struct err *err);
void network_rules_withdraw(struct lease *lease);
/* The last container of its bridge is gone. */
void network_rules_close_bridge(struct lease *lease);
int network_rules_open_port(struct lease *lease, const struct net_port *port, struct err *err);
/* The lease's rules from the n-th on. */
int network_rules_open(struct lease *lease, size_t n, struct err *err);
int network_rules_put(struct lease *lease, size_t n); /* 0 or -errno */

/* network_ports.c */
int network_ports_open(struct network *network, struct err *err);
/* For network_load: ports and rules of the leases that are there. */
struct lease_finder {
	struct network *network;
	struct lease **(*slot)(const char *id, void *arg);
	void *arg;
};
int network_ports_load(struct lease_finder *finder, struct err *err);
void network_ports_mark(struct lease *lease); /* those of the pool are taken */
void network_port_give(struct network *network, uint16_t port); /* lock held */

/* network_rate.c: what network_limit has made beside the link. */
void network_unlimit(const struct lease *lease);

/* network_watch.c */
int network_watch_start(struct network *network);
void network_watch_wake(struct network *network);

/* network_connections.c; the lock is held, but for the last two, which the watcher calls. */
void network_connections_clear(struct network *network); /* now, of all that nobody holds */
void network_connections_leave(struct network *network, const struct lease *lease);
void network_connections_take(struct network *network, uint32_t address);
void network_connections_take_port(struct network *network);
void network_connections_sweep(struct network *network);
bool network_connections_are_stale(struct network *network);

/* network_setup.c: facts of this host; what it must let us do, by trying. */
int network_setup(struct network *network, struct err *err);
int network_try(struct network *network, struct err *err);

/* network_start.c, in the watcher: from no table to a whole one. 0 or -errno: there is no network. */
int network_begin(struct network *network);

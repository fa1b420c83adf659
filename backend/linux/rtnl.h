/* rtnl.h - links, addresses and routes over rtnetlink(7). Each call opens a socket in the network
 * namespace that the caller is in, and closes it. 0 or -errno; no text, no heap: safe between clone
 * and exec. Addresses are in network byte order as inet_pton(3) gives them. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct rtnl_veth {
	const char *name; /* of our end */
	const char *peer_name;
	int peer_netns_fd; /* where the other end is made */
	uint32_t mtu, group; /* group: IFLA_GROUP of our end, see rtnl_each_link */
	uint32_t bridge; /* ifindex that our end becomes a port of; 0: none */
	bool v6; /* else our end gets no link-local address when it comes up */
};
/* Both ends are down. */
int rtnl_make_veth(const struct rtnl_veth *veth);
int rtnl_set_up(const char *link);
int rtnl_set_mac(const char *link, const uint8_t mac[6]);
/* With a hardware address that stays: one that follows its ports changes under their neighbours. Down, and
 * without v6 as above. */
struct rtnl_bridge {
	const char *name;
	uint8_t mac[6];
	uint32_t mtu, group;
	bool v6;
};
int rtnl_make_bridge(const struct rtnl_bridge *bridge, uint32_t *ret_index);
/* One that sends back what it is sent (tc.h), up, without addresses. */
int rtnl_make_ifb(const char *name, uint32_t group, uint32_t mtu, uint32_t *ret_index);
/* -ENODEV if there is none of that name: after the kernel has tried to load a module of that name. */
int rtnl_link_index(const char *name, uint32_t *ret_index);
/* The same, by way of its settings, where there is likely none: waits for nothing. */
int rtnl_find_link(const char *name, uint32_t *ret_index);
int rtnl_delete_link(uint32_t index);
/* An address with its connected route, and the link up; family AF_INET or AF_INET6 (without duplicate detection:
 * nobody else can have it). */
int rtnl_add_address(const char *link, int family, const void *address, unsigned prefix);
int rtnl_add_default_route(int family, const void *gateway);

struct rtnl_link {
	const char *name;
	uint32_t index, group, mtu;
};
/* The one of that name; -ENODEV. */
struct rtnl_facts {
	uint32_t index, group, mtu;
	bool is_loopback;
	uint64_t rx_bytes, tx_bytes;
};
int rtnl_look(const char *name, struct rtnl_facts *ret_facts);
/* Of this namespace, until visit returns other than 0, which is returned. */
int rtnl_each_link(int (*visit)(const struct rtnl_link *link, void *arg), void *arg);

/* IPv4 addresses of this namespace, as rtnl_each_link. */
int rtnl_each_address(int (*visit)(uint32_t index, const void *address, void *arg), void *arg);

/* The link of the default route (the one with the lowest metric): -ENOENT if there is none. */
int rtnl_uplink(int family, uint32_t *ret_index);

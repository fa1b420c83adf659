/* What the network finds and needs on this host, once at start. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "linux/rtnl.h"
#include "linux/sys.h"
#include "network_internal.h"

#define MAX_MTU 1500u
#define FORWARD "/proc/sys/net/ipv4/ip_forward"
#define FORWARD_6 "/proc/sys/net/ipv6/conf/all/forwarding"

/* The one setting of the host that is changed (and its like for IPv6): without it nothing leaves a
 * container. */
static int enable_forwarding(const char *path, struct err *err)
{
	char value[8] = "";
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0 || read(fd, value, sizeof(value) - 1) < 0)
		return err_system(err, -errno, "%s", path);
	if (value[0] != '0')
		return 0;
	r = sys_write_file(AT_FDCWD, path, "1");
	if (r < 0)
		return err_system(err, r, "%s is 0 and cannot be set", path);
	LOG(LOG_INFO, "forwarding-enabled", KV_STR("sysctl", path));
	return 0;
}

/* Facts of a link by its number. */
static int look_at(uint32_t index, char name[IF_NAMESIZE], struct rtnl_facts *ret_facts)
{
	return if_indextoname(index, name) ? rtnl_look(name, ret_facts) : -ENODEV;
}

struct address_search {
	struct network *network;
	uint32_t index; /* of the link that it must belong to; 0: any but the loopback and ours */
};

static int take_address(uint32_t index, const void *address, void *arg)
{
	const struct address_search *search = arg;
	struct network *network = search->network;
	char name[IF_NAMESIZE];
	struct rtnl_facts facts;

	if (search->index && index != search->index)
		return 0;
	if (!if_indextoname(index, name) ||
		!strncmp(name, network->links, strlen(network->links)) ||
		rtnl_look(name, &facts) < 0 || facts.is_loopback)
		return 0;
	inet_ntop(AF_INET, address, network->external_ip, sizeof(network->external_ip));
	return 1;
}

/* Nothing here grows with the number of links but a list of their addresses. */
static void learn_uplink(struct network *network)
{
	const struct network_config *config = network->config;
	struct address_search search = { .network = network };
	struct rtnl_facts uplink = { .mtu = MAX_MTU };
	char name[IF_NAMESIZE];

	if (rtnl_uplink(AF_INET, &search.index) == 0)
		look_at(search.index, name, &uplink);
	network->mtu = config->mtu                   ? (uint32_t)config->mtu
		: uplink.mtu < MAX_MTU && uplink.mtu ? uplink.mtu
						     : MAX_MTU;
	snprintf(network->external_ip, sizeof(network->external_ip), "%s",
		*config->external_ip ? config->external_ip : "127.0.0.1");
	if (!*config->external_ip)
		rtnl_each_address(take_address, &search);
}

/* A pair is made and taken away again: rights and modules show in no other way. */
static int try_veth(const struct network *network, struct err *err)
{
	char name[LINK_NAME_SIZE], peer[LINK_NAME_SIZE];
	AUTO_FD int netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	uint32_t index;
	int r;

	if (netns_fd < 0)
		return err_system(err, -errno, "network namespace");
	snprintf(name, sizeof(name), "%strial", network->links);
	snprintf(peer, sizeof(peer), "%strial2", network->links);
	if (rtnl_find_link(name, &index) == 0) /* of a trial that was broken off */
		rtnl_delete_link(index);
	r = rtnl_make_veth(&(struct rtnl_veth){ .name = name,
		.peer_name = peer,
		.peer_netns_fd = netns_fd,
		.mtu = MAX_MTU,
		.group = network->group });
	if (r < 0)
		return err_system(err, r, "veth pairs cannot be made");
	r = rtnl_link_index(name, &index);
	if (r == 0)
		r = rtnl_delete_link(index);
	return r < 0 ? err_system(err, r, "link %s", name) : 0;
}

/* The table is not another server's. */
static int check_owner(const char *chain, void *arg)
{
	const struct network *network = arg;

	return !strncmp(chain, "instance-", 9) && strcmp(chain, network->owner) != 0 ? -EEXIST : 0;
}

/* Only the operator can open it: one table cannot let through what another drops. */
static void look_at_firewall(const struct network *network)
{
	char table[64], what[160];

	if (nft_find_closed_forward(table) < 0)
		return;
	snprintf(what, sizeof(what),
		"accept what comes from and goes to interfaces %s* there (iptables: -I FORWARD -i %s+, -o %s+)",
		network->links, network->links, network->links);
	LOG(LOG_WARN, "firewall-drops-forwarded", KV_STR("table", table), KV_STR("to-do", what));
}

/* Another's table is left alone while its server lives; what a dead one left, whose work directory is gone,
 * is ours to replace. */
static int own_table(struct network *network, struct err *err)
{
	int r = nft_each_chain(&network->nft, check_owner, network);

	if (r < 0 && r != -ENOENT && r != -EEXIST)
		return err_system(err, r, "nf_tables");
	network->claim_fd = nft_claim(network->table);
	/* ours of before may not be gone entirely yet */
	for (int tries = 0; network->claim_fd == -EADDRINUSE && r != -EEXIST && tries < 50;
		tries++) {
		usleep(20000);
		network->claim_fd = nft_claim(network->table);
	}
	/* taken while there is no table: another server has started, too, and will make it */
	if (r != -EEXIST && network->claim_fd != -EADDRINUSE)
		return 0;
	if (network->claim_fd < 0)
		return err_set(err, ERR_BUSY, EEXIST,
			"table inet %s belongs to another cloche: give this one a --network-tag",
			network->table);
	LOG(LOG_WARN, "table-taken-over", KV_STR("table", network->table),
		KV_STR("reason", "its server is gone"));
	return 0;
}

int network_setup(struct network *network, struct err *err)
{
	int r = nft_open(&network->nft, network->table);

	if (r < 0)
		return err_system(err, r, "nf_tables");
	r = own_table(network, err);
	if (r < 0)
		return r;
	learn_uplink(network);
	look_at_firewall(network);
	return 0;
}

int network_try(struct network *network, struct err *err)
{
	int r = try_veth(network, err);

	if (r == 0)
		r = enable_forwarding(FORWARD, err);
	return r == 0 && network->config->v6 ? enable_forwarding(FORWARD_6, err) : r;
}

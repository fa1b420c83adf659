/* What others need to know of a lease: names and addresses for its plan, facts, traffic. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "linux/sys.h"
#include "network_internal.h"

static void write_address(char text[16], uint32_t address)
{
	snprintf(text, 16, "%u.%u.%u.%u", address >> 24, address >> 16 & 255, address >> 8 & 255,
		address & 255);
}

static void write_address_6(const struct network *network, uint32_t address, char text[46])
{
	uint8_t bytes[16];

	network_address_6(network, address, bytes);
	inet_ntop(AF_INET6, bytes, text, 46);
}

void network_mac(const struct lease *lease, uint8_t ret_mac[6])
{
	uint32_t address = htonl(lease->place.address);

	ret_mac[0] = 0x02; /* locally administered */
	ret_mac[1] = 0x64;
	memcpy(ret_mac + 2, &address, sizeof(address));
}

static void describe_6(const struct lease *lease, struct network_link *link)
{
	const struct net_place *place = &lease->place;
	char address[46];

	write_address_6(lease->network, place->gateway, link->gateway_6);
	write_address_6(lease->network, place->address, address);
	snprintf(link->address_6, sizeof(link->address_6), "%s/%u", address, 96 + place->prefix);
	if (!lease->bridge)
		snprintf(link->host_address_6, sizeof(link->host_address_6), "%s/%u",
			link->gateway_6, 96 + place->prefix);
}

void network_describe(const struct lease *lease, struct network_link *ret_link)
{
	const struct network *network = lease->network;
	const struct net_place *place = &lease->place;
	char address[16];
	uint8_t mac[6];

	*ret_link = (struct network_link){ .name = lease->link,
		.mtu = network->mtu,
		.group = network->group,
		.bridge = lease->bridge };
	if (lease->bridge) {
		network_mac(lease, mac);
		snprintf(ret_link->mac, sizeof(ret_link->mac), "%02x:%02x:%02x:%02x:%02x:%02x",
			mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	}
	write_address(ret_link->gateway, place->gateway);
	write_address(address, place->address);
	snprintf(ret_link->address, sizeof(ret_link->address), "%s/%u", address, place->prefix);
	if (!lease->bridge)
		snprintf(ret_link->host_address, sizeof(ret_link->host_address), "%s/%u",
			ret_link->gateway, place->prefix);
	if (network->config->v6)
		describe_6(lease, ret_link);
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
	if (network->config->v6)
		write_address_6(network, lease->place.address, ret_facts->container_ip_6);
}

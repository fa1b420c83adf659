/* The network link of the floor's containers. The kernel takes it away with its namespace. */
#include "floor.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

#include "linux/rtnl.h"

static uint32_t address_of(int n, int host)
{
	return htonl(0x0afc0000u + (uint32_t)(n % 8192) * 4 +
		(uint32_t)host); /* a /30 of 10.252.0.0/15 */
}

void link_make(int n, int netns_fd)
{
	char name[16];
	uint32_t address = address_of(n, 1);

	snprintf(
		name, sizeof(name), "fl%x-%x", (unsigned)getppid() & 0xfff, (unsigned)n & 0xffffff);
	must(rtnl_make_veth(&(struct rtnl_veth){
		     .name = name, .peer_name = "eth0", .peer_netns_fd = netns_fd, .mtu = 1500 }),
		"veth");
	must(rtnl_add_address(name, AF_INET, &address, 30), "address");
}

void link_set_up_inside(int n)
{
	uint32_t gateway = address_of(n, 1), address = address_of(n, 2);

	must(rtnl_add_address("eth0", AF_INET, &address, 30), "address in the container");
	must(rtnl_add_default_route(AF_INET, &gateway), "route");
}

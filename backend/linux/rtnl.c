#include "linux/rtnl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/nl.h"

#define MAKE (NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)

static int talk(struct nl *nl)
{
	AUTO_FD int fd = nl_open(NETLINK_ROUTE);

	return fd < 0 ? fd : nl_talk(fd, nl, NULL);
}

static const struct ifinfomsg up = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP }, down;

/* One must be told before the link comes up; a kernel without IPv6 has nothing to be told. */
static int forgo_link_local(const char *link)
{
	unsigned char space[128] __attribute__((aligned(8)));
	uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
	size_t families, family;
	struct nl nl;
	int r;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWLINK, NLM_F_ACK, &down, sizeof(down));
	nl_put_text(&nl, IFLA_IFNAME, link);
	families = nl_nest(&nl, IFLA_AF_SPEC);
	family = nl_nest(&nl, AF_INET6);
	nl_put(&nl, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
	nl_end(&nl, family);
	nl_end(&nl, families);
	r = talk(&nl);
	return r == -EAFNOSUPPORT ? 0 : r;
}

int rtnl_make_veth(const struct rtnl_veth *veth)
{
	unsigned char space[1024] __attribute__((aligned(8)));
	size_t info, data, peer;
	struct nl nl;
	int r;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWLINK, MAKE, &down, sizeof(down));
	nl_put_text(&nl, IFLA_IFNAME, veth->name);
	nl_put_u32(&nl, IFLA_MTU, veth->mtu);
	nl_put_u32(&nl, IFLA_GROUP, veth->group);
	if (veth->bridge)
		nl_put_u32(&nl, IFLA_MASTER, veth->bridge);
	info = nl_nest(&nl, IFLA_LINKINFO);
	nl_put_text(&nl, IFLA_INFO_KIND, "veth");
	data = nl_nest(&nl, IFLA_INFO_DATA);
	peer = nl_nest(&nl, VETH_INFO_PEER);
	nl_add_payload(&nl, &down, sizeof(down)); /* cannot be up before it has a peer */
	nl_put_text(&nl, IFLA_IFNAME, veth->peer_name);
	nl_put_u32(&nl, IFLA_MTU, veth->mtu);
	nl_put_u32(&nl, IFLA_NET_NS_FD, (uint32_t)veth->peer_netns_fd);
	nl_end(&nl, peer);
	nl_end(&nl, data);
	nl_end(&nl, info);
	r = talk(&nl);
	return r < 0 || veth->v6 ? r : forgo_link_local(veth->name);
}

int rtnl_set_up(const char *link)
{
	unsigned char space[64] __attribute__((aligned(8)));
	struct nl nl;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWLINK, NLM_F_ACK, &up, sizeof(up));
	nl_put_text(&nl, IFLA_IFNAME, link);
	return talk(&nl);
}

int rtnl_set_mac(const char *link, const uint8_t mac[6])
{
	unsigned char space[64] __attribute__((aligned(8)));
	struct nl nl;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWLINK, NLM_F_ACK, &down, sizeof(down));
	nl_put_text(&nl, IFLA_IFNAME, link);
	nl_put(&nl, IFLA_ADDRESS, mac, 6);
	return talk(&nl);
}

/* mac: NULL for one of the kernel's choice. */
static int make_virtual(
	const char *kind, const char *name, const unsigned char *mac, uint32_t group, uint32_t mtu)
{
	unsigned char space[512] __attribute__((aligned(8)));
	struct nl nl;
	size_t info;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWLINK, MAKE, &down, sizeof(down));
	nl_put_text(&nl, IFLA_IFNAME, name);
	nl_put_u32(&nl, IFLA_MTU, mtu);
	if (mac)
		nl_put(&nl, IFLA_ADDRESS, mac, 6);
	nl_put_u32(&nl, IFLA_GROUP, group);
	info = nl_nest(&nl, IFLA_LINKINFO);
	nl_put_text(&nl, IFLA_INFO_KIND, kind);
	nl_end(&nl, info);
	return talk(&nl);
}

int rtnl_make_bridge(const struct rtnl_bridge *bridge, uint32_t *ret_index)
{
	int r = make_virtual("bridge", bridge->name, bridge->mac, bridge->group, bridge->mtu);

	if (r == 0 && !bridge->v6)
		r = forgo_link_local(bridge->name);
	return r < 0 ? r : rtnl_link_index(bridge->name, ret_index);
}

int rtnl_make_ifb(const char *name, uint32_t group, uint32_t mtu, uint32_t *ret_index)
{
	int r = make_virtual("ifb", name, NULL, group, mtu);

	if (r == 0)
		r = forgo_link_local(name);
	if (r == 0)
		r = rtnl_set_up(name);
	return r < 0 ? r : rtnl_link_index(name, ret_index);
}

/* SIOCGIFINDEX would have the kernel load a module for a name that is nobody's, and RTM_GETLINK waits
 * for the end of other namespaces. */
static bool has_settings(const char *link)
{
	static const char settings[] = "/proc/sys/net/ipv4/conf/";
	char path[sizeof(settings) + IFNAMSIZ];
	size_t n = strlen(link);

	if (n >= IFNAMSIZ)
		return false;
	memcpy(path, settings, sizeof(settings) - 1);
	memcpy(path + sizeof(settings) - 1, link, n + 1);
	return faccessat(AT_FDCWD, path, F_OK, 0) == 0;
}

int rtnl_link_index(const char *name, uint32_t *ret_index)
{
	AUTO_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_ifindex = 0 };

	if (fd < 0)
		return -errno;
	if (strlen(name) >= sizeof(request.ifr_name))
		return -ENAMETOOLONG;
	memcpy(request.ifr_name, name, strlen(name));
	if (ioctl(fd, SIOCGIFINDEX, &request) < 0)
		return -errno;
	*ret_index = (uint32_t)request.ifr_ifindex;
	return 0;
}

int rtnl_find_link(const char *name, uint32_t *ret_index)
{
	return has_settings(name) ? rtnl_link_index(name, ret_index) : -ENODEV;
}

int rtnl_delete_link(uint32_t index)
{
	unsigned char space[64] __attribute__((aligned(8)));
	struct ifinfomsg link = { .ifi_index = (int)index };
	struct nl nl;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_DELLINK, NLM_F_ACK, &link, sizeof(link));
	return talk(&nl);
}

int rtnl_add_address(const char *link, int family, const void *address, unsigned prefix)
{
	unsigned char space[256] __attribute__((aligned(8)));
	struct ifinfomsg link_up = up;
	struct ifaddrmsg head = { .ifa_family = (unsigned char)family,
		.ifa_prefixlen = (unsigned char)prefix,
		.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0 };
	size_t n_bytes = family == AF_INET6 ? 16 : 4;
	struct nl nl;
	int r = rtnl_link_index(link, &head.ifa_index);

	if (r < 0)
		return r;
	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWADDR, MAKE, &head, sizeof(head));
	nl_put(&nl, IFA_LOCAL, address, n_bytes);
	nl_put(&nl, IFA_ADDRESS, address, n_bytes);
	link_up.ifi_index = (int)head.ifa_index;
	nl_begin(&nl, RTM_NEWLINK, NLM_F_ACK, &link_up, sizeof(link_up));
	return talk(&nl);
}

int rtnl_add_default_route(int family, const void *gateway)
{
	unsigned char space[128] __attribute__((aligned(8)));
	struct rtmsg head = { .rtm_family = (unsigned char)family,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = RTPROT_BOOT,
		.rtm_scope = RT_SCOPE_UNIVERSE,
		.rtm_type = RTN_UNICAST };
	struct nl nl;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWROUTE, MAKE, &head, sizeof(head));
	nl_put(&nl, RTA_GATEWAY, gateway, family == AF_INET6 ? 16 : 4);
	return talk(&nl);
}

/* ---- what is there --------------------------------------------------------------------------- */

struct link_search {
	int (*visit)(const struct rtnl_link *link, void *arg);
	void *arg;
};

static uint32_t u32_of(const struct nlmsghdr *head, size_t n_payload, uint16_t type)
{
	size_t n_bytes;
	const void *data = nl_find(head, n_payload, type, &n_bytes);
	uint32_t value = 0;

	if (data && n_bytes == sizeof(value))
		memcpy(&value, data, sizeof(value));
	return value;
}

static int visit_link(const struct nlmsghdr *head, void *arg)
{
	const struct link_search *search = arg;
	const struct ifinfomsg *info = NLMSG_DATA(head);
	struct rtnl_link link = { .index = (uint32_t)info->ifi_index,
		.name = nl_find(head, sizeof(*info), IFLA_IFNAME, NULL),
		.group = u32_of(head, sizeof(*info), IFLA_GROUP),
		.mtu = u32_of(head, sizeof(*info), IFLA_MTU) };

	if (head->nlmsg_type != RTM_NEWLINK || !link.name)
		return 0;
	return search->visit(&link, search->arg);
}

/* Of links without their counters, which are the most of them; addresses have no such mask. */
static int dump(uint16_t type, const void *header, size_t n_bytes, nl_visit *visit, void *arg)
{
	unsigned char space[32768] __attribute__((aligned(8)));
	AUTO_FD int fd = nl_open(NETLINK_ROUTE);
	struct nl nl;

	if (fd < 0)
		return fd;
	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, type, NLM_F_DUMP, header, n_bytes);
	if (type == RTM_GETLINK)
		nl_put_u32(&nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return nl_dump(fd, &nl, space, sizeof(space), visit, arg);
}

int rtnl_each_link(int (*visit)(const struct rtnl_link *link, void *arg), void *arg)
{
	struct link_search search = { visit, arg };
	struct ifinfomsg all = { .ifi_family = AF_UNSPEC };

	return dump(RTM_GETLINK, &all, sizeof(all), visit_link, &search);
}

static int copy_facts(const struct nlmsghdr *head, void *arg)
{
	const struct ifinfomsg *info = NLMSG_DATA(head);
	struct rtnl_facts *facts = arg;
	struct rtnl_link_stats64 stats;
	size_t n_bytes;
	const void *data = nl_find(head, sizeof(*info), IFLA_STATS64, &n_bytes);

	if (head->nlmsg_type != RTM_NEWLINK || !data || n_bytes < sizeof(stats))
		return -EPROTO;
	memcpy(&stats, data, sizeof(stats));
	*facts = (struct rtnl_facts){ .index = (uint32_t)info->ifi_index,
		.group = u32_of(head, sizeof(*info), IFLA_GROUP),
		.mtu = u32_of(head, sizeof(*info), IFLA_MTU),
		.is_loopback = info->ifi_flags & IFF_LOOPBACK,
		.rx_bytes = stats.rx_bytes,
		.tx_bytes = stats.tx_bytes };
	return 1; /* there is no other */
}

int rtnl_look(const char *name, struct rtnl_facts *ret_facts)
{
	unsigned char space[16384] __attribute__((aligned(8)));
	AUTO_FD int fd = has_settings(name) ? nl_open(NETLINK_ROUTE) : -ENODEV;
	struct nl nl;

	if (fd < 0)
		return fd;
	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_GETLINK, 0, &down, sizeof(down));
	nl_put_text(&nl, IFLA_IFNAME, name);
	return nl_dump(fd, &nl, space, sizeof(space), copy_facts, ret_facts);
}

struct address_search {
	int (*visit)(uint32_t index, const void *address, void *arg);
	void *arg;
};

static int visit_address(const struct nlmsghdr *head, void *arg)
{
	const struct address_search *search = arg;
	const struct ifaddrmsg *info = NLMSG_DATA(head);
	size_t n_bytes;
	const void *data = nl_find(head, sizeof(*info), IFA_LOCAL, &n_bytes);

	if (head->nlmsg_type != RTM_NEWADDR || !data || n_bytes != 4)
		return 0;
	return search->visit(info->ifa_index, data, search->arg);
}

int rtnl_each_address(int (*visit)(uint32_t index, const void *address, void *arg), void *arg)
{
	struct address_search search = { visit, arg };
	struct ifaddrmsg all = { .ifa_family = AF_INET };

	return dump(RTM_GETADDR, &all, sizeof(all), visit_address, &search);
}

struct uplink {
	uint32_t index, metric;
};

static int visit_route(const struct nlmsghdr *head, void *arg)
{
	const struct rtmsg *route = NLMSG_DATA(head);
	struct uplink *best = arg;
	uint32_t index = u32_of(head, sizeof(*route), RTA_OIF);
	uint32_t metric = u32_of(head, sizeof(*route), RTA_PRIORITY);

	if (head->nlmsg_type != RTM_NEWROUTE || route->rtm_dst_len ||
		route->rtm_type != RTN_UNICAST || route->rtm_table != RT_TABLE_MAIN || !index)
		return 0;
	if (!best->index || metric < best->metric)
		*best = (struct uplink){ index, metric };
	return 0;
}

int rtnl_uplink(int family, uint32_t *ret_index)
{
	struct rtmsg all = { .rtm_family = (unsigned char)family };
	struct uplink best = { 0 };
	int r = dump(RTM_GETROUTE, &all, sizeof(all), visit_route, &best);

	if (r < 0)
		return r;
	*ret_index = best.index;
	return best.index ? 0 : -ENOENT;
}

/* Runs in a child of the shim: system calls only (tests/lint/child.allow). Links and addresses of a
 * container, made from the host's network namespace, or in the container's where the operation says
 * so. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "linux/rtnl.h"
#include "linux/sys.h"
#include "shim/builder_work.h"

int builder_sysctl(struct work *work, const struct op_wire *op)
{
	char path[256] = "sys/";
	size_t len = strlen(text(work, op->a));

	if (len >= sizeof(path) - 4)
		return -ENAMETOOLONG;
	memcpy(path + 4, text(work, op->a), len + 1);
	return sys_write_file(work->builder->proc_fd, path, text(work, op->b));
}

static unsigned parse_number(const char *digits)
{
	unsigned number = 0;

	for (; *digits >= '0' && *digits <= '9' && number < 100000; digits++)
		number = number * 10 + (unsigned)(*digits - '0');
	return number;
}

/* Nobody on the other side tells this host its routes. A kernel without IPv6 has no such file. */
static int refuse_routers(const struct work *work, const char *link)
{
	static const char before[] = "sys/net/ipv6/conf/", after[] = "/accept_ra";
	char path[sizeof(before) + sizeof(after) + IFNAMSIZ];
	size_t len = strlen(link);
	int r;

	if (len >= IFNAMSIZ)
		return -ENAMETOOLONG;
	memcpy(path, before, sizeof(before) - 1);
	memcpy(path + sizeof(before) - 1, link, len);
	memcpy(path + sizeof(before) - 1 + len, after, sizeof(after));
	r = sys_write_file(work->builder->proc_fd, path, "0");
	return r == -ENOENT ? 0 : r;
}

static unsigned hex_value(char digit)
{
	return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10) & 15;
}

int builder_veth(struct work *work, const struct op_wire *op)
{
	AUTO_FD int netns_fd = builder_open_init_proc(work, "ns/net", O_RDONLY);
	const char *name = text(work, op->a);
	int r;

	if (netns_fd < 0)
		return netns_fd;
	r = rtnl_make_veth(&(struct rtnl_veth){ .name = name,
		.peer_name = "eth0",
		.peer_netns_fd = netns_fd,
		.mtu = parse_number(text(work, op->b)),
		.group = (uint32_t)(op->number >> 32),
		.bridge = (uint32_t)op->number,
		.v6 = op->attrs });
	if (r == 0)
		r = refuse_routers(work, name);
	return r == 0 && (uint32_t)op->number ? rtnl_set_up(name) : r;
}

/* b: "02:64:0a:04:00:02". */
int builder_mac(struct work *work, const struct op_wire *op)
{
	const char *digits = text(work, op->b);
	uint8_t mac[6] = { 0 };

	if (strlen(digits) != 17)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(mac); i++)
		mac[i] = (uint8_t)(hex_value(digits[3 * i]) << 4 | hex_value(digits[3 * i + 1]));
	return rtnl_set_mac(text(work, op->a), mac);
}

static int parse_address(const char *address, size_t len, unsigned char ret[16])
{
	char copy[INET6_ADDRSTRLEN];

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, address, len);
	copy[len] = '\0';
	if (inet_pton(AF_INET, copy, ret) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, copy, ret) == 1 ? AF_INET6 : -EINVAL;
}

int builder_address(struct work *work, const struct op_wire *op)
{
	const char *address = text(work, op->b), *slash = strchr(address, '/');
	unsigned char bytes[16];
	int family;

	if (!slash)
		return -EINVAL;
	family = parse_address(address, (size_t)(slash - address), bytes);
	if (family < 0)
		return family;
	return rtnl_add_address(text(work, op->a), family, bytes, parse_number(slash + 1));
}

int builder_route(struct work *work, const struct op_wire *op)
{
	const char *gateway = text(work, op->a);
	unsigned char bytes[16];
	int family = parse_address(gateway, strlen(gateway), bytes);

	return family < 0 ? family : rtnl_add_default_route(family, bytes);
}

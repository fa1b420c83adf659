/* Probes of what the network of containers needs. What has to be made to see whether it can be is made in
 * a network namespace of its own, which goes with the child. */
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "linux/conntrack.h"
#include "linux/features_internal.h"
#include "linux/nft.h"
#include "linux/rtnl.h"
#include "linux/sys.h"

/* Asks for the generation of the rules: answered by whoever has nf_tables. */
static int ask_nftables(int fd)
{
	struct {
		struct nlmsghdr head;
		struct nfgenmsg body;
	} ask = { .head = { .nlmsg_len = sizeof(ask),
			  .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
			  .nlmsg_flags = NLM_F_REQUEST } };
	struct {
		struct nlmsghdr head;
		char body[1024];
	} answer;

	if (TEMP_FAILURE_RETRY(send(fd, &ask, sizeof(ask), 0)) < 0 ||
		TEMP_FAILURE_RETRY(recv(fd, &answer, sizeof(answer), 0)) < 0)
		return -errno;
	if (answer.head.nlmsg_type != NLMSG_ERROR)
		return 0;
	return ((struct nlmsgerr *)answer.body)->error;
}

int probe_nftables(struct trial *trial)
{
	AUTO_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	int r = fd < 0 ? -errno : ask_nftables(fd);

	return r < 0 ? feature_lacks(trial, r, "netlink") : 0;
}

static int make_veth(int unused_fd)
{
	int r = sys_unshare(CLONE_NEWNET);
	AUTO_FD int netns_fd = sys_open_at(AT_FDCWD, "/proc/self/ns/net", O_RDONLY, 0, 0);

	(void)unused_fd;
	if (r < 0 || netns_fd < 0)
		return r < 0 ? r : netns_fd;
	return rtnl_make_veth(&(struct rtnl_veth){
		.name = "one", .peer_name = "other", .peer_netns_fd = netns_fd, .mtu = 1500 });
}

int probe_veth(struct trial *trial)
{
	int r = feature_run_in_child(make_veth, -1);

	return r < 0 ? feature_lacks(trial, r, "make one") : 0;
}

static int make_bridge(int unused_fd)
{
	int r = sys_unshare(CLONE_NEWNET);
	uint32_t index;

	(void)unused_fd;
	return r < 0 ? r
		     : rtnl_make_bridge(
			       &(struct rtnl_bridge){ .name = "bridge", .mac = { 2 }, .mtu = 1500 },
			       &index);
}

int probe_bridge(struct trial *trial)
{
	int r = feature_run_in_child(make_bridge, -1);

	return r < 0 ? feature_lacks(trial, r, "make one") : 0;
}

static bool match_none(int family, const void *address, void *arg)
{
	(void)family;
	(void)address;
	(void)arg;
	return false;
}

int probe_conntrack(struct trial *trial)
{
	int r = conntrack_forget(match_none, NULL);

	return r < 0 ? feature_lacks(trial, r, "list connections") : 0;
}

/* No table can let through what another one drops. */
int probe_forward(struct trial *trial)
{
	char table[64];
	int r = nft_find_closed_forward(table);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return feature_lacks(trial, r, "list chains");
	return feature_lacks(trial, 0,
		"table %s drops what it does not know; accept there what comes from and goes to interfaces "
		"cl-* (iptables -I FORWARD -i cl-+ -j ACCEPT, and with -o; firewalld: zone trusted)",
		table);
}

#include "linux/conntrack.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "linux/nl.h"

#define TYPE(message) (NFNL_SUBSYS_CTNETLINK << 8 | (message))

struct search {
	conntrack_match *match;
	void *arg;
	int fd; /* deletes while the other one reads */
	int n_forgotten;
};

/* Both addresses of one direction. */
static bool tuple_matches(const struct nlmsghdr *head, uint16_t direction, struct search *search)
{
	static const struct {
		uint16_t type;
		int family;
		size_t n_bytes;
	} ends[] = { { CTA_IP_V4_SRC, AF_INET, 4 }, { CTA_IP_V4_DST, AF_INET, 4 },
		{ CTA_IP_V6_SRC, AF_INET6, 16 }, { CTA_IP_V6_DST, AF_INET6, 16 } };
	size_t n_tuple = 0, n_ip = 0, n;
	const void *tuple = nl_find(head, sizeof(struct nfgenmsg), direction, &n_tuple);
	const void *ip = nl_find_in(tuple, n_tuple, CTA_TUPLE_IP, &n_ip);

	for (size_t i = 0; i < N_ELEMENTS(ends); i++) {
		const void *address = nl_find_in(ip, n_ip, ends[i].type, &n);

		if (address && n == ends[i].n_bytes &&
			search->match(ends[i].family, address, search->arg))
			return true;
	}
	return false;
}

/* The id makes it this one, and no later one of the same ends. */
static int forget(const struct nlmsghdr *head, int fd)
{
	static const uint16_t names[] = { CTA_TUPLE_ORIG | NLA_F_NESTED, CTA_ZONE, CTA_ID };
	unsigned char space[1024] __attribute__((aligned(8)));
	struct nl nl;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, TYPE(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, NLMSG_DATA(head),
		sizeof(struct nfgenmsg));
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		size_t n;
		const void *data =
			nl_find(head, sizeof(struct nfgenmsg), names[i] & NLA_TYPE_MASK, &n);

		if (data)
			nl_put(&nl, names[i], data, n);
	}
	return nl_talk(fd, &nl, NULL);
}

static int visit(const struct nlmsghdr *head, void *arg)
{
	struct search *search = arg;
	int r;

	if (head->nlmsg_type != TYPE(IPCTNL_MSG_CT_NEW) ||
		(!tuple_matches(head, CTA_TUPLE_ORIG, search) &&
			!tuple_matches(head, CTA_TUPLE_REPLY, search)))
		return 0;
	r = forget(head, search->fd);
	search->n_forgotten += r == 0;
	return r == -ENOENT ? 0 : r; /* it has ended meanwhile */
}

int conntrack_forget(conntrack_match *match, void *arg)
{
	unsigned char space[32768] __attribute__((aligned(8)));
	struct nfgenmsg all = { .nfgen_family = AF_UNSPEC };
	struct search search = { .match = match, .arg = arg };
	AUTO_FD int dump_fd = nl_open(NETLINK_NETFILTER);
	AUTO_FD int delete_fd = nl_open(NETLINK_NETFILTER);
	struct nl nl;
	int r;

	if (dump_fd < 0 || delete_fd < 0)
		return dump_fd < 0 ? dump_fd : delete_fd;
	search.fd = delete_fd;
	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, TYPE(IPCTNL_MSG_CT_GET), NLM_F_DUMP, &all, sizeof(all));
	r = nl_dump(dump_fd, &nl, space, sizeof(space), visit, &search);
	return r < 0 ? r : search.n_forgotten;
}

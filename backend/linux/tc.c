#include "linux/tc.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>

#include "base/auto.h"
#include "linux/nl.h"

#define MAKE (NLM_F_ACK | NLM_F_CREATE)
#define INGRESS TC_H_MAKE(TC_H_INGRESS, 0)

static int talk(struct nl *nl)
{
	AUTO_FD int fd = nl_open(NETLINK_ROUTE);

	return fd < 0 ? fd : nl_talk(fd, nl, NULL);
}

int tc_shape(uint32_t link_index, const struct tc_rate *rate)
{
	unsigned char space[512] __attribute__((aligned(8)));
	struct tcmsg head = { .tcm_ifindex = (int)link_index,
		.tcm_parent = TC_H_ROOT,
		.tcm_handle = TC_H_MAKE(1 << 16, 0) };
	struct tc_tbf_qopt options = { .limit = rate->queue_bytes,
		.rate = { .linklayer = TC_LINKLAYER_ETHERNET,
			.rate = rate->bytes_per_s > UINT32_MAX ? UINT32_MAX
							       : (uint32_t)rate->bytes_per_s } };
	struct nl nl;
	size_t nest;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWQDISC, MAKE | NLM_F_REPLACE, &head, sizeof(head));
	nl_put_text(&nl, TCA_KIND, "tbf");
	nest = nl_nest(&nl, TCA_OPTIONS);
	nl_put(&nl, TCA_TBF_PARMS, &options, sizeof(options));
	nl_put(&nl, TCA_TBF_RATE64, &rate->bytes_per_s, sizeof(rate->bytes_per_s));
	nl_put_u32(&nl, TCA_TBF_BURST, rate->burst_bytes);
	nl_end(&nl, nest);
	return talk(&nl);
}

static void add_redirect(struct nl *nl, uint32_t ifb_index)
{
	struct tc_mirred mirred = {
		.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = ifb_index
	};
	size_t actions = nl_nest(nl, TCA_U32_ACT), first = nl_nest(nl, 1), options;

	nl_put_text(nl, TCA_ACT_KIND, "mirred");
	options = nl_nest(nl, TCA_ACT_OPTIONS);
	nl_put(nl, TCA_MIRRED_PARMS, &mirred, sizeof(mirred));
	nl_end(nl, options);
	nl_end(nl, first);
	nl_end(nl, actions);
}

int tc_detour(uint32_t link_index, uint32_t ifb_index)
{
	unsigned char space[512] __attribute__((aligned(8)));
	struct tcmsg qdisc = {
		.tcm_ifindex = (int)link_index, .tcm_parent = TC_H_INGRESS, .tcm_handle = INGRESS
	};
	struct tcmsg filter = { .tcm_ifindex = (int)link_index,
		.tcm_parent = INGRESS,
		.tcm_info = TC_H_MAKE(1 << 16, htons(ETH_P_ALL)) };
	struct {
		struct tc_u32_sel sel;
		struct tc_u32_key every; /* a mask of nothing */
	} match = { .sel = { .flags = TC_U32_TERMINAL, .nkeys = 1 } };
	struct nl nl;
	size_t nest;

	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, RTM_NEWQDISC, MAKE, &qdisc, sizeof(qdisc));
	nl_put_text(&nl, TCA_KIND, "ingress");
	nl_begin(&nl, RTM_NEWTFILTER, MAKE, &filter, sizeof(filter));
	nl_put_text(&nl, TCA_KIND, "u32");
	nest = nl_nest(&nl, TCA_OPTIONS);
	nl_put(&nl, TCA_U32_SEL, &match, sizeof(match));
	add_redirect(&nl, ifb_index);
	nl_end(&nl, nest);
	return talk(&nl);
}

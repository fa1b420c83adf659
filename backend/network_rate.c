/* How fast a container sends and receives, and how much it has: at the host's end of its link, where
 * nobody in it gets at it. */
#include <errno.h>

#include "base/err.h"
#include "linux/rtnl.h"
#include "linux/tc.h"
#include "network_internal.h"

#define MIN_BURST_BYTES 4096u /* two packets and their heads */
#define DEFAULT_BURST_BYTES (64u << 10)
#define MAX_BURST_BYTES (1u << 30)
#define MIN_QUEUE_BYTES (64u << 10)
#define MAX_QUEUE_BYTES (16u << 20)
#define MAX_RATE_BYTES (UINT64_C(1) << 40)

static uint64_t within(uint64_t n, uint64_t min, uint64_t max)
{
	return n < min ? min : n > max ? max : n;
}

/* The queue is worth a tenth of a second. */
static struct tc_rate rate_of(uint64_t rate_bytes, uint64_t burst_bytes)
{
	uint64_t burst = burst_bytes ? burst_bytes : DEFAULT_BURST_BYTES;

	return (struct tc_rate){ .bytes_per_s = within(rate_bytes, 1, MAX_RATE_BYTES),
		.burst_bytes = (uint32_t)within(burst, MIN_BURST_BYTES, MAX_BURST_BYTES),
		.queue_bytes =
			(uint32_t)within(rate_bytes / 10, MIN_QUEUE_BYTES, MAX_QUEUE_BYTES) };
}

static int limit(const struct lease *lease, const struct tc_rate *rate)
{
	uint32_t link, ifb;
	int r = rtnl_link_index(lease->link, &link);

	if (r == 0)
		r = tc_shape(link, rate);
	if (r == 0)
		r = rtnl_make_ifb(lease->ifb, lease->network->group, lease->network->mtu, &ifb);
	if (r == 0)
		r = tc_shape(ifb, rate);
	return r < 0 ? r : tc_detour(link, ifb);
}

int network_limit(struct lease *lease, uint64_t rate_bytes, uint64_t burst_bytes, struct err *err)
{
	struct tc_rate rate = rate_of(rate_bytes, burst_bytes);
	int r = limit(lease, &rate);

	if (r == -ENOENT || r == -EOPNOTSUPP)
		return err_set(err, ERR_UNSUPPORTED, -r,
			"limits.bandwidth_limits: this kernel lacks sch_tbf, sch_ingress, cls_u32, "
			"act_mirred or ifb");
	return r < 0 ? err_system(err, r, "limits.bandwidth_limits: link %s", lease->link) : 0;
}

/* A stranger's link of that name stays. */
void network_unlimit(const struct lease *lease)
{
	struct rtnl_facts ifb;

	if (rtnl_look(lease->ifb, &ifb) == 0 && ifb.group == lease->network->group)
		rtnl_delete_link(ifb.index);
}

int network_traffic(const struct lease *lease, uint64_t *ret_rx_bytes, uint64_t *ret_tx_bytes)
{
	struct rtnl_facts link;
	int r = rtnl_look(lease->link, &link);

	if (r < 0)
		return r;
	*ret_rx_bytes = link.tx_bytes; /* this end is the other one */
	*ret_tx_bytes = link.rx_bytes;
	return 0;
}

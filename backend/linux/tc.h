/* tc.h - how fast a link sends and receives, over rtnetlink(7), tc(8). Of the network namespace that one
 * is in. 0 or -errno; no text, no heap. -ENOENT or -EOPNOTSUPP: the kernel lacks what it takes. */
#pragma once
#include <stdint.h>

struct tc_rate {
	uint64_t bytes_per_s;
	uint32_t burst_bytes; /* at once, after a pause; more than a packet of the link */
	uint32_t queue_bytes; /* what waits; beyond it packets are dropped */
};

/* What the link sends waits for its turn (a token bucket, tc-tbf(8)); in place of what was there. */
int tc_shape(uint32_t link_index, const struct tc_rate *rate);
/* What arrives at the link goes by way of another, an ifb, which sends it back as if nothing had
 * happened: as fast as that one sends. */
int tc_detour(uint32_t link_index, uint32_t ifb_index);

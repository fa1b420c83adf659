/* netpool.h - which IPv4 addresses are whose: a pool of /30 subnets for containers that name none,
 * and the subnets that requests name, which their containers share. Pure, not locked. Addresses are
 * numbers in host order. Texts of errors are the reference's (clients compare them). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct err;

struct net_place {
	uint32_t address, gateway;
	unsigned prefix; /* of the subnet, 1 to 30 */
	bool is_shared; /* of a subnet that a request named: it has a bridge */
};
static inline uint32_t net_mask(unsigned prefix)
{
	return prefix ? ~UINT32_C(0) << (32 - prefix) : 0;
}
static inline uint32_t net_subnet(const struct net_place *place)
{
	return place->address & net_mask(place->prefix);
}

struct netpool {
	uint32_t base, n_subnets, next, n_used;
	unsigned prefix;
	unsigned char *used; /* one for each /30 */
	LIST_HEAD(, named_subnet) named;
};

/* text: "10.254.0.0/16", at most /30. 0, -EINVAL, -ENOMEM. */
int netpool_init(struct netpool *pool, const char *text);
void netpool_done(struct netpool *pool);

/* network as a request names it: "" or NULL takes the next free /30; "10.1.2.3" is a /30 with that
 * address; "10.1.2.0/24" takes the first free address of that subnet; "10.1.2.3/24" that one. */
int netpool_take(
	struct netpool *pool, const char *network, struct net_place *ret_place, struct err *err);
/* The same place again, as a record names it. 0, -EEXIST, -ENOMEM; a place outside of today's pool
 * is kept like a named one. */
int netpool_mark(struct netpool *pool, const struct net_place *place);
/* Of the pool, and nobody's. */
bool netpool_is_free(const struct netpool *pool, uint32_t address);
/* True if nobody is left in its subnet. */
bool netpool_give(struct netpool *pool, const struct net_place *place);

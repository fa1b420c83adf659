#include "netpool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/parse.h"

#define DYNAMIC_PREFIX 30u
#define NETWORK_TEXT 20 /* "255.255.255.255/32" */

struct named_subnet {
	LIST_ENTRY(named_subnet) entry;
	uint32_t subnet;
	unsigned prefix;
	uint32_t *addresses, n_addresses; /* that are taken */
};

static int parse_address(const char *text, size_t len, uint32_t *ret_address)
{
	struct in_addr address;
	char copy[INET_ADDRSTRLEN];

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (inet_pton(AF_INET, copy, &address) != 1)
		return -EINVAL;
	*ret_address = ntohl(address.s_addr);
	return 0;
}

/* "a.b.c.d/n" */
static int parse_network(const char *text, uint32_t *ret_address, unsigned *ret_prefix)
{
	const char *slash = strchr(text, '/');
	uint64_t prefix;

	if (!slash || parse_address(text, (size_t)(slash - text), ret_address) < 0 ||
		parse_u64(slash + 1, 32, &prefix) < 0)
		return -EINVAL;
	*ret_prefix = (unsigned)prefix;
	return 0;
}

static void write_network(char text[NETWORK_TEXT], uint32_t subnet, unsigned prefix)
{
	snprintf(text, NETWORK_TEXT, "%u.%u.%u.%u/%u", subnet >> 24, subnet >> 16 & 255,
		subnet >> 8 & 255, subnet & 255, prefix);
}

int netpool_init(struct netpool *pool, const char *text)
{
	*pool = (struct netpool){ 0 };
	LIST_INIT(&pool->named);
	if (parse_network(text, &pool->base, &pool->prefix) < 0 || pool->prefix < 8 ||
		pool->prefix > DYNAMIC_PREFIX || pool->base & ~net_mask(pool->prefix))
		return -EINVAL;
	pool->n_subnets = UINT32_C(1) << (DYNAMIC_PREFIX - pool->prefix);
	pool->used = calloc(pool->n_subnets, 1);
	return pool->used ? 0 : -ENOMEM;
}

void netpool_done(struct netpool *pool)
{
	struct named_subnet *named;

	while ((named = LIST_FIRST(&pool->named))) {
		LIST_REMOVE(named, entry);
		free(named->addresses);
		free(named);
	}
	free(pool->used);
	*pool = (struct netpool){ 0 };
}

/* ---- the pool -------------------------------------------------------------------------------- */

static struct net_place dynamic_place(const struct netpool *pool, uint32_t n)
{
	uint32_t subnet = pool->base + n * 4;

	return (struct net_place){ subnet + 2, subnet + 1, DYNAMIC_PREFIX, false };
}

static bool overlaps(uint32_t a, unsigned a_prefix, uint32_t b, unsigned b_prefix)
{
	uint32_t mask = net_mask(a_prefix < b_prefix ? a_prefix : b_prefix);

	return ((a ^ b) & mask) == 0;
}

/* A subnet that somebody named while the pool was another one. */
static bool is_in_named(const struct netpool *pool, uint32_t n)
{
	const struct named_subnet *named;

	LIST_FOREACH(named, &pool->named, entry)
	if (overlaps(pool->base + n * 4, DYNAMIC_PREFIX, named->subnet, named->prefix))
		return true;
	return false;
}

/* Onwards from the last one, so that what was used last is used again as late as can be. */
static int take_dynamic(struct netpool *pool, struct net_place *ret_place, struct err *err)
{
	for (uint32_t i = 0; i < pool->n_subnets && pool->n_used < pool->n_subnets; i++) {
		uint32_t n = (pool->next + i) % pool->n_subnets;

		if (pool->used[n] || is_in_named(pool, n))
			continue;
		pool->used[n] = 1;
		pool->n_used++;
		pool->next = n + 1;
		*ret_place = dynamic_place(pool, n);
		return 0;
	}
	return err_set(err, ERR_EXHAUSTED, EAGAIN, "insufficient subnets remaining in the pool");
}

/* ---- subnets that have a name ---------------------------------------------------------------- */

static struct named_subnet *find_named(const struct netpool *pool, uint32_t subnet, unsigned prefix)
{
	struct named_subnet *named;

	LIST_FOREACH(named, &pool->named, entry)
	if (named->subnet == subnet && named->prefix == prefix)
		return named;
	return NULL;
}

static bool is_taken(const struct named_subnet *named, uint32_t address)
{
	for (uint32_t i = 0; named && i < named->n_addresses; i++)
		if (named->addresses[i] == address)
			return true;
	return false;
}

static int check_overlaps(
	const struct netpool *pool, uint32_t subnet, unsigned prefix, struct err *err)
{
	char wanted[NETWORK_TEXT], other[NETWORK_TEXT];
	struct named_subnet *named;

	write_network(wanted, subnet, prefix);
	if (overlaps(subnet, prefix, pool->base, pool->prefix)) {
		write_network(other, pool->base, pool->prefix);
		return err_set(err, ERR_INVALID, EINVAL,
			"the requested subnet (%s) overlaps the dynamic allocation range (%s)",
			wanted, other);
	}
	LIST_FOREACH(named, &pool->named, entry)
	{
		if ((named->subnet == subnet && named->prefix == prefix) ||
			!overlaps(subnet, prefix, named->subnet, named->prefix))
			continue;
		write_network(other, named->subnet, named->prefix);
		return err_set(err, ERR_INVALID, EINVAL,
			"the requested subnet (%s) overlaps an existing subnet (%s)", wanted,
			other);
	}
	return 0;
}

static int add_address(struct netpool *pool, struct named_subnet *named,
	const struct net_place *place, struct err *err)
{
	struct named_subnet *fresh = named ? NULL : calloc(1, sizeof(*fresh));
	uint32_t *more;

	if (!named && !fresh)
		return err_system(err, -ENOMEM, "network");
	if (fresh) {
		fresh->subnet = net_subnet(place);
		fresh->prefix = place->prefix;
		named = fresh;
	}
	more = realloc(named->addresses, (named->n_addresses + 1) * sizeof(*more));
	if (!more) {
		free(fresh);
		return err_system(err, -ENOMEM, "network");
	}
	named->addresses = more;
	named->addresses[named->n_addresses++] = place->address;
	if (fresh)
		LIST_INSERT_HEAD(&pool->named, fresh, entry);
	return 0;
}

/* Behind the network's own address and the gateway, before the broadcast address. */
static int first_free(const struct named_subnet *named, struct net_place *place, struct err *err)
{
	uint32_t subnet = net_subnet(place), broadcast = subnet | ~net_mask(place->prefix);

	for (uint32_t address = subnet + 2; address > subnet && address < broadcast; address++)
		if (!is_taken(named, address)) {
			place->address = address;
			return 0;
		}
	return err_set(err, ERR_EXHAUSTED, EAGAIN, "insufficient IPs remaining in the pool");
}

static int check_address(
	const struct named_subnet *named, const struct net_place *place, struct err *err)
{
	if (place->address == place->gateway)
		return err_set(
			err, ERR_INVALID, EINVAL, "a container IP must not equal the gateway IP");
	if (place->address == (net_subnet(place) | ~net_mask(place->prefix)))
		return err_set(
			err, ERR_INVALID, EINVAL, "a container IP must not equal the broadcast IP");
	return is_taken(named, place->address)
		? err_set(err, ERR_EXISTS, EEXIST, "the requested IP is already allocated")
		: 0;
}

/* Nobody's: "this network", loopback, link-local, multicast and what is above. */
static bool is_usable(uint32_t subnet, unsigned prefix)
{
	return prefix >= 8 && subnet >> 24 != 0 && subnet >> 24 != 127 && subnet >> 24 < 224 &&
		subnet >> 16 != 0xa9fe;
}

static int take_named(struct netpool *pool, uint32_t address, unsigned prefix,
	struct net_place *ret_place, struct err *err)
{
	uint32_t subnet = address & net_mask(prefix);
	struct net_place place = { address, subnet + 1, prefix, true };
	struct named_subnet *named = find_named(pool, subnet, prefix);
	int r = check_overlaps(pool, subnet, prefix, err);

	if (r == 0 && !is_usable(subnet, prefix))
		return err_set(err, ERR_INVALID, EINVAL,
			"network: %u.%u.%u.%u/%u is no network for containers", subnet >> 24,
			subnet >> 16 & 255, subnet >> 8 & 255, subnet & 255, prefix);
	if (r == 0)
		r = address == subnet ? first_free(named, &place, err)
				      : check_address(named, &place, err);
	if (r == 0)
		r = add_address(pool, named, &place, err);
	if (r == 0)
		*ret_place = place;
	return r;
}

int netpool_take(
	struct netpool *pool, const char *network, struct net_place *ret_place, struct err *err)
{
	char with_prefix[64];
	uint32_t address;
	unsigned prefix;

	if (!network || !*network)
		return take_dynamic(pool, ret_place, err);
	snprintf(with_prefix, sizeof(with_prefix), "%s%s", network,
		strchr(network, '/') ? "" : "/30");
	if (strlen(network) >= sizeof(with_prefix) - 4 ||
		parse_network(with_prefix, &address, &prefix) < 0)
		return err_set(err, ERR_INVALID, EINVAL, "invalid CIDR address: %s", with_prefix);
	return take_named(pool, address, prefix, ret_place, err);
}

/* The number of the place's /30 in the pool, or -1. */
static int64_t number_of(const struct netpool *pool, const struct net_place *place)
{
	if (place->is_shared || place->prefix != DYNAMIC_PREFIX ||
		(place->address & net_mask(pool->prefix)) != pool->base)
		return -1;
	return (net_subnet(place) - pool->base) / 4;
}

int netpool_mark(struct netpool *pool, const struct net_place *place)
{
	struct named_subnet *named;
	int64_t n = number_of(pool, place);

	if (n >= 0) {
		if (pool->used[n])
			return -EEXIST;
		pool->used[n] = 1;
		pool->n_used++;
		return 0;
	}
	named = find_named(pool, net_subnet(place), place->prefix);
	if (is_taken(named, place->address))
		return -EEXIST;
	return add_address(pool, named, place, NULL);
}

bool netpool_is_free(const struct netpool *pool, uint32_t address)
{
	uint32_t n = (address - pool->base) / 4;

	return n < pool->n_subnets && !pool->used[n] && !is_in_named(pool, n);
}

bool netpool_give(struct netpool *pool, const struct net_place *place)
{
	struct named_subnet *named = find_named(pool, net_subnet(place), place->prefix);
	int64_t n = number_of(pool, place);
	uint32_t n_kept = 0;

	if (n >= 0 && pool->used[n]) {
		pool->used[n] = 0;
		pool->n_used--;
	}
	if (n >= 0 || !named)
		return true;
	for (uint32_t i = 0; i < named->n_addresses; i++)
		if (named->addresses[i] != place->address)
			named->addresses[n_kept++] = named->addresses[i];
	named->n_addresses = n_kept;
	if (n_kept)
		return false;
	LIST_REMOVE(named, entry);
	free(named->addresses);
	free(named);
	return true;
}

#include "unit.h"

#include <errno.h>

#include "base/err.h"
#include "netpool.h"

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static struct netpool pool_of(const char *text)
{
	struct netpool pool;

	assert_int_equal(netpool_init(&pool, text), 0);
	return pool;
}

static struct net_place take(struct netpool *pool, const char *network)
{
	struct net_place place = { 0 };
	struct err err = { 0 };

	if (netpool_take(pool, network, &place, &err) < 0)
		fail_msg("%s: %s", network ? network : "", err.msg);
	return place;
}

static void refuses(struct netpool *pool, const char *network, const char *text)
{
	struct net_place place = { 0 };
	struct err err = { 0 };

	assert_true(netpool_take(pool, network, &place, &err) < 0);
	assert_string_equal(err.msg, text);
	assert_int_equal(place.address, 0);
}

static void a_pool_is_a_network_from_8_to_30(void **state UNUSED)
{
	static const char *const bad[] = { "", "bogus", "10.0.0.0", "10.0.0.0/7", "10.0.0.0/31",
		"10.0.0.1/24", "10.0.0.0/24/1", "10.0.0.0/-1", "fd00::/64", "10.0.0/24" };
	struct netpool pool;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(netpool_init(&pool, bad[i]), -EINVAL);
	pool = pool_of("10.254.0.0/22");
	assert_int_equal(pool.n_subnets, 256);
	netpool_done(&pool);
}

static void each_gets_a_subnet_of_its_own_until_there_is_none(void **state UNUSED)
{
	struct netpool pool = pool_of("10.254.0.0/29");
	struct net_place a = take(&pool, NULL), b = take(&pool, "");

	assert_int_equal(a.address, IP(10, 254, 0, 2));
	assert_int_equal(a.gateway, IP(10, 254, 0, 1));
	assert_int_equal(a.prefix, 30);
	assert_false(a.is_shared);
	assert_int_equal(b.address, IP(10, 254, 0, 6));
	refuses(&pool, NULL, "insufficient subnets remaining in the pool");
	assert_true(netpool_give(&pool, &a));
	assert_int_equal(take(&pool, NULL).address, a.address);
	netpool_done(&pool);
}

static void what_was_given_back_is_used_again_last(void **state UNUSED)
{
	struct netpool pool = pool_of("10.254.0.0/28");
	struct net_place a = take(&pool, NULL);

	netpool_give(&pool, &a);
	assert_int_equal(take(&pool, NULL).address, IP(10, 254, 0, 6));
	assert_int_equal(take(&pool, NULL).address, IP(10, 254, 0, 10));
	assert_int_equal(take(&pool, NULL).address, IP(10, 254, 0, 14));
	assert_int_equal(take(&pool, NULL).address, a.address);
	netpool_done(&pool);
}

static void a_subnet_with_a_name_is_shared_by_its_containers(void **state UNUSED)
{
	struct netpool pool = pool_of("10.254.0.0/22");
	struct net_place a = take(&pool, "10.3.0.0/24"), b = take(&pool, "10.3.0.0/24");
	struct net_place c = take(&pool, "10.3.0.77/24"), d = take(&pool, "10.4.0.2");

	assert_int_equal(a.address, IP(10, 3, 0, 2));
	assert_int_equal(b.address, IP(10, 3, 0, 3));
	assert_int_equal(c.address, IP(10, 3, 0, 77));
	assert_int_equal(c.gateway, IP(10, 3, 0, 1));
	assert_int_equal(d.prefix, 30);
	assert_true(d.is_shared);
	assert_false(netpool_give(&pool, &a));
	assert_int_equal(take(&pool, "10.3.0.0/24").address, a.address);
	assert_false(netpool_give(&pool, &a));
	assert_false(netpool_give(&pool, &c));
	assert_true(netpool_give(&pool, &b));
	assert_true(netpool_give(&pool, &d));
	netpool_done(&pool);
}

static void what_cannot_be_had_is_refused_in_the_words_of_the_reference(void **state UNUSED)
{
	struct netpool pool = pool_of("10.254.0.0/22");

	take(&pool, "10.3.0.9/24");
	take(&pool, "10.5.0.0/30");
	refuses(&pool, "10.3.0.9/24", "the requested IP is already allocated");
	refuses(&pool, "10.3.0.1/24", "a container IP must not equal the gateway IP");
	refuses(&pool, "10.3.0.255/24", "a container IP must not equal the broadcast IP");
	refuses(&pool, "10.3.0.128/25",
		"the requested subnet (10.3.0.128/25) overlaps an existing subnet (10.3.0.0/24)");
	refuses(&pool, "10.254.3.9/30",
		"the requested subnet (10.254.3.8/30) overlaps the dynamic allocation range "
		"(10.254.0.0/22)");
	refuses(&pool, "10.5.0.0/30", "insufficient IPs remaining in the pool");
	refuses(&pool, "10.6.0.0/31", "insufficient IPs remaining in the pool");
	refuses(&pool, "bogus", "invalid CIDR address: bogus/30");
	refuses(&pool, "bogus/30", "invalid CIDR address: bogus/30");
	refuses(&pool, "10.3.0.0/33", "invalid CIDR address: 10.3.0.0/33");
	refuses(&pool, "fd00::1/64", "invalid CIDR address: fd00::1/64");
	refuses(&pool, "127.0.0.0/24", "network: 127.0.0.0/24 is no network for containers");
	refuses(&pool, "169.254.169.252/30",
		"network: 169.254.169.252/30 is no network for containers");
	netpool_done(&pool);
}

static void recorded_places_are_not_given_out_again(void **state UNUSED)
{
	struct netpool pool = pool_of("10.254.0.0/29");
	struct net_place own = { IP(10, 254, 0, 2), IP(10, 254, 0, 1), 30, false };
	struct net_place other = { IP(10, 9, 0, 2), IP(10, 9, 0, 1), 30, false };
	struct net_place named = { IP(10, 3, 0, 2), IP(10, 3, 0, 1), 24, true };

	assert_int_equal(netpool_mark(&pool, &own), 0);
	assert_int_equal(netpool_mark(&pool, &own), -EEXIST);
	assert_int_equal(netpool_mark(&pool, &other), 0);
	assert_int_equal(netpool_mark(&pool, &named), 0);
	assert_int_equal(netpool_mark(&pool, &named), -EEXIST);
	assert_int_equal(take(&pool, NULL).address, IP(10, 254, 0, 6));
	refuses(&pool, NULL, "insufficient subnets remaining in the pool");
	assert_int_equal(take(&pool, "10.3.0.0/24").address, IP(10, 3, 0, 3));
	assert_true(netpool_give(&pool, &other));
	assert_true(netpool_give(&pool, &own));
	assert_int_equal(take(&pool, NULL).address, own.address);
	netpool_done(&pool);
}

static void a_named_subnet_of_before_is_no_part_of_a_pool_around_it(void **state UNUSED)
{
	struct netpool pool = pool_of("10.3.0.0/28");
	struct net_place named = { IP(10, 3, 0, 6), IP(10, 3, 0, 5), 30, true };

	assert_int_equal(netpool_mark(&pool, &named), 0);
	assert_int_equal(take(&pool, NULL).address, IP(10, 3, 0, 2));
	assert_int_equal(take(&pool, NULL).address, IP(10, 3, 0, 10));
	assert_int_equal(take(&pool, NULL).address, IP(10, 3, 0, 14));
	refuses(&pool, NULL, "insufficient subnets remaining in the pool");
	assert_false(netpool_is_free(&pool, named.address));
	assert_true(netpool_give(&pool, &named));
	assert_true(netpool_is_free(&pool, named.address));
	assert_false(netpool_is_free(&pool, IP(10, 3, 0, 2)));
	assert_false(netpool_is_free(&pool, IP(10, 3, 0, 16)));
	assert_int_equal(take(&pool, NULL).address, IP(10, 3, 0, 6));
	netpool_done(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_is_a_network_from_8_to_30),
		cmocka_unit_test(each_gets_a_subnet_of_its_own_until_there_is_none),
		cmocka_unit_test(what_was_given_back_is_used_again_last),
		cmocka_unit_test(a_subnet_with_a_name_is_shared_by_its_containers),
		cmocka_unit_test(what_cannot_be_had_is_refused_in_the_words_of_the_reference),
		cmocka_unit_test(recorded_places_are_not_given_out_again),
		cmocka_unit_test(a_named_subnet_of_before_is_no_part_of_a_pool_around_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

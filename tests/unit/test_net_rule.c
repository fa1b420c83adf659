#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "net_rule.h"

static void round_trip(const char *text)
{
	AUTO(net_rule_done) struct net_rule rule, copy;
	AUTO_BUF struct buf again;

	buf_init(&again, 4096);
	assert_int_equal(net_rule_parse(text, &rule), 0);
	assert_int_equal(net_rule_copy(&copy, &rule), 0);
	net_rule_write(&again, &copy);
	assert_string_equal(buf_str(&again), text);
}

static void a_rule_goes_into_its_record_and_comes_out_again(void **state UNUSED)
{
	round_trip("0");
	round_trip("1 net 8.8.8.8-8.8.8.8 port 53-53");
	round_trip("3 log type 8 code 0 net 1.0.0.0-1.0.0.9");
	round_trip("2 net 10.0.0.0-10.255.255.255 net fd00::-fd00::ffff port 1-65535 port 80-81");
}

static void what_is_no_rule_is_refused(void **state UNUSED)
{
	static const char *const bad[] = { "", "4", "-1", "x", "1 port", "1 port 1",
		"1 port 1-70000", "1 net", "1 net 1.2.3.4", "1 net 1.2.3.4-", "1 net a-b",
		"1 net 2.0.0.0-1.0.0.0", "1 net 1.0.0.0-::1", "1 type", "1 type 256", "1 what",
		"1  log" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		AUTO(net_rule_done) struct net_rule rule;
		int r = net_rule_parse(bad[i], &rule);

		/* an open end means the first address alone */
		if (strcmp(bad[i], "1 net 1.2.3.4-") != 0 && r != -EINVAL)
			fail_msg("'%s': %d", bad[i], r);
	}
}

static void a_range_has_one_family_and_a_direction(void **state UNUSED)
{
	struct net_range range;

	assert_int_equal(net_range_parse("1.2.3.4", NULL, &range), 0);
	assert_int_equal(range.family, AF_INET);
	assert_memory_equal(range.first, range.last, 16);
	assert_int_equal(net_range_parse("", "1.2.3.4", &range), 0);
	assert_int_equal(range.first[0], 0);
	assert_int_equal(net_range_parse("fd00::1", "fd00::2", &range), 0);
	assert_int_equal(range.family, AF_INET6);
	assert_int_equal(net_range_parse(NULL, NULL, &range), -EINVAL);
	assert_int_equal(net_range_parse("1.2.3.4", "fd00::1", &range), -EINVAL);
	assert_int_equal(net_range_parse("1.2.3.5", "1.2.3.4", &range), -EINVAL);
	assert_int_equal(net_range_parse("1.2.3", NULL, &range), -EINVAL);
}

static void ports_belong_to_tcp_and_udp(void **state UNUSED)
{
	struct net_port_range ports = { 1, 2 };
	struct net_rule rule = { .ports = &ports, .n_ports = 1 };
	struct err err;

	assert_int_equal(net_rule_check(&rule, &err), -EINVAL);
	assert_string_equal(err.msg, "Ports cannot be specified for Protocol ALL");
	rule.protocol = NET_ICMP;
	assert_int_equal(net_rule_check(&rule, &err), -EINVAL);
	assert_string_equal(err.msg, "Ports cannot be specified for Protocol ICMP");
	rule.protocol = NET_UDP;
	assert_int_equal(net_rule_check(&rule, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rule_goes_into_its_record_and_comes_out_again),
		cmocka_unit_test(what_is_no_rule_is_refused),
		cmocka_unit_test(a_range_has_one_family_and_a_direction),
		cmocka_unit_test(ports_belong_to_tcp_and_udp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

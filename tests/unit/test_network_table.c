/* The text itself is read by libnftables in the API tests; here, what of it depends on options. */
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>

#include "base/auto.h"
#include "base/buf.h"
#include "network_table.h"

static void two_sources(struct buf *text, const char *set, void *arg)
{
	(void)arg;
	if (!strcmp(set, "sources4"))
		buf_adds(text, "\"cl-1\" . 10.0.0.2, \"cl-2\" . 10.0.0.6, ");
}

static bool has(const struct network_policy *policy, const char *words)
{
	AUTO_BUF struct buf text;

	buf_init(&text, 1 << 20);
	network_table_write(&text, policy, two_sources, NULL);
	assert_int_equal(buf_failed(&text), 0);
	return strstr(buf_str(&text), words) != NULL;
}

static void the_table_is_replaced_in_one_transaction(void **state UNUSED)
{
	struct network_policy policy = {
		.table = "cloche-x", .links = "clx-", .owner = "instance-1"
	};

	assert_true(has(&policy,
		"table inet cloche-x {\n}\ndelete table inet cloche-x\ntable inet "
		"cloche-x {\n\tchain instance-1 {\n"));
	assert_true(has(&policy, "elements = { \"cl-1\" . 10.0.0.2, \"cl-2\" . 10.0.0.6,  }\n"));
	assert_false(has(&policy, "elements = {  }"));
	assert_true(has(&policy, "iifname \"clx-*\" jump source"));
}

static void options_show_in_it(void **state UNUSED)
{
	const uint16_t ports[] = { 7777, 7788 };
	struct strv denied = { 0 }, restricted = { 0 };
	struct network_policy policy = { .table = "t",
		.links = "l-",
		.owner = "o",
		.denied = &denied,
		.restricted = &restricted,
		.own_ports = ports,
		.n_own_ports = 2 };

	assert_int_equal(strv_add(&denied, "10.0.0.0/8"), 0);
	assert_int_equal(strv_add(&denied, "fd00::/8"), 0);
	assert_int_equal(strv_add(&restricted, "1.2.3.4"), 0);
	assert_true(has(&policy, "elements = { 10.0.0.0/8 }"));
	assert_true(has(&policy, "elements = { fd00::/8 }"));
	assert_true(has(&policy, "elements = { 1.2.3.4 }"));
	assert_true(has(&policy, "tcp dport 7788 goto refuse"));
	assert_false(has(&policy, "nfproto ipv6 masquerade"));
	policy.v6 = policy.v6_masquerade = true;
	assert_true(has(&policy, "nfproto ipv6 masquerade"));
	strv_done(&denied);
	strv_done(&restricted);
}

static void networks_are_checked(void **state UNUSED)
{
	static const char *const good[] = { "10.0.0.0/8", "1.2.3.4", "1.2.3.4-1.2.3.9", "fd00::/8",
		"::1", "fd00::1-fd00::9" };
	static const char *const bad[] = { "", "x", "10.0.0.0/33", "10.0.0.0/", "1.2.3.4-",
		"1.2.3.9-1.2.3.4", "1.2.3.4-::1", "fd00::/129", "1.2.3.4, 5.6.7.8", "1.2.3.4 }" };
	int family;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(network_text_check(good[i], &family), 0);
		assert_int_equal(family, strchr(good[i], ':') ? AF_INET6 : AF_INET);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(network_text_check(bad[i], &family), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_is_replaced_in_one_transaction),
		cmocka_unit_test(options_show_in_it),
		cmocka_unit_test(networks_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

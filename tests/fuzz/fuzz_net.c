/* Texts about networks: rules as the record has them, networks as options and requests name them. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "net_rule.h"
#include "netpool.h"
#include "network_table.h"

static void write_rule(const struct net_rule *rule, struct buf *text)
{
	buf_init(text, 1 << 20);
	net_rule_write(text, rule);
	FUZZ_CHECK(!buf_failed(text));
}

/* What was read is written in one way, and that is read as the same again. */
static void check_rule(const char *text)
{
	AUTO(net_rule_done) struct net_rule rule, again = { 0 };
	AUTO_BUF struct buf first = { 0 }, second = { 0 };

	if (net_rule_parse(text, &rule) < 0)
		return;
	for (size_t i = 0; i < rule.n_networks; i++)
		FUZZ_CHECK(memcmp(rule.networks[i].first, rule.networks[i].last,
				   rule.networks[i].family == AF_INET ? 4 : 16) <= 0);
	write_rule(&rule, &first);
	FUZZ_CHECK(net_rule_parse(buf_str(&first), &again) == 0);
	write_rule(&again, &second);
	FUZZ_CHECK(!strcmp(buf_str(&first), buf_str(&second)));
}

/* It goes into the text for nft as it is: nothing in it may mean anything else there. */
static void check_text(const char *text)
{
	int family = 0;

	if (network_text_check(text, &family) < 0)
		return;
	FUZZ_CHECK(family == AF_INET || family == AF_INET6);
	FUZZ_CHECK(strspn(text, "0123456789abcdefABCDEF.:/-") == strlen(text));
}

/* An address of a request lies in a subnet, is neither its first nor its last nor the gateway's, and is
 * nobody else's. */
static void check_place(const char *text)
{
	struct netpool pool;
	struct net_place place = { 0 }, other;
	struct err err = { 0 };

	FUZZ_CHECK(netpool_init(&pool, "10.254.0.0/24") == 0);
	if (netpool_take(&pool, text, &place, &err) == 0) {
		uint32_t mask = net_mask(place.prefix), subnet = net_subnet(&place);

		FUZZ_CHECK(place.gateway == subnet + 1 && place.address != place.gateway);
		FUZZ_CHECK(place.address != subnet && place.address != (subnet | ~mask));
		FUZZ_CHECK(place.is_shared == (*text != '\0'));
		FUZZ_CHECK(place.is_shared == ((place.address >> 8) != 0x0afe00));
		if (netpool_take(&pool, text, &other, &err) == 0)
			FUZZ_CHECK(other.address != place.address);
		netpool_give(&pool, &place);
	} else {
		FUZZ_CHECK(err.kind != ERR_NONE && err.msg[0]);
	}
	netpool_done(&pool);
	if (netpool_init(&pool, text) == 0)
		FUZZ_CHECK(pool.n_subnets > 0 && pool.prefix >= 8 && pool.prefix <= 30);
	netpool_done(&pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	FUZZ_CHECK(text);
	memcpy(text, data, size);
	text[size] = '\0';
	check_rule(text);
	check_text(text);
	check_place(text);
	free(text);
	return 0;
}

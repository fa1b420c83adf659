/* Documents of ports, rules and limits, each alone: what is accepted is sound, and comes out of the record or the answer
 * as it went in. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <string.h>

#include "backend.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "net_rule.h"
#include "server/json.h"
#include "server/limits_json.h"
#include "server/net_json.h"

static void check_record(const struct net_rule *rule)
{
	AUTO(net_rule_done) struct net_rule again = { 0 };
	AUTO_BUF struct buf text;

	buf_init(&text, 1 << 20);
	net_rule_write(&text, rule);
	FUZZ_CHECK(!buf_failed(&text) && net_rule_parse(buf_str(&text), &again) == 0);
	FUZZ_CHECK(again.protocol == rule->protocol && again.log == rule->log);
	FUZZ_CHECK(again.n_networks == rule->n_networks && again.n_ports == rule->n_ports);
	for (size_t i = 0; i < rule->n_networks; i++)
		FUZZ_CHECK(
			!memcmp(&again.networks[i], &rule->networks[i], sizeof(*rule->networks)));
}

static void check_rule(const struct net_rule *rule)
{
	FUZZ_CHECK(rule->protocol < N_NET_PROTOCOLS);
	FUZZ_CHECK(!rule->n_ports || rule->protocol == NET_TCP || rule->protocol == NET_UDP);
	for (size_t i = 0; i < rule->n_ports; i++)
		FUZZ_CHECK(rule->ports[i].first <= rule->ports[i].last);
	for (size_t i = 0; i < rule->n_networks; i++) {
		const struct net_range *range = &rule->networks[i];

		FUZZ_CHECK(range->family == AF_INET || range->family == AF_INET6);
		FUZZ_CHECK(
			memcmp(range->first, range->last, range->family == AF_INET ? 4 : 16) <= 0);
	}
	check_record(rule);
}

static void check_rules(const json_t *json)
{
	struct net_rule *rules = NULL;
	struct err err = { 0 };
	size_t n = 0;

	if (net_out_parse(json, "", &rules, &n, &err) == 0)
		for (size_t i = 0; i < n; i++)
			check_rule(&rules[i]);
	else
		FUZZ_CHECK(err.kind != ERR_NONE && err.msg[0]);
	net_rules_free(rules, n);
}

static void check_port(const json_t *json)
{
	struct net_port port = { 1, 1 };
	struct err err = { 0 };

	if (net_in_parse(json, "", &port, &err) < 0)
		FUZZ_CHECK(err.kind != ERR_NONE && err.msg[0]);
}

/* What is told of limits is what was asked for. */
static void check_limits(const json_t *json)
{
	static const char *const names[N_LIMITS_GROUPS] = { "bandwidth_limits", "cpu_limits",
		"disk_limits", "memory_limits", "pid_limits" };
	struct limits limits = { 0 }, again = { 0 };
	AUTO_JSON json_t *groups = json_object(), *spec = json_object();
	struct err err = { 0 };

	if (limits_parse(json, &limits, &err) < 0) {
		FUZZ_CHECK(err.kind != ERR_NONE && err.msg[0]);
		return;
	}
	for (enum limits_group group = 0; group < N_LIMITS_GROUPS; group++)
		json_object_set_new(groups, names[group], limits_json(&limits, group));
	json_object_set(spec, "limits", groups);
	FUZZ_CHECK(limits_parse(spec, &again, &err) == 0);
	/* larger ones are told as the largest number of the API */
	FUZZ_CHECK(limits.memory_bytes > INT64_MAX || again.memory_bytes == limits.memory_bytes);
	FUZZ_CHECK(limits.n_pids > INT64_MAX || again.n_pids == limits.n_pids);
	FUZZ_CHECK(limits.cpu_shares > INT64_MAX || again.cpu_shares == limits.cpu_shares);
	FUZZ_CHECK(again.disk_scope == limits.disk_scope && limits.disk_scope <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = NULL;
	struct err err = { 0 };

	if (json_parse((const char *)data, size, &json, &err) == 0) {
		check_rules(json);
		check_port(json);
		if (json_is_object(json))
			check_limits(json);
	}
	json_decref(json);
	return 0;
}

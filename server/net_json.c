#include "server/net_json.h"

#include <errno.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/err.h"
#include "net_rule.h"

#define MAX_RULES 1000
#define MAX_RANGES 1000

static int port_field(const json_t *json, const char *where, const char *name, uint16_t *ret_port,
	struct err *err)
{
	uint64_t port = 0;
	int r = json_u64_field(json, where, name, UINT16_MAX, &port, err);

	*ret_port = (uint16_t)port;
	return r;
}

static int check_object(const json_t *json, const char *where, struct err *err)
{
	return json_is_object(json) ? 0
				    : err_set(err, ERR_INVALID, EINVAL, "%s: expected an object",
					      *where ? where : "body");
}

int net_in_parse(const json_t *json, const char *where, struct net_port *ret_port, struct err *err)
{
	int r = check_object(json, where, err);

	*ret_port = (struct net_port){ 0 };
	if (r == 0)
		r = port_field(json, where, "host_port", &ret_port->host, err);
	return r < 0 ? r : port_field(json, where, "container_port", &ret_port->container, err);
}

/* ---- rules ----------------------------------------------------------------------------------- */

static int parse_network(const json_t *json, const char *where, void *item, struct err *err)
{
	AUTO_FREE char *first = NULL, *last = NULL;
	int r = check_object(json, where, err);

	if (r == 0)
		r = json_string_field(json, where, "start", &first, err);
	if (r == 0)
		r = json_string_field(json, where, "end", &last, err);
	if (r < 0)
		return r;
	return net_range_parse(first, last, item) < 0
		? err_set(err, ERR_INVALID, EINVAL,
			  "%s: expected two addresses of one family, start not behind end", where)
		: 0;
}

static int parse_ports(const json_t *json, const char *where, void *item, struct err *err)
{
	struct net_port_range *range = item;
	int r = check_object(json, where, err);

	if (r == 0)
		r = port_field(json, where, "start", &range->first, err);
	if (r == 0)
		r = port_field(json, where, "end", &range->last, err);
	if (r == 0 && !range->last)
		range->last = range->first;
	if (r == 0 && range->first > range->last)
		r = err_set(err, ERR_INVALID, EINVAL, "%s: start is behind end", where);
	return r;
}

static int parse_ranges(
	const json_t *json, const char *where, struct net_rule *rule, struct err *err)
{
	static const struct json_list networks = { "networks", MAX_RANGES, sizeof(struct net_range),
		parse_network };
	static const struct json_list ports = { "ports", MAX_RANGES, sizeof(struct net_port_range),
		parse_ports };
	void *of_networks = NULL, *of_ports = NULL;
	int r = json_list_field(json, where, &networks, &of_networks, &rule->n_networks, err);

	if (r == 0)
		r = json_list_field(json, where, &ports, &of_ports, &rule->n_ports, err);
	rule->networks = of_networks;
	rule->ports = of_ports;
	return r;
}

/* 255 means any type, as iptables has it. */
static int parse_icmp(const json_t *json, const char *where, struct net_rule *rule, struct err *err)
{
	uint64_t type = 0, code = 0;
	json_t *icmp, *value = NULL;
	int r = json_object_field(json, where, "icmps", &icmp, err);

	if (r < 0 || !icmp)
		return r;
	r = json_u64_field(icmp, "icmps", "type", UINT8_MAX, &type, err);
	if (r == 0)
		r = json_field(icmp, "icmps", "code", &value, err);
	if (r == 0 && value)
		r = json_u64_field(icmp, "icmps", "code", UINT8_MAX, &code, err);
	if (r < 0)
		return r;
	rule->has_type = type != UINT8_MAX;
	rule->has_code = value && rule->has_type;
	rule->type = (uint8_t)type;
	rule->code = (uint8_t)code;
	return 0;
}

static int parse_rule(const json_t *json, const char *where, void *item, struct err *err)
{
	struct net_rule *rule = item;
	uint64_t protocol = 0;
	int r = check_object(json, where, err);

	if (r == 0)
		r = json_u64_field(json, where, "protocol", UINT8_MAX, &protocol, err);
	if (r == 0 && protocol >= N_NET_PROTOCOLS)
		r = err_set(err, ERR_INVALID, EINVAL, "invalid protocol: %u", (unsigned)protocol);
	if (r < 0)
		return r;
	rule->protocol = (enum net_protocol)protocol;
	r = parse_ranges(json, where, rule, err);
	if (r == 0)
		r = parse_icmp(json, where, rule, err);
	if (r == 0)
		r = json_bool_field(json, where, "log", &rule->log, err);
	return r < 0 ? r : net_rule_check(rule, err);
}

int net_out_parse(const json_t *json, const char *where, struct net_rule **ret_rules, size_t *ret_n,
	struct err *err)
{
	static const struct json_list list = { "rules", MAX_RULES, sizeof(struct net_rule),
		parse_rule };
	void *rules = NULL;
	int r;

	*ret_n = 0;
	if (json_is_array(json)) {
		r = json_list_parse(json, where, &list, &rules, ret_n, err);
	} else {
		rules = calloc(1, sizeof(struct net_rule));
		*ret_n = rules != NULL;
		r = rules ? parse_rule(json, where, rules, err) : err_system(err, -ENOMEM, "rule");
	}
	*ret_rules = rules;
	return r;
}

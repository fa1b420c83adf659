#include "server/net_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/err.h"
#include "net_rule.h"

#define MAX_RULES 1000
#define MAX_RANGES 1000
#define WHERE_BYTES 96

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

static int parse_network(
	const json_t *json, const char *where, struct net_range *ret_range, struct err *err)
{
	AUTO_FREE char *first = NULL, *last = NULL;
	int r = check_object(json, where, err);

	if (r == 0)
		r = json_string_field(json, where, "start", &first, err);
	if (r == 0)
		r = json_string_field(json, where, "end", &last, err);
	if (r < 0)
		return r;
	return net_range_parse(first, last, ret_range) < 0
		? err_set(err, ERR_INVALID, EINVAL,
			  "%s: expected two addresses of one family, start not behind end", where)
		: 0;
}

static int parse_ports(
	const json_t *json, const char *where, struct net_port_range *ret_range, struct err *err)
{
	int r = check_object(json, where, err);

	if (r == 0)
		r = port_field(json, where, "start", &ret_range->first, err);
	if (r == 0)
		r = port_field(json, where, "end", &ret_range->last, err);
	if (r == 0 && !ret_range->last)
		ret_range->last = ret_range->first;
	if (r == 0 && ret_range->first > ret_range->last)
		r = err_set(err, ERR_INVALID, EINVAL, "%s: start is behind end", where);
	return r;
}

/* The list of the name, or NULL; not longer than it may be. */
static int list_field(
	const json_t *json, const char *where, const char *name, json_t **ret_list, struct err *err)
{
	int r = json_array_field(json, where, name, ret_list, err);

	if (r < 0 || json_array_size(*ret_list) <= MAX_RANGES)
		return r;
	return err_set(err, ERR_INVALID, E2BIG, "%s%s%s: more than %d", where, *where ? "." : "",
		name, MAX_RANGES);
}

static int parse_networks(
	const json_t *json, const char *where, struct net_rule *rule, struct err *err)
{
	char at[WHERE_BYTES];
	json_t *list, *item;
	size_t i;
	int r = list_field(json, where, "networks", &list, err);

	if (r < 0 || !list)
		return r;
	rule->networks = calloc(json_array_size(list) + 1, sizeof(*rule->networks));
	if (!rule->networks)
		return err_system(err, -ENOMEM, "networks");
	json_array_foreach(list, i, item)
	{
		snprintf(at, sizeof(at), "%.60s%snetworks[%zu]", where, *where ? "." : "", i);
		r = parse_network(item, at, &rule->networks[rule->n_networks++], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_port_ranges(
	const json_t *json, const char *where, struct net_rule *rule, struct err *err)
{
	char at[WHERE_BYTES];
	json_t *list, *item;
	size_t i;
	int r = list_field(json, where, "ports", &list, err);

	if (r < 0 || !list)
		return r;
	rule->ports = calloc(json_array_size(list) + 1, sizeof(*rule->ports));
	if (!rule->ports)
		return err_system(err, -ENOMEM, "ports");
	json_array_foreach(list, i, item)
	{
		snprintf(at, sizeof(at), "%.60s%sports[%zu]", where, *where ? "." : "", i);
		r = parse_ports(item, at, &rule->ports[rule->n_ports++], err);
		if (r < 0)
			return r;
	}
	return 0;
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

static int parse_rule(const json_t *json, const char *where, struct net_rule *rule, struct err *err)
{
	uint64_t protocol = 0;
	int r = check_object(json, where, err);

	if (r == 0)
		r = json_u64_field(json, where, "protocol", UINT8_MAX, &protocol, err);
	if (r == 0 && protocol >= N_NET_PROTOCOLS)
		r = err_set(err, ERR_INVALID, EINVAL, "invalid protocol: %u", (unsigned)protocol);
	if (r < 0)
		return r;
	rule->protocol = (enum net_protocol)protocol;
	r = parse_networks(json, where, rule, err);
	if (r == 0)
		r = parse_port_ranges(json, where, rule, err);
	if (r == 0)
		r = parse_icmp(json, where, rule, err);
	if (r == 0)
		r = json_bool_field(json, where, "log", &rule->log, err);
	return r < 0 ? r : net_rule_check(rule, err);
}

int net_out_parse(const json_t *json, const char *where, struct net_rule **ret_rules, size_t *ret_n,
	struct err *err)
{
	size_t n = json_is_array(json) ? json_array_size(json) : 1;
	char at[WHERE_BYTES];
	int r = 0;

	*ret_n = 0;
	*ret_rules = NULL;
	if (n > MAX_RULES)
		return err_set(err, ERR_INVALID, E2BIG, "rules: more than %d", MAX_RULES);
	*ret_rules = calloc(n + 1, sizeof(**ret_rules));
	if (!*ret_rules)
		return err_system(err, -ENOMEM, "rules");
	if (!json_is_array(json)) {
		*ret_n = 1;
		return parse_rule(json, where, *ret_rules, err);
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		snprintf(at, sizeof(at), "%.40s[%zu]", where, i);
		*ret_n = i + 1;
		r = parse_rule(json_array_get(json, i), at, &(*ret_rules)[i], err);
	}
	return r;
}

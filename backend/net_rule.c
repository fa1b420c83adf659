#include "net_rule.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/parse.h"

static const char *const protocol_names[N_NET_PROTOCOLS] = { "ALL", "TCP", "UDP", "ICMP" };

void net_rule_done(struct net_rule *rule)
{
	free(rule->networks);
	free(rule->ports);
	*rule = (struct net_rule){ 0 };
}

void net_rules_free(struct net_rule *take_rules, size_t n_rules)
{
	for (size_t i = 0; i < n_rules; i++)
		net_rule_done(&take_rules[i]);
	free(take_rules);
}

int net_rule_copy(struct net_rule *ret_copy, const struct net_rule *rule)
{
	*ret_copy = *rule;
	ret_copy->networks = calloc(rule->n_networks + 1, sizeof(*rule->networks));
	ret_copy->ports = calloc(rule->n_ports + 1, sizeof(*rule->ports));
	if (!ret_copy->networks || !ret_copy->ports)
		return -ENOMEM;
	if (rule->n_networks)
		memcpy(ret_copy->networks, rule->networks,
			rule->n_networks * sizeof(*rule->networks));
	if (rule->n_ports)
		memcpy(ret_copy->ports, rule->ports, rule->n_ports * sizeof(*rule->ports));
	return 0;
}

static int parse_address(const char *text, uint8_t address[16])
{
	if (inet_pton(AF_INET, text, address) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, text, address) == 1 ? AF_INET6 : -EINVAL;
}

int net_range_parse(const char *first, const char *last, struct net_range *ret_range)
{
	struct net_range range = { 0 };
	bool has_first = first && *first, has_last = last && *last;
	int family = has_last ? parse_address(last, range.last) : AF_UNSPEC;

	if (!has_first && !has_last)
		return -EINVAL;
	range.family = has_first ? parse_address(first, range.first) : family;
	if (family < 0 || range.family < 0 || (has_last && family != range.family))
		return -EINVAL;
	if (!has_last)
		memcpy(range.last, range.first, sizeof(range.last));
	if (memcmp(range.first, range.last, range.family == AF_INET ? 4 : 16) > 0)
		return -EINVAL;
	*ret_range = range;
	return 0;
}

int net_rule_check(const struct net_rule *rule, struct err *err)
{
	if (rule->n_ports && rule->protocol != NET_TCP && rule->protocol != NET_UDP)
		return err_set(err, ERR_INVALID, EINVAL,
			"Ports cannot be specified for Protocol %s",
			protocol_names[rule->protocol]);
	return 0;
}

/* ---- as text: "1 log type 8 code 0 net 10.0.0.0-10.0.0.9 port 1-80" --------------------------- */

void net_rule_write(struct buf *text, const struct net_rule *rule)
{
	char first[INET6_ADDRSTRLEN], last[INET6_ADDRSTRLEN];

	buf_addf(text, "%d", (int)rule->protocol);
	if (rule->log)
		buf_adds(text, " log");
	if (rule->has_type)
		buf_addf(text, " type %u", rule->type);
	if (rule->has_code)
		buf_addf(text, " code %u", rule->code);
	for (size_t i = 0; i < rule->n_networks; i++) {
		const struct net_range *range = &rule->networks[i];

		inet_ntop(range->family, range->first, first, sizeof(first));
		inet_ntop(range->family, range->last, last, sizeof(last));
		buf_addf(text, " net %s-%s", first, last);
	}
	for (size_t i = 0; i < rule->n_ports; i++)
		buf_addf(text, " port %u-%u", rule->ports[i].first, rule->ports[i].last);
}

static int add_network(struct net_rule *rule, char *text)
{
	char *last = text ? strchr(text, '-') : NULL;

	if (!last)
		return -EINVAL;
	*last++ = '\0';
	return net_range_parse(text, last, &rule->networks[rule->n_networks++]);
}

static int add_port(struct net_rule *rule, char *text)
{
	struct net_port_range *range = &rule->ports[rule->n_ports++];
	char *last_text = text ? strchr(text, '-') : NULL;
	uint64_t first, last;

	if (!last_text)
		return -EINVAL;
	*last_text++ = '\0';
	if (parse_u64(text, UINT16_MAX, &first) < 0 || parse_u64(last_text, UINT16_MAX, &last) < 0)
		return -EINVAL;
	*range = (struct net_port_range){ (uint16_t)first, (uint16_t)last };
	return 0;
}

static int add_number(char *text, uint8_t *ret_number, bool *ret_has)
{
	uint64_t number;

	if (!text || parse_u64(text, UINT8_MAX, &number) < 0)
		return -EINVAL;
	*ret_number = (uint8_t)number;
	*ret_has = true;
	return 0;
}

static int add_word(struct net_rule *rule, const char *word, char **rest)
{
	if (!strcmp(word, "log"))
		rule->log = true;
	else if (!strcmp(word, "type"))
		return add_number(strsep(rest, " "), &rule->type, &rule->has_type);
	else if (!strcmp(word, "code"))
		return add_number(strsep(rest, " "), &rule->code, &rule->has_code);
	else if (!strcmp(word, "net"))
		return add_network(rule, strsep(rest, " "));
	else if (!strcmp(word, "port"))
		return add_port(rule, strsep(rest, " "));
	else
		return -EINVAL;
	return 0;
}

int net_rule_parse(const char *text, struct net_rule *ret_rule)
{
	AUTO_FREE char *copy = strdup(text);
	char *rest = copy, *word;
	size_t n_words = 1;
	uint64_t protocol;
	int r = 0;

	*ret_rule = (struct net_rule){ 0 };
	for (const char *at = text; *at; at++)
		n_words += *at == ' ';
	ret_rule->networks = calloc(n_words, sizeof(*ret_rule->networks));
	ret_rule->ports = calloc(n_words, sizeof(*ret_rule->ports));
	if (!copy || !ret_rule->networks || !ret_rule->ports)
		return -ENOMEM;
	word = strsep(&rest, " ");
	if (parse_u64(word, N_NET_PROTOCOLS - 1, &protocol) < 0)
		return -EINVAL;
	ret_rule->protocol = (enum net_protocol)protocol;
	while (r == 0 && (word = strsep(&rest, " ")))
		r = add_word(ret_rule, word, &rest);
	return r;
}

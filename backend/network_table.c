#include "network_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/guard.h"
#include "base/parse.h"

/* What no network outside is: link-local and metadata services (AWS, Azure, GCP), ourselves. */
#define RESERVED_4 "0.0.0.0/8, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16"
#define RESERVED_6 "::/127, fe80::/10, fd00:ec2::254, fd20:ce::254"

/* ---- networks as text ------------------------------------------------------------------------ */

static int family_of(const char *text, size_t len, unsigned char address[16])
{
	char copy[64];

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (inet_pton(AF_INET, copy, address) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, copy, address) == 1 ? AF_INET6 : -EINVAL;
}

int network_text_check(const char *network, int *ret_family)
{
	size_t len = strcspn(network, "/-");
	unsigned char first[16], last[16];
	uint64_t prefix;

	*ret_family = family_of(network, len, first);
	if (*ret_family < 0)
		return -EINVAL;
	if (network[len] == '/')
		return parse_u64(network + len + 1, *ret_family == AF_INET ? 32 : 128, &prefix) < 0
			? -EINVAL
			: 0;
	if (network[len] != '-')
		return 0;
	if (family_of(network + len + 1, strlen(network + len + 1), last) != *ret_family)
		return -EINVAL;
	return memcmp(first, last, *ret_family == AF_INET ? 4 : 16) <= 0 ? 0 : -EINVAL;
}

static size_t add_networks(
	struct buf *text, const struct strv *networks, int family, const char *separator)
{
	size_t n = 0;
	int of;

	for (size_t i = 0; networks && i < networks->n_items; i++)
		if (network_text_check(networks->items[i], &of) == 0 && of == family)
			buf_addf(text, "%s%s", n++ ? ", " : separator, networks->items[i]);
	return n;
}

/* ---- sets ------------------------------------------------------------------------------------ */

struct writer {
	struct buf *text;
	const struct network_policy *policy;
	void (*elements)(struct buf *text, const char *set, void *arg);
	void *arg;
};

/* And the end of the set. */
static void add_elements(const struct writer *writer, const char *name)
{
	size_t before, after;

	if (writer->elements) {
		buf_adds(writer->text, "\t\telements = { ");
		before = writer->text->len;
		writer->elements(writer->text, name, writer->arg);
		after = writer->text->len;
		if (after > before) {
			buf_adds(writer->text, " }\n");
		} else if (!buf_failed(writer->text)) { /* nft knows no empty list */
			writer->text->len -= strlen("\t\telements = { ");
			writer->text->data[writer->text->len] = '\0';
		}
	}
	buf_adds(writer->text, "\t}\n");
}

static void add_set(
	const struct writer *writer, const char *kind, const char *name, const char *type)
{
	buf_addf(writer->text, "\t%s %s {\n\t\ttype %s\n", kind, name, type);
	add_elements(writer, name);
}

static void add_networks_set(
	const struct writer *writer, const char *name, int family, const struct strv *networks)
{
	buf_addf(writer->text, "\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\tauto-merge\n",
		name, family == AF_INET ? "ipv4_addr" : "ipv6_addr");
	if (add_networks(writer->text, networks, family, "\t\telements = { "))
		buf_adds(writer->text, " }\n");
	buf_adds(writer->text, "\t}\n");
}

static void add_sets(const struct writer *writer)
{
	static const char reserved[] =
		"\tset reserved%d {\n\t\ttype ipv%d_addr\n\t\tflags interval\n"
		"\t\telements = { %s }\n\t}\n";
	const struct network_policy *policy = writer->policy;

	add_set(writer, "set", "sources4", "ifname . ipv4_addr");
	add_set(writer, "set", "sources6", "ifname . ipv6_addr");
	add_set(writer, "set", "bridges", "ifname . ifname");
	add_set(writer, "map", "ports4", "inet_service : ipv4_addr . inet_service");
	add_set(writer, "map", "ports6", "inet_service : ipv6_addr . inet_service");
	/* filled when their chains exist */
	buf_adds(writer->text,
		"\tmap rules4 {\n\t\ttype ipv4_addr : verdict\n\t}\n"
		"\tmap rules6 {\n\t\ttype ipv6_addr : verdict\n\t}\n");
	buf_addf(writer->text, reserved, 4, 4, RESERVED_4);
	buf_addf(writer->text, reserved, 6, 6, RESERVED_6);
	add_networks_set(writer, "denied4", AF_INET, policy->denied);
	add_networks_set(writer, "denied6", AF_INET6, policy->denied);
	add_networks_set(writer, "restricted4", AF_INET, policy->restricted);
	add_networks_set(writer, "restricted6", AF_INET6, policy->restricted);
	add_networks_set(writer, "resolvers4", AF_INET, policy->resolvers);
	add_networks_set(writer, "resolvers6", AF_INET6, policy->resolvers);
}

/* ---- chains ---------------------------------------------------------------------------------- */

#define REJECT "goto refuse"

static void add_base(const struct writer *writer, const char *name, const char *type,
	const char *hook, int priority)
{
	buf_addf(writer->text, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy accept;\n",
		name, type, hook, priority);
}

static void add_rule(const struct writer *writer, const char *rule)
{
	buf_addf(writer->text, "\t\t%s\n", rule);
}

static void end_chain(const struct writer *writer)
{
	buf_adds(writer->text, "\t}\n");
}

static void add_chain(const struct writer *writer, const char *name, const char *const rules[])
{
	buf_addf(writer->text, "\tchain %s {\n", name);
	for (; *rules; rules++)
		if (**rules)
			add_rule(writer, *rules);
	end_chain(writer);
}

/* Before connection tracking: what no container may send is not even tracked. */
static void add_source_check(const struct writer *writer)
{
	bool v6 = writer->policy->v6;

	add_chain(writer, "source",
		(const char *const[]){ "ip daddr 127.0.0.0/8 drop",
			"meta nfproto ipv4 iifname . ip saddr @sources4 accept",
			v6 ? "icmpv6 type { nd-router-advert, nd-redirect } drop" : "",
			v6 ? "meta nfproto ipv6 iifname . ip6 saddr @sources6 accept" : "",
			v6 ? "ip6 saddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
			   : "",
			GUARD(ANTISPOOF) ? "drop" : "", NULL });
	add_base(writer, "check_source", "filter", "prerouting", -300);
	buf_addf(writer->text, "\t\tiifname \"%s*\" jump source\n", writer->policy->links);
	end_chain(writer);
}

static void add_input(const struct writer *writer)
{
	const struct network_policy *policy = writer->policy;

	/* An ICMP error would arrive while the caller of connect(2) still holds the socket, and count
	 * for nothing until the next try, a second later. */
	add_chain(writer, "refuse",
		(const char *const[]){ "meta l4proto tcp reject with tcp reset",
			"reject with icmpx type admin-prohibited", NULL });

	buf_adds(writer->text, "\tchain to_host {\n");
	add_rule(writer, "ct state established,related accept");
	add_rule(writer,
		"icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, echo-request } accept");
	add_rule(writer, "icmp type echo-request accept");
	for (size_t i = 0; i < policy->n_own_ports; i++)
		buf_addf(writer->text, "\t\ttcp dport %u " REJECT "\n", policy->own_ports[i]);
	add_rule(writer, policy->host_access || !GUARD(HOST_ACCESS) ? "accept" : REJECT);
	end_chain(writer);
	add_base(writer, "input", "filter", "input", 0);
	buf_addf(writer->text, "\t\tiifname \"%s*\" jump to_host\n", policy->links);
	end_chain(writer);
}

static void add_forward(const struct writer *writer)
{
	const char *links = writer->policy->links;

	add_chain(writer, "into_container",
		(const char *const[]){ "ct state established,related accept",
			"ct status dnat accept", "drop", NULL });
	add_chain(writer, "reserved",
		(const char *const[]){
			"ip daddr @resolvers4 meta l4proto { tcp, udp } th dport 53 return",
			"ip6 daddr @resolvers6 meta l4proto { tcp, udp } th dport 53 return",
			REJECT, NULL });
	buf_adds(writer->text, "\tchain out_of_container {\n");
	add_rule(writer, "ct state established,related accept");
	add_rule(writer, "iifname . oifname @bridges accept");
	if (GUARD(ISOLATION))
		buf_addf(writer->text, "\t\toifname \"%s*\" " REJECT "\n", links);
	add_rule(writer, "ip daddr @restricted4 " REJECT);
	add_rule(writer, "ip6 daddr @restricted6 " REJECT);
	add_rule(writer, "ip saddr vmap @rules4");
	add_rule(writer, "ip6 saddr vmap @rules6");
	if (GUARD(METADATA)) {
		add_rule(writer, "ip daddr @reserved4 jump reserved");
		add_rule(writer, "ip6 daddr @reserved6 jump reserved");
	}
	add_rule(writer, "ip daddr @denied4 " REJECT);
	add_rule(writer, "ip6 daddr @denied6 " REJECT);
	add_rule(writer, "accept");
	end_chain(writer);
	add_base(writer, "forward", "filter", "forward", 0);
	buf_addf(writer->text,
		"\t\tiifname \"%s*\" tcp flags syn tcp option maxseg size set rt mtu\n"
		"\t\toifname \"%s*\" tcp flags syn tcp option maxseg size set rt mtu\n"
		"\t\tiifname \"%s*\" jump out_of_container\n"
		"\t\toifname \"%s*\" jump into_container\n",
		links, links, links, links);
	end_chain(writer);
}

static void add_nat(const struct writer *writer)
{
	const struct network_policy *policy = writer->policy;
	const char *links = policy->links;

	add_chain(writer, "ports",
		(const char *const[]){
			"fib daddr type local meta nfproto ipv4 dnat ip to tcp dport map @ports4",
			"fib daddr type local meta nfproto ipv6 dnat ip6 to tcp dport map @ports6",
			NULL });
	add_base(writer, "from_outside", "nat", "prerouting", -100);
	buf_addf(writer->text, "\t\tiifname != \"%s*\" meta l4proto tcp jump ports\n", links);
	end_chain(writer);
	add_base(writer, "from_host", "nat", "output", -100);
	add_rule(writer, "meta l4proto tcp jump ports");
	end_chain(writer);
	add_base(writer, "to_outside", "nat", "postrouting", 100);
	/* the host's own loopback address means nothing to a container */
	buf_addf(writer->text,
		"\t\toifname \"%s*\" ip saddr 127.0.0.0/8 masquerade\n"
		"\t\tiifname \"%s*\" oifname != \"%s*\" meta nfproto ipv4 masquerade\n",
		links, links, links);
	if (policy->v6 && policy->v6_masquerade)
		buf_addf(writer->text,
			"\t\tiifname \"%s*\" oifname != \"%s*\" meta nfproto ipv6 masquerade\n",
			links, links);
	end_chain(writer);
}

/* Who a container says it is shows in no table of neighbours but as itself. */
static void add_arp(const struct writer *writer)
{
	const struct network_policy *policy = writer->policy;

	buf_addf(writer->text, "table arp %s {\n}\ndelete table arp %s\ntable arp %s {\n",
		policy->table, policy->table, policy->table);
	add_set(writer, "set", "senders4", "ifname . ipv4_addr");
	add_base(writer, "input", "filter", "input", 0);
	if (GUARD(ANTISPOOF))
		buf_addf(writer->text,
			"\t\tiifname \"%s*\" iifname . arp saddr ip != @senders4 drop\n",
			policy->links);
	end_chain(writer);
	buf_adds(writer->text, "}\n");
}

/* Siblings at a bridge share a wire: each sends as the address and the hardware address that it was given, tells
 * no other's, and is no router. Before the bridge learns where they are. */
static void add_bridge(const struct writer *writer)
{
	const struct network_policy *policy = writer->policy;
	const char *table = policy->table;

	buf_addf(writer->text, "table bridge %s {\n}\ndelete table bridge %s\ntable bridge %s {\n",
		table, table, table);
	add_set(writer, "set", "stations4", "ifname . ether_addr . ipv4_addr");
	add_set(writer, "set", "stations6", "ifname . ether_addr . ipv6_addr");
	buf_adds(writer->text, "\tset targets6 {\n\t\ttypeof iifname . ether saddr . @th,64,128\n");
	add_elements(writer, "targets6");
	add_chain(writer, "station",
		(const char *const[]){
			"ether type ip iifname . ether saddr . ip saddr @stations4 accept",
			"ether type arp iifname . ether saddr . arp saddr ip @stations4"
			" iifname . arp saddr ether . arp saddr ip @stations4 accept",
			"icmpv6 type nd-neighbor-advert"
			" iifname . ether saddr . @th,64,128 != @targets6 drop",
			"ether type ip6 iifname . ether saddr . ip6 saddr @stations6 accept",
			"ip6 saddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
			GUARD(ANTISPOOF) ? "drop" : "", NULL });
	add_base(writer, "check_station", "filter", "prerouting", -300);
	buf_addf(writer->text, "\t\tiifname \"%s*\" jump station\n", policy->links);
	end_chain(writer);
	buf_adds(writer->text, "}\n");
}

void network_table_write(struct buf *text, const struct network_policy *policy,
	void (*elements)(struct buf *text, const char *set, void *arg), void *arg)
{
	const struct writer writer = { text, policy, elements, arg };

	buf_addf(text, "table inet %s {\n}\ndelete table inet %s\ntable inet %s {\n", policy->table,
		policy->table, policy->table);
	buf_addf(text, "\tchain %s {\n\t}\n", policy->owner);
	add_sets(&writer);
	add_source_check(&writer);
	add_input(&writer);
	add_forward(&writer);
	add_nat(&writer);
	buf_adds(text, "}\n");
	add_arp(&writer);
	if (policy->has_bridges)
		add_bridge(&writer);
}

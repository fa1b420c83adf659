/* net_rule.h - what a container's NetIn and NetOut ask for, after JSON and before the kernel. Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

struct net_port {
	uint16_t host, container; /* 0: host: from the pool; container: the same as host */
};

enum net_protocol { NET_ALL, NET_TCP, NET_UDP, NET_ICMP, N_NET_PROTOCOLS };

/* Addresses as inet_pton(3) gives them, 4 or 16 bytes; family AF_INET or AF_INET6. */
struct net_range {
	int family;
	uint8_t first[16], last[16];
};
struct net_port_range {
	uint16_t first, last;
};

/* Lets through what fits one of the networks (none: everywhere outside) and one of the ports (none:
 * all). */
struct net_rule {
	enum net_protocol protocol;
	struct net_range *networks;
	struct net_port_range *ports;
	size_t n_networks, n_ports;
	bool has_type, has_code, log;
	uint8_t type, code; /* of ICMP */
};
void net_rule_done(struct net_rule *rule);
void net_rules_free(struct net_rule *take_rules, size_t n_rules);
/* *ret_copy is the caller's, also when it fails. 0 or -ENOMEM. */
int net_rule_copy(struct net_rule *ret_copy, const struct net_rule *rule);

/* An address range from text; last NULL or "": first alone; first NULL or "": from the lowest of
 * last's family. -EINVAL. */
int net_range_parse(const char *first, const char *last, struct net_range *ret_range);

/* 0, or -EINVAL in the reference's words: ports without TCP or UDP. */
int net_rule_check(const struct net_rule *rule, struct err *err);

/* As one line of text for the record, and back: *ret_rule is the caller's, also when it fails. 0,
 * -EINVAL, -ENOMEM. */
void net_rule_write(struct buf *text, const struct net_rule *rule);
int net_rule_parse(const char *text, struct net_rule *ret_rule);

/* network_table.h - the rules that all containers share, as text for libnftables: one table, made
 * anew in one transaction with the elements that are wanted in it. Pure. A container is an element
 * of its sets; everything that comes from one of our links and is no element is dropped, so a link
 * is never unfiltered, whatever the order of things. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"

struct buf;

struct network_policy {
	const char *table; /* "cloche" or "cloche-<tag>" */
	const char *links; /* what the names of our links begin with */
	const char *owner; /* of the table: "instance-<8 hex>", an empty chain */
	const struct strv *denied, *restricted; /* networks; only NetOut rules open the first */
	const struct strv *resolvers; /* addresses: asked for names wherever they are */
	const uint16_t *own_ports; /* of our API, never reached from a container */
	size_t n_own_ports;
	bool host_access, v6, v6_masquerade;
	bool has_bridges; /* subnets that containers share: a table of family bridge, too */
};

/* Appends the whole table; elements (may be NULL) are those of the named set, "a, b, c". */
void network_table_write(struct buf *text, const struct network_policy *policy,
	void (*elements)(struct buf *text, const char *set, void *arg), void *arg);

/* "10.0.0.0/8", "10.1.2.3", "10.0.0.1-10.0.0.9", "fd00::/8". 0 or -EINVAL. *ret_family. */
int network_text_check(const char *network, int *ret_family);

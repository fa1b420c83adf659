/* net_json.h - NetIn and NetOut as clients write them. Errors name the field. */
#pragma once
#include <stddef.h>

#include "server/json.h"

struct err;
struct net_port;
struct net_rule;

/* {"host_port":N,"container_port":N}; where is the path for messages, "" at the top. */
int net_in_parse(const json_t *json, const char *where, struct net_port *ret_port, struct err *err);
/* One rule, or a list of them. *ret_rules is the caller's, also when it fails. */
int net_out_parse(const json_t *json, const char *where, struct net_rule **ret_rules, size_t *ret_n,
	struct err *err);

/* conntrack.h - connections that the kernel remembers in the network namespace of the caller: what
 * belongs to an accepted one passes the rules, and is rewritten as its first packet was, whoever has
 * the address by now. Over ctnetlink. Threads: any. */
#pragma once
#include <stdbool.h>

/* address: of AF_INET or AF_INET6, in network order. */
typedef bool conntrack_match(int family, const void *address, void *arg);

/* Forgets each connection that has a matching address at any of its ends. How many, or -errno: -EINVAL
 * where the kernel has no ctnetlink. */
int conntrack_forget(conntrack_match *match, void *arg);

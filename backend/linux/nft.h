/* nft.h - what comes and goes in a table of nf_tables that is there already: elements of sets and
 * maps, and small chains with rules. Sent to the kernel as one batch: all or nothing. The table
 * itself is made by libnftables (nft_main.h), not here. Numbers are in host order, keys and data as
 * the set's types have them: parts padded to 4 bytes, addresses and ports in network order.
 * Threads: one at a time per struct nft. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "linux/nl.h"

struct nft {
	int fd; /* our socket: own changes are known by its port */
	uint32_t port, seq;
	const char *table; /* family inet, unless said; borrowed */
};

/* 0 or -errno: -EPROTONOSUPPORT or -EPERM where there is no nf_tables for us. */
int nft_open(struct nft *nft, const char *table);
void nft_close(struct nft *nft);
/* A socket that says in this network namespace, until it is closed, that the server of the table lives:
 * -EADDRINUSE if another one does. */
int nft_claim(const char *table);

struct nft_batch {
	struct nl nl;
	unsigned n_changes;
};
/* space: as long as all the changes; 512 bytes for an element, 2048 for a rule will do. */
void nft_begin(struct nft *nft, struct nft_batch *batch, void *space, size_t size);
/* An empty batch succeeds. -ENOENT: the table, a set, or what was to be deleted is not there. */
int nft_commit(struct nft *nft, struct nft_batch *batch);

struct nft_element {
	const char *set;
	const void *key, *data; /* data NULL: a set; else of a map */
	size_t key_bytes, data_bytes;
	const char *jump; /* of a verdict map: the chain, in place of data */
	uint8_t family; /* of the table of that name: NFPROTO_*; 0: inet */
};
void nft_put_element(struct nft *nft, struct nft_batch *batch, const struct nft_element *element);
void nft_delete_element(
	struct nft *nft, struct nft_batch *batch, const struct nft_element *element);

void nft_put_chain(struct nft *nft, struct nft_batch *batch, const char *chain);
/* With its rules. No map may jump to it any more. */
void nft_delete_chain(struct nft *nft, struct nft_batch *batch, const char *chain);

/* What a rule lets through. Unused parts are left out. */
struct nft_range {
	uint8_t first[16], last[16]; /* network order, the first n bytes of them */
};
struct nft_rule {
	const char *chain, *comment; /* comment: up to 200 bytes, NULL: none */
	int family; /* AF_INET or AF_INET6, 0: both */
	const struct nft_range *network; /* of destinations; NULL: all but those in except_set */
	const char *except_set;
	uint8_t protocol; /* of IP; 0: all */
	bool has_ports, has_icmp_type, has_icmp_code;
	uint16_t first_port, last_port;
	uint8_t icmp_type, icmp_code;
	const char *log_prefix; /* NULL: no log */
};
/* In front of the others; lets through what it describes. */
void nft_insert_rule(struct nft *nft, struct nft_batch *batch, const struct nft_rule *rule);

/* Names of the chains of our table: visit is called with each until it returns other than 0, which
 * is returned. -ENOENT: there is no table. */
int nft_each_chain(struct nft *nft, int (*visit)(const char *chain, void *arg), void *arg);

/* The name of another table whose chain for forwarded packets drops what it does not name, as
 * firewalls of hosts do (that of firewalld by its last rule, which only its name tells); -ENOENT: there
 * is none. */
int nft_find_closed_forward(char ret_table[64]);

/* A socket that hears of all changes to rules but our own. */
int nft_watch_open(const struct nft *nft);
/* Waits for the next ones. 1: something of our table, in whatever family, was taken away or put in by
 * somebody else; 2: so much happened that it may have been; 0: nothing of interest; or -errno.
 * other_port: of the socket of who last made the table anew. */
int nft_watch_wait(int watch_fd, const struct nft *nft, uint32_t other_port);
/* What has been said up to now is not heard. */
void nft_watch_skip(int watch_fd);

#include "linux/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/auto.h"

#define ANSWER_S 10 /* how long the kernel may take for a batch */
#define ROOM_BYTES (8 << 20)
#define WATCH_ROOM_BYTES (2 << 20) /* a table of a thousand containers that is made anew */
#define TYPE(message) (NFNL_SUBSYS_NFTABLES << 8 | (message))

int nft_open(struct nft *nft, const char *table)
{
	struct sockaddr_nl own = { .nl_family = AF_NETLINK };
	struct timeval patience = { .tv_sec = ANSWER_S };
	int room = ROOM_BYTES;
	socklen_t n = sizeof(own);
	AUTO_FD int fd = nl_open(NETLINK_NETFILTER);

	if (fd < 0)
		return fd;
	/* a batch is one datagram; without the right to so much room long ones are refused */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
		bind(fd, (struct sockaddr *)&own, n) < 0 ||
		getsockname(fd, (struct sockaddr *)&own, &n) < 0)
		return -errno;
	*nft = (struct nft){ .fd = TAKE_FD(fd), .port = own.nl_pid, .table = table };
	return 0;
}

void nft_close(struct nft *nft)
{
	auto_fd(&nft->fd);
}

int nft_claim(const char *table)
{
	struct sockaddr_nl own = { .nl_family = AF_NETLINK, .nl_pid = 0xc10c0000 };
	AUTO_FD int fd = nl_open(NETLINK_USERSOCK);

	if (fd < 0)
		return fd;
	for (const char *at = table; *at;
		at++) /* its end differs, and is short: so does the number */
		own.nl_pid = own.nl_pid * 131 + (unsigned char)*at;
	own.nl_pid |= 1u << 31; /* no process has such a number */
	return bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0 ? -errno : TAKE_FD(fd);
}

/* ---- batches --------------------------------------------------------------------------------- */

static void begin_of(struct nft_batch *batch, uint8_t family, uint16_t type, uint16_t flags)
{
	struct nfgenmsg head = { .nfgen_family = family };

	nl_begin(&batch->nl, TYPE(type), flags, &head, sizeof(head));
	batch->n_changes++;
}

static void begin(struct nft_batch *batch, uint16_t type, uint16_t flags)
{
	begin_of(batch, NFPROTO_INET, type, flags);
}

static void add_mark(struct nft_batch *batch, uint16_t type)
{
	struct nfgenmsg head = { .res_id = htons(NFNL_SUBSYS_NFTABLES) };

	nl_begin(&batch->nl, type, 0, &head, sizeof(head));
}

void nft_begin(struct nft *nft, struct nft_batch *batch, void *space, size_t size)
{
	*batch = (struct nft_batch){ 0 };
	nl_init(&batch->nl, space, size);
	batch->nl.seq = batch->nl.first_seq = nft->seq;
	add_mark(batch, NFNL_MSG_BATCH_BEGIN);
}

int nft_commit(struct nft *nft, struct nft_batch *batch)
{
	if (!batch->n_changes)
		return 0;
	/* errors are told of each change; that there was none, of the last alone: the acknowledgements
	 * of hundreds would not fit into the socket */
	if (batch->nl.head) {
		batch->nl.head->nlmsg_flags |= NLM_F_ACK;
		batch->nl.n_acks = 1;
	}
	add_mark(batch, NFNL_MSG_BATCH_END);
	nft->seq = batch->nl.seq;
	return nl_talk(nft->fd, &batch->nl, NULL);
}

/* ---- elements -------------------------------------------------------------------------------- */

static void put_value(struct nl *nl, uint16_t type, const void *data, size_t n_bytes)
{
	size_t nest = nl_nest(nl, type);

	nl_put(nl, NFTA_DATA_VALUE, data, n_bytes);
	nl_end(nl, nest);
}

static void put_verdict(struct nl *nl, uint16_t type, int32_t code, const char *chain)
{
	size_t data = nl_nest(nl, type), verdict = nl_nest(nl, NFTA_DATA_VERDICT);

	nl_put_be32(nl, NFTA_VERDICT_CODE, (uint32_t)code);
	if (chain)
		nl_put_text(nl, NFTA_VERDICT_CHAIN, chain);
	nl_end(nl, verdict);
	nl_end(nl, data);
}

static void add_element(struct nft *nft, struct nft_batch *batch, uint16_t type, uint16_t flags,
	const struct nft_element *element)
{
	struct nl *nl = &batch->nl;
	size_t list, item;

	begin_of(batch, element->family ? element->family : NFPROTO_INET, type, flags);
	nl_put_text(nl, NFTA_SET_ELEM_LIST_TABLE, nft->table);
	nl_put_text(nl, NFTA_SET_ELEM_LIST_SET, element->set);
	list = nl_nest(nl, NFTA_SET_ELEM_LIST_ELEMENTS);
	item = nl_nest(nl, NFTA_LIST_ELEM);
	put_value(nl, NFTA_SET_ELEM_KEY, element->key, element->key_bytes);
	if (element->jump)
		put_verdict(nl, NFTA_SET_ELEM_DATA, NFT_JUMP, element->jump);
	else if (element->data)
		put_value(nl, NFTA_SET_ELEM_DATA, element->data, element->data_bytes);
	nl_end(nl, item);
	nl_end(nl, list);
}

void nft_put_element(struct nft *nft, struct nft_batch *batch, const struct nft_element *element)
{
	add_element(nft, batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, element);
}

void nft_delete_element(struct nft *nft, struct nft_batch *batch, const struct nft_element *element)
{
	struct nft_element key = *element;

	key.data = key.jump = NULL;
	add_element(nft, batch, NFT_MSG_DELSETELEM, 0, &key);
}

/* ---- chains and rules ------------------------------------------------------------------------ */

static void add_chain(
	struct nft *nft, struct nft_batch *batch, uint16_t type, uint16_t flags, const char *chain)
{
	begin(batch, type, flags);
	nl_put_text(&batch->nl, NFTA_CHAIN_TABLE, nft->table);
	nl_put_text(&batch->nl, NFTA_CHAIN_NAME, chain);
}

void nft_put_chain(struct nft *nft, struct nft_batch *batch, const char *chain)
{
	add_chain(nft, batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE, chain);
}

void nft_delete_chain(struct nft *nft, struct nft_batch *batch, const char *chain)
{
	begin(batch, NFT_MSG_DELRULE, 0);
	nl_put_text(&batch->nl, NFTA_RULE_TABLE, nft->table);
	nl_put_text(&batch->nl, NFTA_RULE_CHAIN, chain);
	add_chain(nft, batch, NFT_MSG_DELCHAIN, 0, chain);
}

struct expr {
	size_t item, data;
};

static struct expr expr_begin(struct nl *nl, const char *name)
{
	struct expr expr = { .item = nl_nest(nl, NFTA_LIST_ELEM) };

	nl_put_text(nl, NFTA_EXPR_NAME, name);
	expr.data = nl_nest(nl, NFTA_EXPR_DATA);
	return expr;
}

static void expr_end(struct nl *nl, struct expr expr)
{
	nl_end(nl, expr.data);
	nl_end(nl, expr.item);
}

static void load_meta(struct nl *nl, uint32_t key)
{
	struct expr expr = expr_begin(nl, "meta");

	nl_put_be32(nl, NFTA_META_DREG, NFT_REG_1);
	nl_put_be32(nl, NFTA_META_KEY, key);
	expr_end(nl, expr);
}

static void load_payload(struct nl *nl, uint32_t base, uint32_t offset, uint32_t n_bytes)
{
	struct expr expr = expr_begin(nl, "payload");

	nl_put_be32(nl, NFTA_PAYLOAD_DREG, NFT_REG_1);
	nl_put_be32(nl, NFTA_PAYLOAD_BASE, base);
	nl_put_be32(nl, NFTA_PAYLOAD_OFFSET, offset);
	nl_put_be32(nl, NFTA_PAYLOAD_LEN, n_bytes);
	expr_end(nl, expr);
}

static void compare(struct nl *nl, uint32_t op, const void *data, size_t n_bytes)
{
	struct expr expr = expr_begin(nl, "cmp");

	nl_put_be32(nl, NFTA_CMP_SREG, NFT_REG_1);
	nl_put_be32(nl, NFTA_CMP_OP, op);
	put_value(nl, NFTA_CMP_DATA, data, n_bytes);
	expr_end(nl, expr);
}

static void compare_range(struct nl *nl, const void *first, const void *last, size_t n_bytes)
{
	compare(nl, NFT_CMP_GTE, first, n_bytes);
	compare(nl, NFT_CMP_LTE, last, n_bytes);
}

static void not_in_set(struct nl *nl, const char *set)
{
	struct expr expr = expr_begin(nl, "lookup");

	nl_put_text(nl, NFTA_LOOKUP_SET, set);
	nl_put_be32(nl, NFTA_LOOKUP_SREG, NFT_REG_1);
	nl_put_be32(nl, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
	expr_end(nl, expr);
}

static void match_destination(struct nl *nl, const struct nft_rule *rule)
{
	bool is_v6 = rule->family == AF_INET6;
	uint32_t offset = is_v6 ? 24 : 16, n_bytes = is_v6 ? 16 : 4; /* of the IP header */
	uint8_t family = is_v6 ? NFPROTO_IPV6 : NFPROTO_IPV4;

	if (!rule->family)
		return;
	load_meta(nl, NFT_META_NFPROTO);
	compare(nl, NFT_CMP_EQ, &family, 1);
	load_payload(nl, NFT_PAYLOAD_NETWORK_HEADER, offset, n_bytes);
	if (rule->network)
		compare_range(nl, rule->network->first, rule->network->last, n_bytes);
	else
		not_in_set(nl, rule->except_set);
}

static void match_protocol(struct nl *nl, const struct nft_rule *rule)
{
	uint16_t first = htons(rule->first_port), last = htons(rule->last_port);

	if (!rule->protocol)
		return;
	load_meta(nl, NFT_META_L4PROTO);
	compare(nl, NFT_CMP_EQ, &rule->protocol, 1);
	if (rule->has_ports) {
		load_payload(nl, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
		compare_range(nl, &first, &last, 2);
	}
	if (rule->has_icmp_type) {
		load_payload(nl, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
		compare(nl, NFT_CMP_EQ, &rule->icmp_type, 1);
	}
	if (rule->has_icmp_code) {
		load_payload(nl, NFT_PAYLOAD_TRANSPORT_HEADER, 1, 1);
		compare(nl, NFT_CMP_EQ, &rule->icmp_code, 1);
	}
}

static void put_log(struct nl *nl, const char *prefix)
{
	struct expr expr = expr_begin(nl, "log");

	nl_put_text(nl, NFTA_LOG_PREFIX, prefix);
	expr_end(nl, expr);
}

static void put_accept(struct nl *nl)
{
	struct expr expr = expr_begin(nl, "immediate");

	nl_put_be32(nl, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	put_verdict(nl, NFTA_IMMEDIATE_DATA, NF_ACCEPT, NULL);
	expr_end(nl, expr);
}

/* As nft(8) writes it: type 0 is a comment, then its length with the NUL. */
static void put_comment(struct nl *nl, const char *comment)
{
	unsigned char data[256] = { 0 };
	size_t n = strnlen(comment, 200);

	data[1] = (unsigned char)(n + 1);
	memcpy(data + 2, comment, n);
	nl_put(nl, NFTA_RULE_USERDATA, data, n + 3);
}

void nft_insert_rule(struct nft *nft, struct nft_batch *batch, const struct nft_rule *rule)
{
	struct nl *nl = &batch->nl;
	size_t list;

	begin(batch, NFT_MSG_NEWRULE, NLM_F_CREATE);
	nl_put_text(nl, NFTA_RULE_TABLE, nft->table);
	nl_put_text(nl, NFTA_RULE_CHAIN, rule->chain);
	list = nl_nest(nl, NFTA_RULE_EXPRESSIONS);
	match_destination(nl, rule);
	match_protocol(nl, rule);
	if (rule->log_prefix)
		put_log(nl, rule->log_prefix);
	put_accept(nl);
	nl_end(nl, list);
	if (rule->comment)
		put_comment(nl, rule->comment);
}

/* ---- what is there, and what happens to it --------------------------------------------------- */

struct chain_search {
	const char *table;
	int (*visit)(const char *chain, void *arg);
	void *arg;
	int code;
	bool is_found;
};

static int visit_chain(const struct nlmsghdr *head, void *arg)
{
	struct chain_search *search = arg;
	const char *table = nl_find(head, sizeof(struct nfgenmsg), NFTA_CHAIN_TABLE, NULL);
	const char *name = nl_find(head, sizeof(struct nfgenmsg), NFTA_CHAIN_NAME, NULL);

	if (!table || !name || strcmp(table, search->table) || search->code)
		return 0;
	search->is_found = true;
	search->code = search->visit(name, search->arg);
	return 0;
}

int nft_each_chain(struct nft *nft, int (*visit)(const char *chain, void *arg), void *arg)
{
	unsigned char space[32768] __attribute__((aligned(8)));
	struct chain_search search = { nft->table, visit, arg, 0, false };
	struct nfgenmsg family = { .nfgen_family = NFPROTO_INET };
	AUTO_FD int fd = nl_open(NETLINK_NETFILTER);
	struct nl nl;
	int r;

	if (fd < 0)
		return fd;
	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, TYPE(NFT_MSG_GETCHAIN), NLM_F_DUMP, &family, sizeof(family));
	r = nl_dump(fd, &nl, space, sizeof(space), visit_chain, &search);
	return r < 0 ? r : search.is_found ? search.code : -ENOENT;
}

static uint32_t be32_of(const void *data, size_t n_bytes)
{
	uint32_t value = 0;

	if (data && n_bytes == sizeof(value))
		memcpy(&value, data, sizeof(value));
	return ntohl(value);
}

/* The number of the hook is the first attribute in NFTA_CHAIN_HOOK. */
static bool is_forward(const struct nlmsghdr *head)
{
	size_t n;
	const char *hook = nl_find(head, sizeof(struct nfgenmsg), NFTA_CHAIN_HOOK, &n);

	return hook && n >= NLA_HDRLEN + 4 && be32_of(hook + NLA_HDRLEN, 4) == NF_INET_FORWARD;
}

static int visit_policy(const struct nlmsghdr *head, void *arg)
{
	const struct nfgenmsg *family = NLMSG_DATA(head);
	const char *table = nl_find(head, sizeof(*family), NFTA_CHAIN_TABLE, NULL);
	char *found = arg;
	size_t n;
	const void *policy = nl_find(head, sizeof(*family), NFTA_CHAIN_POLICY, &n);
	bool is_ip = family->nfgen_family == NFPROTO_INET || family->nfgen_family == NFPROTO_IPV4 ||
		family->nfgen_family == NFPROTO_IPV6;

	if (!*found && table && policy && is_ip && is_forward(head) &&
		(be32_of(policy, n) == NF_DROP || !strcmp(table, "firewalld")))
		memcpy(found, table, strnlen(table, 63));
	return 0;
}

int nft_find_closed_forward(char ret_table[64])
{
	unsigned char space[32768] __attribute__((aligned(8)));
	struct nfgenmsg all = { .nfgen_family = NFPROTO_UNSPEC };
	AUTO_FD int fd = nl_open(NETLINK_NETFILTER);
	struct nl nl;
	int r;

	if (fd < 0)
		return fd;
	memset(ret_table, 0, 64);
	nl_init(&nl, space, sizeof(space));
	nl_begin(&nl, TYPE(NFT_MSG_GETCHAIN), NLM_F_DUMP, &all, sizeof(all));
	r = nl_dump(fd, &nl, space, sizeof(space), visit_policy, ret_table);
	return r < 0 ? r : *ret_table ? 0 : -ENOENT;
}

/* All that a datagram says is of one transaction, so of one sender. What we do ourselves wakes nobody. */
static int refuse_own(int watch_fd, const struct nft *nft)
{
	struct sock_filter ops[] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					     offsetof(struct nlmsghdr, nlmsg_pid)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(nft->port), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, UINT32_MAX) };
	struct sock_fprog program = { N_ELEMENTS(ops), ops };

	return setsockopt(watch_fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0
		? -errno
		: 0;
}

int nft_watch_open(const struct nft *nft)
{
	AUTO_FD int fd = nl_open(NETLINK_NETFILTER);
	struct sockaddr_nl own = { .nl_family = AF_NETLINK,
		.nl_groups = 1u << (NFNLGRP_NFTABLES - 1) };
	int room = WATCH_ROOM_BYTES, r;

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	r = refuse_own(fd, nft);
	if (r == 0 && bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0)
		r = -errno;
	return r < 0 ? r : TAKE_FD(fd);
}

/* The name of the table, which is ours in every family, is attribute 1 of everything but a generation, which
 * names none. */
static bool concerns_us(const struct nlmsghdr *head, const struct nft *nft)
{
	const char *table;

	if (head->nlmsg_type == TYPE(NFT_MSG_NEWGEN))
		return false;
	table = nl_find(head, sizeof(struct nfgenmsg), NFTA_TABLE_NAME, NULL);
	return table && !strcmp(table, nft->table);
}

int nft_watch_wait(int watch_fd, const struct nft *nft, uint32_t other_port)
{
	unsigned char space[32768] __attribute__((aligned(8)));
	bool is_ours = false, is_lossy = false;
	ssize_t got;

	/* all that has been said up to now: one repair answers it */
	for (int flags = 0;
		(got = recv(watch_fd, space, sizeof(space), flags)) >= 0 || errno == ENOBUFS;
		flags = MSG_DONTWAIT) {
		const struct nlmsghdr *head = (const void *)space;
		size_t n = got < 0 ? 0 : (size_t)got;

		is_lossy |= got < 0; /* whatever comes after it: what was lost may be later */
		for (; NLMSG_OK(head, n); head = NLMSG_NEXT(head, n))
			/* who makes the table anew answers all that was done to it before */
			if (concerns_us(head, nft))
				is_ours = head->nlmsg_pid != other_port;
	}
	if (is_ours || is_lossy)
		return is_lossy ? 2 : 1;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

void nft_watch_skip(int watch_fd)
{
	char byte;

	while (recv(watch_fd, &byte, 1, MSG_DONTWAIT) >= 0 || errno == EINTR || errno == ENOBUFS)
		continue;
}

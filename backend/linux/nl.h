/* nl.h - netlink messages in a caller's buffer, and their answers. No heap, system calls only: the
 * builder of a container uses it between clone and exec, where libmnl is not to be had. Attributes
 * and errors as netlink(7) and the kernel's Documentation/userspace-api/netlink say. Threads: a
 * struct nl and a socket belong to one at a time. */
#pragma once
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>

struct nl {
	unsigned char *space;
	size_t size, len;
	struct nlmsghdr *head; /* of the message that is being written */
	uint32_t seq, first_seq; /* of the last message; the number before the first one */
	uint32_t n_acks; /* how many messages ask for an acknowledgement */
	int failed; /* -ENOBUFS: the space was too small */
};

/* space is 4-byte aligned. */
void nl_init(struct nl *nl, void *space, size_t size);
/* Begins a message; flags beside NLM_F_REQUEST. payload is the family's own head. */
void nl_begin(struct nl *nl, uint16_t type, uint16_t flags, const void *payload, size_t n_payload);
void nl_put(struct nl *nl, uint16_t type, const void *data, size_t n_bytes);
void nl_put_u32(struct nl *nl, uint16_t type, uint32_t value); /* host order */
void nl_put_be32(struct nl *nl, uint16_t type, uint32_t value); /* given in host order */
void nl_put_text(struct nl *nl, uint16_t type, const char *text); /* with its NUL */
/* Returns what nl_end wants. */
size_t nl_nest(struct nl *nl, uint16_t type);
void nl_end(struct nl *nl, size_t nest);
void nl_add_payload(struct nl *nl, const void *data, size_t n_bytes); /* of a nested head */

/* A socket of the protocol (NETLINK_ROUTE, NETLINK_NETFILTER), or -errno. */
int nl_open(int protocol);
/* Sends all messages and awaits an acknowledgement of each that asked for one (NLM_F_ACK). 0 or the
 * first error; *ret_seq, if not NULL, is the number of the message that it is about. */
int nl_talk(int fd, struct nl *nl, uint32_t *ret_seq);

/* Sends one message with NLM_F_DUMP and calls visit with each answer until it returns other than 0.
 * space is as large as a datagram may be, 32768. */
typedef int nl_visit(const struct nlmsghdr *head, void *arg);
int nl_dump(int fd, struct nl *nl, void *space, size_t size, nl_visit *visit, void *arg);

/* The attribute of the type behind a payload of n_payload bytes, or NULL. *ret_bytes: its length. */
const void *nl_find(
	const struct nlmsghdr *head, size_t n_payload, uint16_t type, size_t *ret_bytes);
/* The same among the attributes that lie in another. attrs may be NULL. */
const void *nl_find_in(const void *attrs, size_t n_bytes, uint16_t type, size_t *ret_bytes);

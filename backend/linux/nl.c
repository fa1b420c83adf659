#include "linux/nl.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"

void nl_init(struct nl *nl, void *space, size_t size)
{
	*nl = (struct nl){ .space = space, .size = size };
}

/* n_bytes of zeros at the end, padded; NULL once the space is used up. */
static void *extend(struct nl *nl, size_t n_bytes)
{
	size_t padded = NLMSG_ALIGN(n_bytes);
	unsigned char *at = nl->space + nl->len;

	if (nl->failed || padded > nl->size - nl->len) {
		nl->failed = -ENOBUFS;
		return NULL;
	}
	memset(at, 0, padded);
	nl->len += padded;
	if (nl->head)
		nl->head->nlmsg_len = (uint32_t)(nl->space + nl->len - (unsigned char *)nl->head);
	return at;
}

void nl_begin(struct nl *nl, uint16_t type, uint16_t flags, const void *payload, size_t n_payload)
{
	nl->head = NULL;
	nl->head = extend(nl, sizeof(*nl->head));
	if (!nl->head)
		return;
	*nl->head = (struct nlmsghdr){ .nlmsg_len = sizeof(*nl->head),
		.nlmsg_type = type,
		.nlmsg_flags = flags | NLM_F_REQUEST,
		.nlmsg_seq = ++nl->seq };
	nl->n_acks += !!(flags & NLM_F_ACK);
	nl_add_payload(nl, payload, n_payload);
}

void nl_add_payload(struct nl *nl, const void *data, size_t n_bytes)
{
	void *at = extend(nl, n_bytes);

	if (at)
		memcpy(at, data, n_bytes);
}

void nl_put(struct nl *nl, uint16_t type, const void *data, size_t n_bytes)
{
	struct nlattr *attr = extend(nl, NLA_HDRLEN + n_bytes);

	if (!attr)
		return;
	attr->nla_type = type;
	attr->nla_len = (uint16_t)(NLA_HDRLEN + n_bytes);
	if (n_bytes)
		memcpy((char *)attr + NLA_HDRLEN, data, n_bytes);
}

void nl_put_u32(struct nl *nl, uint16_t type, uint32_t value)
{
	nl_put(nl, type, &value, sizeof(value));
}

void nl_put_be32(struct nl *nl, uint16_t type, uint32_t value)
{
	nl_put_u32(nl, type, __builtin_bswap32(value));
}

void nl_put_text(struct nl *nl, uint16_t type, const char *text)
{
	nl_put(nl, type, text, strlen(text) + 1);
}

size_t nl_nest(struct nl *nl, uint16_t type)
{
	size_t at = nl->len;

	nl_put(nl, type | NLA_F_NESTED, NULL, 0);
	return at;
}

void nl_end(struct nl *nl, size_t nest)
{
	struct nlattr *attr = (struct nlattr *)(nl->space + nest);

	if (!nl->failed)
		attr->nla_len = (uint16_t)(nl->len - nest);
}

int nl_open(int protocol)
{
	AUTO_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	int on = 1;

	if (fd < 0)
		return -errno;
	/* answers to errors without a copy of what was asked */
	if (setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int send_all(int fd, const struct nl *nl)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct iovec piece = { nl->space, nl->len };
	struct msghdr message = { .msg_name = &kernel,
		.msg_namelen = sizeof(kernel),
		.msg_iov = &piece,
		.msg_iovlen = 1 };
	ssize_t n;

	do
		n = sendmsg(fd, &message, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static ssize_t receive(int fd, void *space, size_t size)
{
	ssize_t n;

	do
		n = recv(fd, space, size, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int code_of(const struct nlmsghdr *head)
{
	int code = -EPROTO;

	if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(code)))
		memcpy(&code, NLMSG_DATA(head), sizeof(code));
	return code;
}

/* What an earlier batch left unread takes room from the answers to the next one; without room the
 * kernel drops them, and nobody would ever know. */
static void drain(int fd, void *space, size_t size)
{
	while (recv(fd, space, size, MSG_DONTWAIT) >= 0 || errno == EINTR || errno == ENOBUFS)
		continue;
}

int nl_talk(int fd, struct nl *nl, uint32_t *ret_seq)
{
	unsigned char space[8192] __attribute__((aligned(8)));
	uint32_t n_wanted = nl->n_acks;
	int r = nl->failed;

	drain(fd, space, sizeof(space));
	if (r == 0)
		r = send_all(fd, nl);

	while (r == 0 && n_wanted) {
		const struct nlmsghdr *head = (const void *)space;
		ssize_t got = receive(fd, space, sizeof(space));
		size_t n = (size_t)got;

		if (got < 0)
			return (int)got;
		for (; NLMSG_OK(head, n) && n_wanted; head = NLMSG_NEXT(head, n)) {
			int code;

			/* what an earlier, failed batch left unread is passed over */
			if (head->nlmsg_type != NLMSG_ERROR ||
				(int32_t)(head->nlmsg_seq - nl->first_seq) <= 0)
				continue;
			code = code_of(head);
			n_wanted--;
			if (code < 0 && r == 0) {
				r = code;
				if (ret_seq)
					*ret_seq = head->nlmsg_seq;
			}
		}
		/* a message that fails may end a batch: what follows is then not answered */
		if (r < 0)
			break;
	}
	return r;
}

/* 1: the end of the dump. */
static int visit_all(const struct nlmsghdr *head, size_t n, nl_visit *visit, void *arg)
{
	int r = 0;

	for (; NLMSG_OK(head, n) && r == 0; head = NLMSG_NEXT(head, n)) {
		if (head->nlmsg_type == NLMSG_DONE)
			return 1;
		if (head->nlmsg_type == NLMSG_ERROR)
			return code_of(head);
		r = visit(head, arg);
	}
	return r;
}

int nl_dump(int fd, struct nl *nl, void *space, size_t size, nl_visit *visit, void *arg)
{
	int r = nl->failed ? nl->failed : send_all(fd, nl);

	while (r == 0) {
		ssize_t n = receive(fd, space, size);

		r = n < 0 ? (int)n : visit_all(space, (size_t)n, visit, arg);
	}
	return r < 0 ? r : 0;
}

const void *nl_find_in(const void *attrs, size_t n_bytes, uint16_t type, size_t *ret_bytes)
{
	const char *at = attrs, *end = at + n_bytes;

	while (at && end - at >= NLA_HDRLEN) {
		const struct nlattr *attr = (const void *)at;

		if (attr->nla_len < NLA_HDRLEN || attr->nla_len > end - at)
			return NULL;
		if ((attr->nla_type & NLA_TYPE_MASK) == type) {
			if (ret_bytes)
				*ret_bytes = attr->nla_len - NLA_HDRLEN;
			return at + NLA_HDRLEN;
		}
		at += NLA_ALIGN(attr->nla_len);
	}
	return NULL;
}

const void *nl_find(const struct nlmsghdr *head, size_t n_payload, uint16_t type, size_t *ret_bytes)
{
	size_t skipped = NLMSG_HDRLEN + NLMSG_ALIGN(n_payload);

	return head->nlmsg_len < skipped ? NULL
					 : nl_find_in((const char *)head + skipped,
						   head->nlmsg_len - skipped, type, ret_bytes);
}

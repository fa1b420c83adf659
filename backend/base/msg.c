#include "base/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/memfd.h"

#define MSG_MAGIC 0x636c6f63 /* "cloc" */

/* One more descriptor than users have: the memfd of a long body goes last. */
union control {
	struct cmsghdr head;
	char space[CMSG_SPACE(sizeof(int) * (MSG_MAX_FDS + 1))];
};

static int sealed_copy(const void *data, size_t n_bytes)
{
	AUTO_FD int fd = memfd_of("cloche-msg", data, n_bytes);
	int r = fd < 0 ? fd : memfd_seal(fd);

	return r < 0 ? r : TAKE_FD(fd);
}

static int send_packet(
	int sock_fd, struct iovec *iov, size_t n_iov, const int *fds, unsigned n_fds, int flags)
{
	union control control;
	struct msghdr packet = { .msg_iov = iov, .msg_iovlen = n_iov };

	memset(&control, 0, sizeof(control));
	if (n_fds) {
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * n_fds);
	}
	while (sendmsg(sock_fd, &packet, MSG_NOSIGNAL | flags) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int send_with(int sock_fd, const struct msg *msg, int flags)
{
	struct msg_head head = { MSG_MAGIC, msg->seq, msg->body_bytes, msg->type, 0 };
	struct iovec iov[2] = { { &head, sizeof(head) }, { msg->body, msg->body_bytes } };
	AUTO_FD int memfd = -1;
	int fds[MSG_MAX_FDS + 1];
	unsigned n_fds = msg->n_fds;

	if (msg->body_bytes > MSG_BODY_MAX || n_fds > MSG_MAX_FDS)
		return -EMSGSIZE;
	memcpy(fds, msg->fds, sizeof(int) * n_fds);
	if (msg->body_bytes > MSG_INLINE_BYTES - sizeof(head)) {
		memfd = sealed_copy(msg->body, msg->body_bytes);
		if (memfd < 0)
			return memfd;
		fds[n_fds++] = memfd;
		head.in_memfd = 1;
	}
	return send_packet(sock_fd, iov, head.in_memfd ? 1 : 2, fds, n_fds, flags);
}

int msg_send(int sock_fd, const struct msg *msg)
{
	return send_with(sock_fd, msg, 0);
}

int msg_post(int sock_fd, const struct msg *msg)
{
	return send_with(sock_fd, msg, MSG_DONTWAIT);
}

static void take_fds(struct msg *msg, struct msghdr *packet, int *extra_fd)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(packet);
	unsigned n;
	int fd;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return;
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (unsigned i = 0; i < n; i++) {
		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		if (i < MSG_MAX_FDS)
			msg->fds[msg->n_fds++] = fd;
		else if (i == MSG_MAX_FDS)
			*extra_fd = fd;
		else
			auto_fd(&fd); /* the alignment of the control space lets one more through */
	}
}

static int map_body(struct msg *msg, int *extra_fd)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_WRITE;
	AUTO_FD int fd = TAKE_FD(*extra_fd);
	struct stat st;
	void *map;

	if (fd < 0 && msg->n_fds)
		fd = msg->fds[--msg->n_fds];
	if (fd < 0 || (fcntl(fd, F_GET_SEALS) & wanted) != wanted || fstat(fd, &st) < 0 ||
		(uint64_t)st.st_size < msg->body_bytes)
		return -EPROTO; /* it could shrink or change under our eyes */
	map = mmap(NULL, msg->body_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	msg->body = msg->map = map;
	return 0;
}

static int check_and_map(
	struct msg *msg, const struct msg_head *head, size_t n_bytes, int *extra_fd)
{
	if (n_bytes < sizeof(*head) || head->magic != MSG_MAGIC || head->body_bytes > MSG_BODY_MAX)
		return -EPROTO;
	if (!head->in_memfd && head->body_bytes != n_bytes - sizeof(*head))
		return -EPROTO;
	msg->type = head->type;
	msg->seq = head->seq;
	msg->body_bytes = head->body_bytes;
	return head->in_memfd ? map_body(msg, extra_fd) : 0;
}

int msg_recv(int sock_fd, struct msg *msg, void *space, int flags)
{
	struct msg_head head;
	struct iovec iov[2] = { { &head, sizeof(head) }, { space, MSG_INLINE_BYTES } };
	union control control;
	struct msghdr packet = { .msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };
	AUTO_FD int extra_fd = -1;
	ssize_t n;
	int r;

	*msg = (struct msg){ .body = space };
	/* a peer that leaves something unread resets the connection: told once, before what it has sent */
	do
		n = recvmsg(sock_fd, &packet, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -errno;
	take_fds(msg, &packet, &extra_fd);
	if (n == 0) {
		msg_done(msg);
		return -ENODATA;
	}
	if (packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		r = packet.msg_flags & MSG_TRUNC ? -EPROTO
						 : -EMFILE; /* no room for what came with it */
	else
		r = check_and_map(msg, &head, n, &extra_fd);
	if (r < 0)
		msg_done(msg);
	return r;
}

void msg_done(struct msg *msg)
{
	for (unsigned i = 0; i < msg->n_fds; i++)
		auto_fd(&msg->fds[i]);
	if (msg->map)
		munmap(msg->map, msg->body_bytes);
	msg->map = NULL;
	msg->n_fds = 0;
}

void msg_body(const struct msg *msg, void *ret, size_t n_bytes)
{
	size_t n = msg->body_bytes < n_bytes ? msg->body_bytes : n_bytes;

	memset(ret, 0, n_bytes);
	if (n)
		memcpy(ret, msg->body, n);
}

/* What a peer without manners may send to msg_recv. Input: one byte, how many descriptors come along
 * (low 4 bits) and what the last one is (high 4 bits); two bytes, the length of the memfd; then the
 * packet. */
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/msg.h"

#define MAX_FDS 16

static int last_fd(unsigned kind, unsigned n_bytes)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	FUZZ_CHECK(fd >= 0 && ftruncate(fd, n_bytes) == 0);
	fcntl(fd, F_ADD_SEALS,
		kind & 1 ? F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL : 0);
	return fd;
}

static void send_packet(
	int sock_fd, const uint8_t *packet, size_t size, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control = { 0 };
	struct iovec iov = { (void *)packet, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * n_fds);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
	}
	FUZZ_CHECK(sendmsg(sock_fd, &msg, MSG_NOSIGNAL) == (ssize_t)size);
}

static void use(struct msg *msg)
{
	volatile unsigned char *body = msg->body;
	uint64_t start[4];
	unsigned sum = 0;

	for (size_t i = 0; i < msg->body_bytes; i++)
		sum += body[i];
	if (msg->body_bytes)
		body[0] = (unsigned char)sum;
	msg_body(msg, start, sizeof(start));
	FUZZ_CHECK(msg->n_fds <= MSG_MAX_FDS);
	for (unsigned i = 0; i < msg->n_fds; i++)
		FUZZ_CHECK(fcntl(msg->fds[i], F_GETFD) == FD_CLOEXEC);
	msg_done(msg);
}

/* The lowest number that is free: the same before and after, or a descriptor was left open. */
static int lowest_free(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	FUZZ_CHECK(fd >= 0 && close(fd) == 0);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char space[MSG_INLINE_BYTES];
	int before = lowest_free(), pair[2], fds[MAX_FDS], n_fds;
	struct msg msg;

	if (size < 3 || size > 65536)
		return 0;
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	n_fds = data[0] & 15;
	for (int i = 0; i < n_fds; i++)
		fds[i] = i + 1 < n_fds ? pair[0] : last_fd(data[0] >> 4, data[1] << 8 | data[2]);
	send_packet(pair[0], data + 3, size - 3, fds, (unsigned)n_fds);
	if (n_fds)
		auto_fd(&fds[n_fds - 1]);
	if (msg_recv(pair[1], &msg, space, MSG_DONTWAIT) == 0)
		use(&msg);
	auto_fd(&pair[0]);
	auto_fd(&pair[1]);
	FUZZ_CHECK(lowest_free() == before);
	return 0;
}

#include "linux/tcp.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define STATE_CLOSE 7 /* TCP_CLOSE of the kernel's own net/tcp_states.h */

bool tcp_look(int sock_fd, struct tcp_peer *ret_peer)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (sock_fd < 0 || getsockopt(sock_fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
		len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
		return false;
	*ret_peer = (struct tcp_peer){ info.tcpi_bytes_acked, info.tcpi_state == STATE_CLOSE };
	return true;
}

/* Acknowledged + still queued. The two are read one after the other, so look again until nothing has
 * moved in between. */
bool tcp_given(int sock_fd, uint64_t *ret_bytes)
{
	struct tcp_peer before, after;
	int queued = 0;

	if (!tcp_look(sock_fd, &after))
		return false;
	do {
		before = after;
		if (ioctl(sock_fd, SIOCOUTQ, &queued) < 0)
			queued = 0;
	} while (tcp_look(sock_fd, &after) && after.acked_bytes != before.acked_bytes);
	*ret_bytes = before.acked_bytes + queued;
	return true;
}

void tcp_give_up(int sock_fd)
{
	struct linger none = { .l_onoff = 1 };

	setsockopt(sock_fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

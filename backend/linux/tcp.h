/* tcp.h - what the peer of a TCP connection has acknowledged. Counts are of all that the socket was
 * ever given, a FIN as one byte. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct tcp_peer {
	uint64_t acked_bytes;
	bool is_closed; /* reset, or both ends are done: nothing will be acknowledged any more */
};

/* False: no TCP. */
bool tcp_look(int sock_fd, struct tcp_peer *ret_peer);
/* What the socket was given so far, acknowledged or not. */
bool tcp_given(int sock_fd, uint64_t *ret_bytes);
/* When its last descriptor is closed the peer gets a RST, and what it has not acknowledged never. */
void tcp_give_up(int sock_fd);

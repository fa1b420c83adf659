/* hold.h - the shim's duplicates of the connections of clients. While the server lives they only lie
 * here. When it dies each gets its FIN from us, behind the rest of the output if the process has ended; what its peer acknowledges until then is noted in the
 * process's ring, and it is closed once the peer has closed it. */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct msg;
struct shim;

/* MSG_HOLD, MSG_HOLD_END, MSG_LET_GO. A connection that cannot be held is closed: the server has its
 * own. */
void hold_take(struct shim *shim, struct msg *msg);
void hold_end(struct shim *shim, struct msg *msg);
void hold_let_go(struct shim *shim, struct msg *msg);

/* The server is gone. */
void hold_all_ends(struct shim *shim);
/* How many streams of the process have a connection whose peer may still acknowledge something;
 * is_over: none, they are reset. */
unsigned hold_settle(struct shim *shim, uint32_t token, bool is_over);

/* For the loop: fills at most n_room polls, returns how many. */
size_t hold_fill_polls(struct shim *shim, struct pollfd *polls, size_t n_room);
/* The same list, nothing else having happened to it. */
void hold_serve(struct shim *shim, const struct pollfd *polls, size_t n_polls);

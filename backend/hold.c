/* What the shim holds for us: duplicates of the connections of clients, see shim/hold.h. */
#include <errno.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "container.h"
#include "link.h"
#include "process.h"

/* Clients that a dead server has left behind may take what is on its way to them for this long, if
 * another one comes meanwhile. */
#define SETTLE_MS 5000

/* The shim keeps a duplicate: should we die, it ends the connection, and knows what has arrived. */
void process_hold(struct process *process, struct msg_hold *body, int sock_fd)
{
	body->token = process->token;
	body->id = (uint32_t)sock_fd;
	link_tell(process->container->link,
		&(struct msg){ .type = MSG_HOLD,
			.body = body,
			.body_bytes = sizeof(*body),
			.fds = { sock_fd },
			.n_fds = 1 });
}

static void tell(struct process *process, enum msg_type type, int sock_fd, uint64_t end)
{
	struct msg_hold_end body = { .id = (uint32_t)sock_fd, .end = end };

	link_tell(process->container->link,
		&(struct msg){ .type = type, .body = &body, .body_bytes = sizeof(body) });
}

void process_will_end(struct process *process, int sock_fd, uint64_t end)
{
	tell(process, MSG_HOLD_END, sock_fd, end);
}

void process_let_go(struct process *process, int sock_fd)
{
	tell(process, MSG_LET_GO, sock_fd, 0);
}

/* It closes what it holds: nothing more is acknowledged as far as anybody knows. */
static bool is_shim_gone(struct container *container)
{
	bool yes;

	pthread_mutex_lock(&container->table_lock);
	yes = container->is_shim_gone;
	pthread_mutex_unlock(&container->table_lock);
	return yes;
}

/* How many, or -errno. */
static int ask_unsettled(struct process *process, bool is_over, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	struct msg_settle body = { .token = process->token, .is_over = is_over };
	struct msg_reply reply;
	int r = link_call(process->container->link,
		&(struct msg){ .type = MSG_SETTLE, .body = &body, .body_bytes = sizeof(body) },
		&answer, err);

	if (r < 0)
		return is_shim_gone(process->container) ? 0 : r;
	answer_body(&answer, &reply, sizeof(reply));
	if (reply.code == -ENOSYS)
		return 0; /* an older shim holds nothing */
	return reply.code < 0 ? err_system(err, reply.code, "what clients before have got")
			      : (int)reply.value;
}

/* What is on its way to the clients of a server before us is theirs: where we go on is known when
 * they have acknowledged it or are cut off. */
int process_settle(struct process *process, struct err *err)
{
	int64_t end_ms = clock_ms() + SETTLE_MS;
	unsigned pause_us = 1000;
	int r;

	while ((r = ask_unsettled(process, clock_ms() > end_ms, err)) > 0) {
		usleep(pause_us);
		pause_us = pause_us < 50000 ? pause_us * 2 : pause_us;
	}
	if (r < 0)
		return r;
	output_look_again(&process->output);
	pthread_mutex_lock(&process->lock);
	process->is_unsettled = false;
	pthread_mutex_unlock(&process->lock);
	return 0;
}

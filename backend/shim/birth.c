/* The shim while its container is made: builders work, init gets ready. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "shim/builder.h"
#include "shim/builder_process.h"
#include "shim/shim.h"

/* The builder has one report to give: wait for it. Its death is an end of file. */
static void await_builder(struct shim *shim, uint32_t seq, enum shim_state next)
{
	static unsigned char space[MSG_INLINE_BYTES] __attribute__((aligned(16)));
	struct msg_built built = { .code = -ECHILD };
	struct msg msg;

	if (msg_recv(shim->builder_fd, &msg, space, 0) == 0) {
		msg_body(&msg, &built, sizeof(built));
		if (msg.n_fds == 1)
			shim->built_fd = TAKE_FD(msg.fds[0]);
		msg_done(&msg);
	}
	if (built.init_pid > 0)
		shim->init_pid = built.init_pid;
	if (built.code == 0)
		shim->state = next;
	if (built.code != 0 || next != SHIM_PREPARED)
		auto_fd(&shim->builder_fd);
	shim_reply(shim, seq, built.code, built.step);
}

static int fork_builder(struct shim *shim, const struct plan_wire *plan)
{
	int reports[2], inits[2];
	struct builder builder = {
		.argv0 = shim->argv0, .prepare = plan, .proc_fd = shim->proc_fd
	};

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, reports) < 0)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, inits) < 0) {
		close(reports[0]);
		close(reports[1]);
		return -errno;
	}
	builder.report_fd = reports[1];
	builder.init_fd = inits[1];
	shim->builder_fd = reports[0];
	shim->init_fd = inits[0];
	shim->builder_pid = fork();
	if (shim->builder_pid == 0) {
		close(reports[0]);
		close(inits[0]);
		close(shim->server_fd);
		builder_main(&builder);
	}
	close(reports[1]);
	close(inits[1]);
	return shim->builder_pid < 0 ? -errno : 0;
}

void birth_prepare(struct shim *shim, struct msg *msg)
{
	int r = plan_check(msg->body, msg->body_bytes);

	if (r == 0 && msg->n_fds != 2)
		r = -EPROTO;
	if (r == 0) {
		shim->proc_fd = TAKE_FD(msg->fds[0]);
		shim->listen_fd = TAKE_FD(msg->fds[1]);
		r = fork_builder(shim, msg->body);
	}
	if (r < 0)
		shim_reply(shim, msg->seq, r, 0);
	else
		await_builder(shim, msg->seq, SHIM_PREPARED);
}

/* Nothing runs in the container, so nothing waits for us meanwhile. */
void birth_refresh(struct shim *shim, struct msg *msg)
{
	struct builder builder = { .argv0 = shim->argv0, .prepare = msg->body, .init_fd = -1 };
	int reports[2], r = plan_check(msg->body, msg->body_bytes);

	if (r == 0 && msg->n_fds != 1)
		r = -EPROTO;
	if (r == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, reports) < 0)
		r = -errno;
	if (r < 0) {
		shim_reply(shim, msg->seq, r, 0);
		return;
	}
	builder.proc_fd = msg->fds[0];
	builder.report_fd = reports[1];
	shim->builder_fd = reports[0];
	shim->builder_pid = fork();
	if (shim->builder_pid == 0)
		builder_refresh(&builder, shim->init_pid);
	close(reports[1]); /* a child that was not made reports nothing either */
	await_builder(shim, msg->seq, SHIM_RUNNING);
}

/* Init is our child and not reaped: its number is nobody else's. */
void birth_userns(struct shim *shim, struct msg *msg)
{
	struct msg_reply body = { 0 };
	AUTO_FD int fd = msg->n_fds == 1
		? process_open(msg->fds[0], shim->init_pid, "ns/user", O_RDONLY)
		: -EPROTO;

	if (fd < 0) {
		shim_reply(shim, msg->seq, fd, 0);
		return;
	}
	shim_send(shim,
		&(struct msg){ .type = MSG_REPLY,
			.seq = msg->seq,
			.body = &body,
			.body_bytes = sizeof(body),
			.fds = { fd },
			.n_fds = 1 });
}

void birth_finish(struct shim *shim, struct msg *msg)
{
	uint32_t seq = msg->seq;
	int r = msg_send(shim->builder_fd, msg);

	if (r < 0)
		shim_reply(shim, seq, r, 0);
	else
		await_builder(shim, seq, SHIM_BORN);
}

/* Init is ready: the server gets the root, to look into /etc/passwd, and the eventfd that wakes us.
 */
void birth_ready(struct shim *shim, struct msg *msg)
{
	struct msg_reply body;
	AUTO_FD int built_fd = TAKE_FD(shim->built_fd);

	msg_body(msg, &body, sizeof(body));
	if (body.code < 0 || msg->n_fds != 2) {
		shim_reply(shim, msg->seq, body.code < 0 ? body.code : -EPROTO, body.step);
		return;
	}
	shim->root_fd = TAKE_FD(msg->fds[0]);
	shim->pts_fd = TAKE_FD(msg->fds[1]);
	auto_fd(&shim->proc_fd);
	shim->state = SHIM_RUNNING;
	shim_send(shim,
		&(struct msg){ .type = MSG_REPLY,
			.seq = msg->seq,
			.body = &body,
			.body_bytes = sizeof(body),
			.fds = { shim->root_fd, shim->kick_fd },
			.n_fds = 2 });
}

#include "shim/init.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/guard.h"
#include "base/msg.h"
#include "linux/caps.h"
#include "linux/sys.h"
#include "shim/child.h"
#include "shim/child_rights.h"
#include "shim/protocol.h"

#define MAX_PROCESSES 4096
#define CONTROL_FD 0 /* low, so that descriptors that arrive for a child never lie in its way */
#define SIGNAL_FD 1
#define OOM_FD 2 /* our own oom_score_adj; or, where there is none, just taken */
#define CHILD_OOM_SCORE "100" /* a tenth of all memory worse than we are */
#define BLOCK_BYTES 512 /* getrusage(2) */

struct process {
	pid_t pid;
	uint32_t token;
};

/* One init per address space and no heap: its state is static on purpose. */
static struct process processes[MAX_PROCESSES];
static unsigned n_processes;
static uint64_t own_bounding; /* children that want the same need not ask for it */
static int early_code;
static char own_oom_score[8];
static unsigned char space[MSG_INLINE_BYTES] __attribute__((aligned(16)));

static void send_or_die(const struct msg *msg)
{
	if (msg_send(CONTROL_FD, msg) < 0)
		_exit(1);
}

static void send_reply(uint16_t type, uint32_t seq, int code, uint64_t value)
{
	struct msg_reply reply = { .code = code, .value = value };

	send_or_die(&(struct msg){
		.type = type, .seq = seq, .body = &reply, .body_bytes = sizeof(reply) });
}

/* ---- once: from a clone of the builder to the init of a container ---------------------------- */

static int raise_loopback(void)
{
	AUTO_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (fd < 0)
		return -errno;
	return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

static int result(long r)
{
	return r < 0 ? -errno : 0;
}

struct shape {
	const struct msg_start *start;
	const void *filter;
};

static int step_namespaces(const struct shape *shape)
{
	int types = (int)shape->start->new_namespaces;

	return sys_unshare(GUARD(LOCKED_MOUNTS) ? types : types & ~CLONE_NEWNS);
}

static int step_root(const struct shape *shape)
{
	(void)shape;
	return rights_become_root();
}

static int step_hostname(const struct shape *shape)
{
	return result(sethostname(shape->start->hostname, strlen(shape->start->hostname)));
}

/* Done while the builder was at work. */
static int step_early(const struct shape *shape)
{
	(void)shape;
	return early_code;
}

static int step_keyring(const struct shape *shape)
{
	(void)shape;
	return sys_new_session_keyring();
}

static int step_filter(const struct shape *shape)
{
	return rights_load_filter(shape->filter, shape->start->filter_bytes);
}

static int step_bounding(const struct shape *shape)
{
	if (!GUARD(CAPS))
		return 0;
	own_bounding = shape->start->bounding;
	return caps_limit(shape->start->bounding);
}

static int step_caps(const struct shape *shape)
{
	if (!GUARD(CAPS))
		return 0;
	return caps_set(shape->start->effective);
}

static int step_death(const struct shape *shape)
{
	(void)shape;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) /* a change of ids may have set it */
		return -errno;
	return result(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
}

/* The order matters: the filter needs CAP_SYS_ADMIN, which goes next; a change of credentials
 * clears the death signal, so that comes last. */
static int (*const shape_steps[])(const struct shape *shape) = { step_early, step_namespaces,
	step_root, step_hostname, step_keyring, step_filter, step_bounding, step_caps, step_death };

static int take_shape(const struct shape *shape)
{
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(shape_steps) && r == 0; i++)
		r = shape_steps[i](shape);
	return r > 0 ? -EPROTO : r;
}

static void start(const struct msg *msg)
{
	AUTO_FD int root_fd = -1;
	AUTO_FD int pts_fd = -1;
	struct msg_start body;
	int r = -EPROTO;

	msg_body(msg, &body, sizeof(body));
	body.hostname[sizeof(body.hostname) - 1] = '\0';
	if (body.filter_bytes == msg->body_bytes - sizeof(body))
		r = take_shape(&(struct shape){ &body, (const char *)msg->body + sizeof(body) });
	if (r == 0)
		r = root_fd = sys_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
	if (r >= 0)
		r = pts_fd = sys_open_at(AT_FDCWD, "/dev/pts", O_PATH | O_DIRECTORY, 0, 0);
	if (r < 0) {
		send_reply(MSG_READY, msg->seq, r, 0);
		return;
	}
	send_or_die(&(struct msg){ .type = MSG_READY,
		.seq = msg->seq,
		.body = &(struct msg_reply){ 0 },
		.body_bytes = sizeof(struct msg_reply),
		.fds = { root_fd, pts_fd },
		.n_fds = 2 });
}

/* ---- processes ------------------------------------------------------------------------------ */

/* Who is killed when memory runs out? Not we, the container would end; a child inherits what we are when it
 * is made. Whoever raises the number may lower it again to where it was, without any privilege. */
static void set_oom_score(const char *score)
{
	if (*own_oom_score && pwrite(OOM_FD, score, strlen(score), 0) < 0)
		own_oom_score[0] = '\0';
}

static pid_t fork_child(void)
{
	pid_t pid;

	set_oom_score(CHILD_OOM_SCORE);
	pid = fork();
	if (pid < 0)
		pid = -errno;
	if (pid != 0)
		set_oom_score(own_oom_score);
	return pid;
}

static void exec_program(struct msg *msg)
{
	struct msg_token head;
	struct msg_execed execed = { 0 };
	struct program_wire *program = (void *)((char *)msg->body + sizeof(head));

	msg_body(msg, &head, sizeof(head));
	execed.token = head.token;
	if (msg->n_fds != 4 || msg->body_bytes < sizeof(head) ||
		program_check(program, msg->body_bytes - sizeof(head)) < 0)
		execed.pid = -EPROTO;
	else if (n_processes == MAX_PROCESSES)
		execed.pid = -EAGAIN;
	else
		execed.pid = fork_child();
	if (execed.pid == 0)
		child_become(program, msg->fds, own_bounding);
	if (execed.pid > 0)
		processes[n_processes++] = (struct process){ execed.pid, head.token };
	send_or_die(&(struct msg){ .type = MSG_EXECED,
		.seq = msg->seq,
		.body = &execed,
		.body_bytes = sizeof(execed) });
}

/* Sends only what has not been reaped: its pid cannot be anybody else's. */
static void signal_one(const struct msg *msg)
{
	struct msg_signal body;
	int r = -ESRCH;

	msg_body(msg, &body, sizeof(body));
	for (unsigned i = 0; i < n_processes; i++)
		if (processes[i].token == body.token)
			r = result(kill(processes[i].pid, body.signo));
	send_reply(MSG_REPLY, msg->seq, r, 0);
}

/* Everybody except ourselves, kill(2) "-1". Whether somebody is left is the answer. */
static void signal_all(const struct msg *msg)
{
	struct msg_signal body;

	msg_body(msg, &body, sizeof(body));
	send_reply(MSG_REPLY, msg->seq, 0, kill(-1, body.signo) == 0);
}

static void handle(struct msg *msg)
{
	switch (msg->type) {
	case MSG_START:
		start(msg);
		break;
	case MSG_EXEC:
		exec_program(msg);
		break;
	case MSG_SIGNAL:
		signal_one(msg);
		break;
	case MSG_KILL_ALL:
		signal_all(msg);
		break;
	default:
		send_reply(MSG_REPLY, msg->seq, -ENOSYS, 0);
	}
}

static uint64_t microseconds(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000 + t.tv_usec;
}

static void announce(unsigned i, int status, const struct rusage *use)
{
	struct msg_end end = { .exited = { .token = processes[i].token,
				       .wait_status = status,
				       .user_us = microseconds(use->ru_utime),
				       .system_us = microseconds(use->ru_stime),
				       .max_rss_kb = use->ru_maxrss },
		.usage = { .read_bytes = (uint64_t)use->ru_inblock * BLOCK_BYTES,
			.written_bytes = (uint64_t)use->ru_oublock * BLOCK_BYTES,
			.pid = processes[i].pid } };

	if (WIFSIGNALED(status)) {
		end.exited.exit_status = 128 + WTERMSIG(status);
		end.exited.reason = EXIT_SIGNAL;
	} else {
		end.exited.exit_status = WEXITSTATUS(status);
	}
	processes[i] = processes[--n_processes];
	send_or_die(&(struct msg){ .type = MSG_EXITED, .body = &end, .body_bytes = sizeof(end) });
}

static void reap(void)
{
	struct rusage use;
	pid_t pid;
	int status;

	while ((pid = wait4(-1, &status, WNOHANG, &use)) > 0)
		for (unsigned i = 0; i < n_processes; i++)
			if (processes[i].pid == pid) {
				announce(i, status, &use);
				break;
			}
}

/* ---- life ----------------------------------------------------------------------------------- */

static void close_all_but_control(int control_fd, int oom_fd, const sigset_t *signals)
{
	int fd;

	if (control_fd != CONTROL_FD && dup2(control_fd, CONTROL_FD) < 0)
		_exit(1);
	fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC);
	fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0 || (fd != SIGNAL_FD && dup3(fd, SIGNAL_FD, O_CLOEXEC) < 0))
		_exit(1);
	/* 2 and 3 stay taken: what arrives for a child must not get the numbers it will have there
	 */
	if (dup3(oom_fd < 0 ? SIGNAL_FD : oom_fd, OOM_FD, O_CLOEXEC) < 0 ||
		dup3(SIGNAL_FD, 3, O_CLOEXEC) < 0 || sys_close_from(4) < 0)
		_exit(1);
}

/* While the host's procfs is in sight. Ours may be better than a container's processes are to have it. */
static int open_oom_score(void)
{
	int fd = sys_open_at(AT_FDCWD, "/proc/self/oom_score_adj", O_RDWR, 0, 0);
	ssize_t n = fd < 0 ? -1 : read(fd, own_oom_score, sizeof(own_oom_score) - 1);

	own_oom_score[n < 0 ? 0 : n] = '\0';
	return fd;
}

static void loop(void)
{
	struct pollfd fds[] = { { .fd = CONTROL_FD, .events = POLLIN },
		{ .fd = SIGNAL_FD, .events = POLLIN } };
	struct signalfd_siginfo info;
	struct msg msg;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents) {
			while (read(SIGNAL_FD, &info, sizeof(info)) > 0)
				continue;
			reap();
		}
		if (!fds[0].revents)
			continue;
		if (msg_recv(CONTROL_FD, &msg, space, 0) < 0)
			_exit(0);
		handle(&msg);
		msg_done(&msg);
	}
}

_Noreturn void init_main(int control_fd, char *argv0)
{
	int oom_fd = open_oom_score(); /* which is ours as long as we are dumpable */
	sigset_t signals;

	sigfillset(&signals);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "garden-init", 0, 0, 0);
	memcpy(argv0, "garden-init", 12);
	umask(022);
	setsid();
	close_all_but_control(control_fd, oom_fd, &signals);
	early_code = raise_loopback();
	if (early_code == 0)
		early_code = rights_limit_files();
	loop();
	_exit(0);
}

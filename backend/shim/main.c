/* cloche-shim - one per container, on the host, outside of its limits; outlives the server.
 * usage: cloche-shim NONCE, with descriptor 3 a SOCK_SEQPACKET to the server. See PROTOCOL.md. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "linux/sys.h"
#include "shim/hold.h"
#include "shim/shim.h"

#define N_FIXED (5 + N_WATCH_POLLS) /* server, listen, init, signals, kick, limits */
#define POLLS_PER_PROC 3

static unsigned char space[MSG_INLINE_BYTES] __attribute__((aligned(16)));

/* ---- start ----------------------------------------------------------------------------------- */

static void raise_limits(void)
{
	static const int limits[] = { RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_MEMLOCK,
		RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE };

	for (size_t i = 0; i < N_ELEMENTS(limits); i++) {
		struct rlimit limit, wish;

		getrlimit(limits[i], &limit);
		wish = (struct rlimit){ RLIM_INFINITY, RLIM_INFINITY };
		if (limits[i] == RLIMIT_NOFILE)
			wish = (struct rlimit){ 1 << 20, 1 << 20 };
		/* without CAP_SYS_RESOURCE: as far as we may */
		if (wish.rlim_max < limit.rlim_max || setrlimit(limits[i], &wish) < 0) {
			limit.rlim_cur = limit.rlim_max;
			setrlimit(limits[i], &limit);
		}
	}
}

static int open_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void shim_open(struct shim *shim, char **argv)
{
	static char nonce[40];

	/* not for everybody who can read /proc */
	memcpy(nonce, argv[1], strnlen(argv[1], sizeof(nonce) - 1));
	memset(argv[1], 0, strlen(argv[1]));
	*shim = (struct shim){ .nonce = nonce,
		.argv0 = argv[0],
		.server_fd = SHIM_CONTROL_FD,
		.listen_fd = -1,
		.init_fd = -1,
		.builder_fd = -1,
		.built_fd = -1,
		.proc_fd = -1,
		.root_fd = -1,
		.pts_fd = -1,
		.closing_fd = -1,
		.is_greeted = true };
	TAILQ_INIT(&shim->procs);
	TAILQ_INIT(&shim->ended);
	TAILQ_INIT(&shim->helds);
	watch_init(&shim->watch);
	sys_close_from(SHIM_CONTROL_FD + 1);
	prctl(PR_SET_NAME, "cloche-shim", 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	umask(077);
	setsid();
	sched_setscheduler(
		0, SCHED_OTHER, &(struct sched_param){ 0 }); /* v1 cpu groups take no others */
	raise_limits();
	shim->signal_fd = open_signals();
	shim->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (shim->signal_fd < 0 || shim->kick_fd < 0 || chdir("/") < 0)
		_exit(1);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void server_gone(struct shim *shim)
{
	auto_fd(&shim->server_fd);
	if (shim->state < SHIM_RUNNING || shim->must_end)
		_exit(0); /* a birth that nobody waits for: init follows us (PDEATHSIG, end of its socket) */
	hold_all_ends(shim);
}

/* What a dead server had still said is heard before its end. 0: there may be more. */
static int from_server(struct shim *shim)
{
	struct msg msg;
	int r = msg_recv(shim->server_fd, &msg, space, MSG_DONTWAIT);

	if (r == -EMFILE || r == -ENOMEM)
		return 0;
	if (r == 0) {
		shim_request(shim, &msg);
		msg_done(&msg);
	} else if (r != -EAGAIN) {
		server_gone(shim);
	}
	return r;
}

/* A server that has come back: it replaces the one before, and must say the nonce first. */
static void from_listener(struct shim *shim)
{
	struct proc *proc;
	struct ucred who;
	socklen_t len = sizeof(who);
	AUTO_FD int fd = accept4(shim->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ||
		who.uid != geteuid())
		return;
	while (shim->server_fd >= 0 && from_server(shim) == 0)
		continue;
	server_gone(shim); /* in the middle of a birth nobody takes over */
	shim->server_fd = TAKE_FD(fd);
	TAILQ_FOREACH (proc, &shim->procs, entry)
		proc->run_seq = 0; /* whoever asked for it is gone */
	shim->is_greeted = false;
}

/* Space of its own: a message of the server's may be waiting for room meanwhile. */
void shim_hear_init(struct shim *shim)
{
	static unsigned char own_space[MSG_INLINE_BYTES] __attribute__((aligned(16)));
	struct msg msg;
	int r = msg_recv(shim->init_fd, &msg, own_space, 0);

	if (r == -EMFILE || r == -ENOMEM)
		return;
	if (r < 0) {
		auto_fd(&shim->init_fd);
		return;
	}
	shim_from_init(shim, &msg);
	msg_done(&msg);
}

static bool init_has_news(const struct shim *shim)
{
	return shim->init_fd >= 0 && recv(shim->init_fd, NULL, 0, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static void reap(struct shim *shim)
{
	struct signalfd_siginfo info;
	struct rusage use;
	int status;
	pid_t pid;

	while (read(shim->signal_fd, &info, sizeof(info)) > 0)
		continue;
	while ((pid = wait4(-1, &status, WNOHANG, &use)) > 0)
		if (pid == shim->builder_pid) {
			shim->builder_pid = 0; /* from now on the number may be anybody's */
		} else if (pid != shim->init_pid) {
			pea_reaped(shim, pid, status, &use);
		} else {
			/* what init still said comes before its end */
			while (init_has_news(shim))
				shim_hear_init(shim);
			shim->init_status = status;
			shim_container_died(shim);
		}
}

/* ---- the loop -------------------------------------------------------------------------------- */

static struct pollfd *polls;
static size_t n_polls_room;
static size_t n_proc_polls; /* up to here, processes; behind it, connections of a dead server */

/* Grows before it is needed, keeps what it has when there is no memory: then the newest processes
 * wait. */
static size_t room_for(size_t n)
{
	struct pollfd *more;

	if (n > n_polls_room) {
		more = realloc(polls, 2 * n * sizeof(*polls));
		if (more) {
			polls = more;
			n_polls_room = 2 * n;
		}
	}
	return n_polls_room;
}

static size_t fill_polls(struct shim *shim, int *timeout_ms)
{
	size_t room = room_for(N_FIXED + POLLS_PER_PROC * shim->n_procs + 1 + shim->n_helds), n = 0;
	int64_t now_ms = clock_ms(), next_ms = 0, at_ms;
	struct proc *proc;

	polls[n++] = (struct pollfd){ .fd = shim->server_fd, .events = POLLIN };
	polls[n++] = (struct pollfd){ .fd = shim->listen_fd, .events = POLLIN };
	polls[n++] = (struct pollfd){ .fd = shim->init_fd, .events = POLLIN };
	polls[n++] = (struct pollfd){ .fd = shim->signal_fd, .events = POLLIN };
	polls[n++] = (struct pollfd){ .fd = shim->kick_fd, .events = POLLIN };
	watch_fill_polls(&shim->watch, polls + n);
	n += N_WATCH_POLLS;
	TAILQ_FOREACH (proc, &shim->procs, entry) {
		if (n + POLLS_PER_PROC > room)
			break;
		at_ms = proc_check_time(proc, now_ms);
		if (at_ms && (!next_ms || at_ms < next_ms))
			next_ms = at_ms;
		polls[n++] = (struct pollfd){ .fd = proc->report_fd, .events = POLLIN };
		for (int i = 0; i < N_STREAMS; i++)
			polls[n++] = (struct pollfd){
				.fd = proc_wants_input(proc, i) ? proc->streams[i].fd : -1,
				.events = POLLIN
			};
	}
	n_proc_polls = n;
	n += hold_fill_polls(shim, polls + n, room - n);
	*timeout_ms = !next_ms ? -1 : next_ms > now_ms ? (int)(next_ms - now_ms) : 0;
	return n;
}

/* A report that ends without a word means success, but also that there was no fork: init says that
 * before it closes its copy, so what it has said is heard first. */
static void serve_report(struct shim *shim, struct proc *proc)
{
	if (!init_has_news(shim))
		shim_child_reported(shim, proc);
}

static void serve_procs(struct shim *shim, size_t n_polls)
{
	struct proc *proc, *next;
	size_t n = N_FIXED;

	for (proc = TAILQ_FIRST(&shim->procs); proc && n < n_polls;
		proc = next, n += POLLS_PER_PROC) {
		next = TAILQ_NEXT(proc, entry);
		for (int i = 0; i < N_STREAMS; i++)
			if (polls[n + 1 + i].revents)
				proc_pump(proc, i, clock_ms());
		if (polls[n].revents)
			serve_report(shim, proc);
		else
			shim_retire(shim, proc);
	}
}

static void hear_watch(struct shim *shim)
{
	for (int i = 0; i < N_WATCH_POLLS; i++)
		if (polls[N_FIXED - N_WATCH_POLLS + i].revents)
			watch_hear(&shim->watch, i);
}

static void tell_hits(struct shim *shim)
{
	struct msg_hit hit;

	while (watch_news(&shim->watch, &hit))
		shim_send(shim,
			&(struct msg){ .type = MSG_HIT, .body = &hit, .body_bytes = sizeof(hit) });
}

static void serve(struct shim *shim, size_t n_polls)
{
	struct proc *proc;
	uint64_t kicks;

	serve_procs(shim, n_proc_polls); /* before anything that changes the lists */
	hold_serve(shim, polls + n_proc_polls, n_polls - n_proc_polls);
	if (polls[4].revents && read(shim->kick_fd, &kicks, sizeof(kicks)) > 0)
		TAILQ_FOREACH (proc, &shim->procs, entry)
			proc_trim(proc);
	hear_watch(shim);
	if (polls[2].revents)
		shim_hear_init(shim);
	if (polls[3].revents)
		reap(shim);
	if (polls[0].revents && shim->server_fd >= 0)
		from_server(shim);
	if (polls[1].revents)
		from_listener(shim);
	tell_hits(shim);
}

int main(int argc, char **argv)
{
	static struct shim shim;

	if (argc != 2)
		return 100;
	shim_open(&shim, argv);
	if (room_for(64) == 0)
		return 1;
	for (;;) {
		int timeout_ms;
		size_t n = fill_polls(&shim, &timeout_ms);

		if (poll(polls, n, timeout_ms) >= 0)
			serve(&shim, n);
	}
}

/* inject.c - `inject [-c|-f] [-s CALLS] N ACTION PID...` waits for the n-th system call that changes something, in
 * whatever thread of these processes, and kills the process before it is made, or has the call fail.
 * ACTION: `kill`, the name of an errno, `list`, which only names each one, or `short`: a transfer moves one byte of
 * those that were asked for. `N+STEP`: the n-th, and of those after it each
 * STEP-th on average (in no step with a loop's calls) or each one. EINTR and `short`
 * only where the kernel might do it: inject_transfers.c.
 * -c: follow children, and count only theirs. -f: follow those of ours, count all. -s: only these calls, with commas
 * between them. Says `ready` when everybody is held and `CALL PROCESS` for what is hit. Ends after a kill, at TERM, or
 * when all have ended; then everybody goes on. */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inject_transfers.h"

#define MAX_CALL 1024
#define MAX_THREADS (1 << 22)

static const char default_calls[] =
	"creat,open,openat,openat2,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,"
	"symlinkat,mknod,mknodat,truncate,ftruncate,fallocate,write,pwrite64,writev,pwritev,fsync,fdatasync,chmod,"
	"fchmod,fchmodat,chown,fchown,lchown,fchownat,setxattr,lsetxattr,fsetxattr,utimensat,mount,umount2,move_mount,"
	"open_tree,fsmount,fsopen,fsconfig,mount_setattr,pivot_root,clone,clone3,fork,vfork,execve,unshare,setns,kill,"
	"tgkill,pidfd_send_signal,wait4,waitid,socketpair,bind,listen,connect,sendto,sendmsg,shutdown,accept4,"
	"memfd_create,flock,sendfile,splice,copy_file_range,ioctl,capset,seccomp,sethostname,setresuid";

static bool is_counted[MAX_CALL];
static pid_t roots[16];
static int n_roots;
static bool counts_children;
static bool counts_family; /* those that run a program of ours, too */
static enum { LIST, KILL, FAIL, SHORTEN } action;
static int action_errno;
static long countdown; /* 0: over */
static long step;
static bool is_over; /* the changed calls are waited for */
static uint64_t random_state = 1;
static int n_changed; /* threads in a call that is not the one they made */
static bool is_failing[MAX_THREADS]; /* its call has been taken away, the error comes at its end */
static struct transfer *shortened
	[MAX_THREADS]; /* its call is another one, what it asked for comes back at its end */

static void choose_calls(const char *list)
{
	char *copy = strdup(list), *rest = copy, *name;

	while ((name = strsep(&rest, ","))) {
		int nr = seccomp_syscall_resolve_name(name);

		if (nr >= 0 && nr < MAX_CALL)
			is_counted[nr] = true;
	}
	free(copy);
}

static int errno_of(const char *text)
{
	for (int code = 1; code < 200; code++) {
		const char *name = strerrorname_np(code);

		if (name && !strcmp(name, text))
			return code;
	}
	fprintf(stderr, "inject: no errno %s\n", text);
	exit(125);
}

/* ---- whose and what -------------------------------------------------------------------------- */

static pid_t process_of(pid_t thread)
{
	char path[64], line[256];
	int pid = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", thread);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Tgid: %d", &pid) == 1)
			break;
	if (file)
		fclose(file);
	return pid;
}

static void name_of(pid_t pid, char name[32])
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (!file || !fgets(name, 32, file))
		strcpy(name, "?");
	name[strcspn(name, "\n")] = '\0';
	if (file)
		fclose(file);
}

static bool is_root(pid_t pid)
{
	for (int i = 0; i < n_roots; i++)
		if (roots[i] == pid)
			return true;
	return false;
}

/* Opening changes something only if it makes or empties a file. */
static bool opens_only(pid_t thread, long nr, const uint64_t args[6])
{
	static long nr_open = -2, nr_openat, nr_openat2;
	uint64_t flags;

	if (nr_open == -2) {
		nr_open = seccomp_syscall_resolve_name("open");
		nr_openat = seccomp_syscall_resolve_name("openat");
		nr_openat2 = seccomp_syscall_resolve_name("openat2");
	}
	if (nr == nr_open)
		flags = args[1];
	else if (nr == nr_openat)
		flags = args[2];
	else if (nr == nr_openat2)
		flags = (uint64_t)ptrace(PTRACE_PEEKDATA, thread, args[2], NULL);
	else
		return false;
	return !(flags & (O_CREAT | O_TRUNC));
}

/* ---- what is done ---------------------------------------------------------------------------- */

#ifdef __x86_64__
static void take_call_away(pid_t thread)
{
	struct user_regs_struct regs;

	ptrace(PTRACE_GETREGS, thread, NULL, &regs);
	regs.orig_rax = (unsigned long long)-1;
	ptrace(PTRACE_SETREGS, thread, NULL, &regs);
	is_failing[thread] = true;
}

static void give_error(pid_t thread)
{
	struct user_regs_struct regs;

	ptrace(PTRACE_GETREGS, thread, NULL, &regs);
	regs.rax = (unsigned long long)-action_errno;
	ptrace(PTRACE_SETREGS, thread, NULL, &regs);
	is_failing[thread] = false;
}
#else
#error "registers of this processor"
#endif

static void hit(pid_t thread, pid_t pid, long nr)
{
	char *call = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)nr), name[32];

	name_of(pid, name);
	if (action == KILL)
		kill(pid, SIGKILL);
	if (action == FAIL)
		take_call_away(thread);
	if (action == SHORTEN)
		shortened[thread] = transfer_shorten(thread, pid, nr);
	printf("%s %s\n", call ? call : "?", name);
	fflush(stdout);
	free(call);
	n_changed += action == FAIL || action == SHORTEN;
	if (action == KILL)
		_exit(0); /* which lets everybody else go */
}

static bool is_due(void)
{
	if (action == LIST)
		return true;
	if (!countdown || --countdown)
		return false;
	if (step > 1)
		random_state = random_state * 6364136223846793005 + 1442695040888963407;
	countdown = step ? 1 + (long)((random_state >> 33) % (2 * (uint64_t)step - 1)) : 0;
	return true;
}

static bool is_possible(pid_t pid, long nr, const uint64_t args[6])
{
	if (action == SHORTEN)
		return transfer_may_be_short(pid, nr, args);
	return action != FAIL || action_errno != EINTR || call_may_block(pid, nr, args);
}

static bool is_counting(pid_t pid)
{
	return counts_family ? is_root(pid) || runs_our_program(pid)
			     : is_root(pid) != counts_children;
}

static void enter_call(pid_t thread, const struct __ptrace_syscall_info *info)
{
	long nr = (long)info->entry.nr;
	pid_t pid;

	if (nr < 0 || nr >= MAX_CALL || !is_counted[nr])
		return;
	pid = process_of(thread);
	if (is_counting(pid) && !opens_only(thread, nr, (const uint64_t *)info->entry.args) &&
		is_possible(pid, nr, (const uint64_t *)info->entry.args) && is_due())
		hit(thread, pid, nr);
}

/* ---- holding and letting go ------------------------------------------------------------------ */

/* A new thread may appear while we look. */
static int hold(pid_t pid, long options)
{
	char path[64];
	int n_held = 0, n_new;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	do {
		DIR *dir = opendir(path);
		struct dirent *entry;

		n_new = 0;
		while (dir && (entry = readdir(dir))) {
			pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);

			if (thread > 0 && ptrace(PTRACE_SEIZE, thread, NULL, options) == 0 &&
				ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) == 0)
				n_new++;
		}
		if (dir)
			closedir(dir);
		n_held += n_new;
	} while (n_new);
	return n_held;
}

static void at_call(pid_t thread)
{
	struct __ptrace_syscall_info info;

	if (is_failing[thread] || shortened[thread])
		n_changed--;
	if (is_failing[thread])
		give_error(thread);
	else if (shortened[thread])
		transfer_restore(thread, &shortened[thread]);
	else if (!is_over && ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) > 0 &&
		info.op == PTRACE_SYSCALL_INFO_ENTRY)
		enter_call(thread, &info);
}

static void at_stop(pid_t thread, int status)
{
	int signo = WSTOPSIG(status), event = status >> 16;

	if (event == PTRACE_EVENT_STOP &&
		signo != SIGTRAP) { /* stopped like everybody else: until SIGCONT */
		ptrace(PTRACE_LISTEN, thread, NULL, NULL);
		return;
	}
	if (signo == (SIGTRAP | 0x80))
		at_call(thread);
	if (event || signo == (SIGTRAP | 0x80))
		signo = 0;
	ptrace(PTRACE_SYSCALL, thread, NULL, (long)signo);
}

static void parse(int argc, char **argv)
{
	const char *calls = default_calls;
	int option;
	char *end;

	while ((option = getopt(argc, argv, "+cfs:")) != -1) {
		counts_children |= option == 'c';
		counts_family |= option == 'f';
		if (option == 's')
			calls = optarg;
	}
	choose_calls(calls);
	if (argc - optind < 3) {
		fprintf(stderr, "usage: inject [-c|-f] [-s CALLS] N[+[STEP]] ACTION PID...\n");
		exit(125);
	}
	countdown = strtol(argv[optind], &end, 10);
	step = *end != '+' ? 0 : end[1] ? strtol(end + 1, NULL, 10) : 1;
	action = !strcmp(argv[optind + 1], "list")   ? LIST
		: !strcmp(argv[optind + 1], "kill")  ? KILL
		: !strcmp(argv[optind + 1], "short") ? SHORTEN
						     : FAIL;
	if (action == FAIL)
		action_errno = errno_of(argv[optind + 1]);
	for (int i = optind + 2; i < argc && n_roots < 16; i++)
		roots[n_roots++] = (pid_t)strtol(argv[i], NULL, 10);
}

static void forget(pid_t thread)
{
	if (is_failing[thread] || shortened[thread])
		n_changed--;
	is_failing[thread] = false;
	shortened[thread] = NULL;
}

/* Who is left in a call that is not his own would come back from it with what he has not asked for. A
 * call that waits begins again as it was. */
static void end_calls(void)
{
	is_over = true;
	for (pid_t thread = 1; thread < MAX_THREADS; thread++)
		if (shortened[thread])
			ptrace(PTRACE_INTERRUPT, thread, NULL, NULL);
}

int main(int argc, char **argv)
{
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE;
	sigset_t signals;
	int status, signo = 0;
	pid_t thread;

	parse(argc, argv);
	if (counts_children || counts_family)
		options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (int i = 0; i < n_roots; i++)
		if (!hold(roots[i], options)) {
			fprintf(stderr, "inject: process %d cannot be held: %s\n", roots[i],
				strerror(errno));
			return 125;
		}
	printf("ready\n");
	fflush(stdout);
	while (!is_over || n_changed > 0) {
		while ((thread = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
			if (WIFSTOPPED(status))
				at_stop(thread, status);
			else
				forget(thread);
		if (thread < 0) /* all have ended */
			return 0;
		if (is_over && n_changed <= 0)
			break;
		signo = sigwaitinfo(&signals, NULL);
		if (signo == SIGTERM)
			end_calls();
	}
	return 0;
}

#include "server/worker/gateway.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/memfd.h"
#include "base/parse.h"
#include "base/strv.h"
#include "linux/spawn.h"
#include "linux/sys.h"
#include "server/worker/config.h"
#include "server/worker/keys.h"

/* Each connection asks for tunnels under names of its own: a gateway that takes them literally could not serve two. */
#define FIRST_PORT 20000
#define N_PORTS 40000

/* ---- the directory --------------------------------------------------------------------------- */

static int make_identity(struct gateway *gateway)
{
	json_t *json = json_pack("{s:s, s:s, s:s}", "name", gateway->config->name, "team",
		gateway->config->team, "platform", "linux");

	gateway->identity = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return gateway->identity ? 0 : -ENOMEM;
}

static int open_dir(struct gateway *gateway, struct err *err)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/run/cluster", gateway->config->work_dir) < 0)
		return err_system(err, -ENOMEM, "run directory");
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_system(err, -errno, "mkdir %s", path);
	gateway->dir_fd = sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0);
	if (gateway->dir_fd < 0)
		return err_system(err, gateway->dir_fd, "open %s", path);
	if (fchmod(gateway->dir_fd, 0700) < 0)
		return err_system(err, -errno, "chmod %s", path);
	return 0;
}

static void name_keys(struct key_names *names)
{
	snprintf(names->private_key, sizeof(names->private_key), "%d.key", getpid());
	snprintf(names->host_keys, sizeof(names->host_keys), "%d.known_hosts", getpid());
}

#define NAME_SIZE 32
static void name_socket(char name[NAME_SIZE], unsigned id)
{
	snprintf(name, NAME_SIZE, "%d.%u", getpid(), id);
}

/* What processes that were killed have left. */
static void sweep_dir(int dir_fd)
{
	AUTO_FD int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!dir)
		return;
	fd = -1;
	while ((entry = readdir(dir))) {
		size_t len = strspn(entry->d_name, "0123456789");
		char digits[12];
		uint64_t pid;

		snprintf(digits, sizeof(digits), "%.*s", (int)(len < 11 ? len : 11), entry->d_name);
		if (parse_u64(digits, INT32_MAX, &pid) == 0 && pid > 0 && kill((pid_t)pid, 0) < 0 &&
			errno == ESRCH)
			unlinkat(dir_fd, entry->d_name, 0);
	}
	closedir(dir);
}

int gateway_open(
	struct gateway *gateway, const struct worker_config *config, int server_fd, struct err *err)
{
	struct key_names names;
	int r;

	*gateway = (struct gateway){
		.config = config, .self_fd = -1, .ssh_fd = -1, .dir_fd = -1, .server_fd = server_fd
	};
	r = make_identity(gateway);
	if (r < 0)
		return err_system(err, r, "worker");
	gateway->self_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (gateway->self_fd < 0)
		return err_system(err, -errno, "open /proc/self/exe");
	gateway->ssh_fd = open(config->ssh_program, O_RDONLY | O_CLOEXEC);
	if (gateway->ssh_fd < 0)
		return err_system(err, -errno, "--ssh-program '%.200s' (package openssh-client)",
			config->ssh_program);
	r = open_dir(gateway, err);
	if (r < 0)
		return r;
	sweep_dir(gateway->dir_fd);
	name_keys(&names);
	return keys_copy(
		gateway->dir_fd, &names, config->tsa_private_key, config->tsa_public_key, err);
}

void gateway_forget_keys(const struct gateway *gateway)
{
	struct key_names names;

	name_keys(&names);
	if (gateway->dir_fd >= 0) {
		unlinkat(gateway->dir_fd, names.private_key, 0);
		unlinkat(gateway->dir_fd, names.host_keys, 0);
	}
}

void gateway_done(struct gateway *gateway)
{
	gateway_forget_keys(gateway);
	auto_fd(&gateway->self_fd);
	auto_fd(&gateway->ssh_fd);
	auto_fd(&gateway->dir_fd);
	auto_free(&gateway->identity);
}

/* Short, however long the work directory's name is: a socket's ends at 108 bytes. */
static int add_path(
	struct strv *argv, const struct gateway *gateway, const char *before, const char *name)
{
	return strv_addf(argv, "%s/proc/%d/fd/%d/%s", before, getpid(), gateway->dir_fd, name);
}

static int add_socket(struct strv *argv, const struct gateway *gateway, unsigned id)
{
	char name[NAME_SIZE];

	name_socket(name, id);
	return add_path(argv, gateway, "-S", name);
}

static int add_keys(struct strv *argv, const struct gateway *gateway)
{
	struct key_names names;
	int r;

	name_keys(&names);
	r = add_path(argv, gateway, "-i", names.private_key);
	return r < 0 ? r : add_path(argv, gateway, "-oUserKnownHostsFile=", names.host_keys);
}

/* ---- children -------------------------------------------------------------------------------- */

void child_end(struct child *child)
{
	if (child->pid > 0) {
		kill(child->pid, SIGKILL);
		while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	child->pid = 0;
	auto_fd(&child->pid_fd);
	auto_fd(&child->out_fd);
}

/* out_fd is its standard output, or its standard error. */
static int start(struct spawn *spawn, bool is_error, struct child *ret_child, struct err *err)
{
	AUTO_FD int ours = -1;
	AUTO_FD int theirs = -1;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_system(err, -errno, "ssh");
	ours = ends[0];
	theirs = ends[1];
	*(is_error ? &spawn->stderr_fd : &spawn->stdout_fd) = theirs;
	pid = spawn_program(spawn);
	if (pid < 0)
		return err_system(err, pid, "start ssh");
	*ret_child = (struct child){ .pid = pid, .pid_fd = sys_pidfd_open(pid), .out_fd = -1 };
	if (ret_child->pid_fd < 0) {
		int r = ret_child->pid_fd;

		child_end(ret_child);
		return err_system(err, r, "pidfd_open");
	}
	ret_child->out_fd = TAKE_FD(ours);
	return 0;
}

/* ---- the connection -------------------------------------------------------------------------- */

int gateway_parse(const char *text, char **ret_host, uint16_t *ret_port)
{
	const char *host = *text == '[' ? text + 1 : text, *rest;
	size_t len = *text == '[' ? strcspn(host, "]") : strcspn(host, ":");
	uint64_t port = 2222;

	rest = host + len;
	if (*text == '[' && *rest++ != ']')
		return -EINVAL;
	if (len == 0 ||
		strspn(host,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
			"0123456789.-_:%") < len)
		return -EINVAL;
	if (*rest && (*rest != ':' || parse_u64(rest + 1, 65535, &port) < 0 || port == 0))
		return -EINVAL;
	*ret_port = (uint16_t)port;
	*ret_host = strndup(host, len);
	return *ret_host ? 0 : -ENOMEM;
}

/* Where the local API is for a client on this host: a server that listens everywhere is at the loopback, too. */
static const char *local_host(const char *at, size_t *ret_len)
{
	*ret_len = (size_t)(strrchr(at, ':') - at);
	if (!strncmp(at, "0.0.0.0:", 8)) {
		*ret_len = 9;
		return "127.0.0.1";
	}
	if (!strncmp(at, "[::]:", 5) || !strncmp(at, ":::", 3)) {
		*ret_len = 5;
		return "[::1]";
	}
	return at;
}

static unsigned port_of(unsigned id, unsigned which)
{
	return FIRST_PORT + (id * 2 + which) % N_PORTS;
}

static int add_tunnel(struct strv *argv, unsigned port, const char *at)
{
	size_t len;
	const char *host = local_host(at, &len);

	return strv_addf(argv, "-R0.0.0.0:%u:%.*s%s", port, (int)len, host, strrchr(at, ':'));
}

static int add_words(struct strv *argv, const char *const *words, size_t n_words)
{
	int r = 0;

	for (size_t i = 0; i < n_words && r == 0; i++)
		r = strv_add(argv, words[i]);
	return r;
}

/* Nothing of this host's configuration: neither files nor agents nor questions. A gateway that is silent for a minute,
 * which is how long the cluster believes in us, is given up. */
static const char *const always[] = { "-F/dev/null", "-T", "-a", "-x", "-oBatchMode=yes",
	"-oLogLevel=INFO" };
static const char *const for_connections[] = { "-M", "-N", "-n", "-oIdentitiesOnly=yes",
	"-oIdentityAgent=none", "-oPreferredAuthentications=publickey",
	"-oStrictHostKeyChecking=yes", "-oGlobalKnownHostsFile=/dev/null", "-oUpdateHostKeys=no",
	"-oExitOnForwardFailure=yes", "-oConnectTimeout=10", "-oServerAliveInterval=15",
	"-oServerAliveCountMax=4" };
/* Where the connection has gone: not to make another one instead. */
static const char *const for_commands[] = { "-oProxyCommand=/bin/false" };

static int connection_words(const struct gateway *gateway, unsigned id, const char *host,
	uint16_t port, struct strv *argv)
{
	int r = add_words(argv, (const char *const[]){ "cloche", "tied" }, 2);

	if (r == 0)
		r = strv_addf(argv, "%d", getpid());
	if (r == 0)
		r = strv_add(argv, gateway->config->ssh_program);
	if (r == 0)
		r = add_words(argv, always, N_ELEMENTS(always));
	if (r == 0)
		r = add_words(argv, for_connections, N_ELEMENTS(for_connections));
	if (r == 0)
		r = add_keys(argv, gateway);
	if (r == 0)
		r = add_socket(argv, gateway, id);
	if (r == 0)
		r = add_tunnel(argv, port_of(id, 0), gateway->config->garden_at);
	if (r == 0)
		r = add_tunnel(argv, port_of(id, 1), gateway->config->volumes_at);
	if (r == 0)
		r = strv_addf(argv, "-p%u", port);
	return r < 0 ? r : strv_addf(argv, "beacon@%s", host);
}

int gateway_connect(const struct gateway *gateway, unsigned id, const char *at,
	struct child *ret_child, struct err *err)
{
	AUTO_FREE char *host = NULL;
	AUTO_STRV struct strv argv = { 0 };
	uint16_t port;
	int r = gateway_parse(at, &host, &port);

	if (r < 0)
		return err_set(err, ERR_INVALID, -r,
			"--tsa-host '%.200s': expected HOST:PORT, [ADDRESS]:PORT or HOST", at);
	gateway_forget(gateway, id);
	r = connection_words(gateway, id, host, port, &argv);
	if (r < 0)
		return err_system(err, r, "ssh");
	return start(&(struct spawn){ .exe_fd = gateway->self_fd,
			     .argv = (const char *const *)argv.items,
			     .stdin_fd = -1,
			     .stdout_fd = -1,
			     .extra_fd = -1 },
		true, ret_child, err);
}

int gateway_is_ready(const struct gateway *gateway, unsigned id)
{
	char name[NAME_SIZE];
	struct stat st;

	name_socket(name, id);
	return fstatat(gateway->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void gateway_forget(const struct gateway *gateway, unsigned id)
{
	char name[NAME_SIZE];

	name_socket(name, id);
	unlinkat(gateway->dir_fd, name, 0);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* With json as standard input. stderr_fd may be -1. */
static int start_command(const struct gateway *gateway, unsigned id, const struct strv *words,
	const char *json, int stderr_fd, struct child *ret_child, struct err *err)
{
	AUTO_STRV struct strv argv = { 0 };
	AUTO_FD int json_fd = memfd_of("worker", json, strlen(json));
	int r = json_fd < 0 ? json_fd : strv_add(&argv, "ssh");

	if (r == 0 && lseek(json_fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		r = add_words(&argv, always, N_ELEMENTS(always));
	if (r == 0)
		r = add_words(&argv, for_commands, N_ELEMENTS(for_commands));
	if (r == 0)
		r = add_socket(&argv, gateway, id);
	if (r == 0)
		r = strv_add(&argv, "gateway"); /* a name that it asks for, and does not use */
	if (r == 0)
		r = strv_copy(&argv, words);
	if (r < 0)
		return err_system(err, r, "ssh");
	return start(&(struct spawn){ .exe_fd = gateway->ssh_fd,
			     .argv = (const char *const *)argv.items,
			     .stdin_fd = json_fd,
			     .stderr_fd = stderr_fd,
			     .extra_fd = -1 },
		false, ret_child, err);
}

int gateway_forward(const struct gateway *gateway, unsigned id, const char *json,
	struct child *ret_child, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	int r = strv_add(&words, "forward-worker");

	if (r == 0)
		r = strv_add(&words, "--garden");
	if (r == 0)
		r = strv_addf(&words, "0.0.0.0:%u", port_of(id, 0));
	if (r == 0)
		r = strv_add(&words, "--baggageclaim");
	if (r == 0)
		r = strv_addf(&words, "0.0.0.0:%u", port_of(id, 1));
	return r < 0 ? err_system(err, r, "ssh")
		     : start_command(gateway, id, &words, json, -1, ret_child, err);
}

/* 0 when fd is ready. */
static int await(const struct gateway *gateway, int fd, int64_t deadline_ms)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = gateway->server_fd } };
	int64_t left = deadline_ms - clock_ms();

	if (poll(fds, N_ELEMENTS(fds), left > 0 ? (int)left : 0) < 0)
		return errno == EINTR ? 0 : -errno;
	if (fds[1].revents)
		return -ECANCELED;
	return fds[0].revents ? 0 : -ETIMEDOUT;
}

/* Until its end of file. */
static int read_answer(const struct gateway *gateway, int fd, int64_t deadline_ms, struct buf *out)
{
	char space[16384];

	for (;;) {
		int r = await(gateway, fd, deadline_ms);
		ssize_t n = r < 0 ? 0 : read(fd, space, sizeof(space));

		if (r < 0)
			return r;
		if (n == 0)
			return buf_failed(out);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && buf_add(out, space, (size_t)n) < 0)
			return buf_failed(out);
	}
}

/* The end of the command, which has closed its output. */
static int await_end(
	const struct gateway *gateway, struct child *child, int64_t deadline_ms, int *ret_status)
{
	int r = await(gateway, child->pid_fd, deadline_ms);

	if (r < 0)
		return r;
	while (waitpid(child->pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	child->pid = 0;
	return 0;
}

int gateway_run(const struct gateway *gateway, unsigned id, const struct strv *words,
	int timeout_ms, struct buf *out, struct err *err)
{
	int64_t deadline_ms = clock_ms() + timeout_ms;
	AUTO(child_end) struct child child = { 0, -1, -1 };
	AUTO_FD int error_fd = memfd_of("ssh", "", 0);
	char text[256] = "";
	int status, r;

	r = start_command(gateway, id, words, gateway->identity, error_fd, &child, err);
	if (r < 0)
		return r;
	r = read_answer(gateway, child.out_fd, deadline_ms, out);
	if (r == 0)
		r = await_end(gateway, &child, deadline_ms, &status);
	if (r < 0)
		return err_system(err, r, "%s", words->items[0]);
	if (error_fd >= 0 && pread(error_fd, text, sizeof(text) - 1, 0) > 0)
		text[strcspn(text, "\r\n")] = '\0';
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) != 255)
		return err_set(err, ERR_INVALID, EREMOTEIO, "%s: the gateway refuses it (%d)%s%s",
			words->items[0], WEXITSTATUS(status), *text ? ": " : "", text);
	return err_set(err, ERR_SYSTEM, ECONNRESET, "%s: the connection is lost%s%s",
		words->items[0], *text ? ": " : "", text);
}

int gateway_tell(const struct gateway *gateway, unsigned id, const char *word, int timeout_ms,
	struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	AUTO_BUF struct buf out;
	int r = strv_add(&words, word);

	buf_init(&out, 65536);
	return r < 0 ? err_system(err, r, "%s", word)
		     : gateway_run(gateway, id, &words, timeout_ms, &out, err);
}

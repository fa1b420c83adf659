#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/spawn.h"
#include "volumes/tree_main.h"
#include "volumes/volumes_internal.h"

#define HALT_MS 3000

/* With the process that it has made, even if that cannot yet know that it is to end with it. */
void helper_kill(const struct helper *helper)
{
	kill(-helper->pid, SIGKILL);
}

/* What the helper says next; it is killed if the end of everything comes first. */
static ssize_t read_some(struct helper *helper, char *text, size_t n_bytes)
{
	struct pollfd fds[] = { { .fd = helper->text_fd, .events = POLLIN },
		{ .fd = helper->halt_fd, .events = POLLIN } };
	ssize_t n;

	while (poll(fds, N_ELEMENTS(fds), -1) < 0)
		continue;
	if (!fds[0].revents) {
		helper->halt_fd = -1;
		helper->is_cut = poll(fds, 1, HALT_MS) == 0;
		if (helper->is_cut)
			helper_kill(helper);
	}
	do
		n = read(helper->text_fd, text, n_bytes);
	while (n < 0 && errno == EINTR);
	return n;
}

/* Its last line: what came before are warnings. */
static void read_text(struct helper *helper, char *text, size_t len, size_t n_bytes)
{
	char *line;
	ssize_t n;

	while ((n = read_some(helper, text + len, n_bytes - 1 - len)) > 0) {
		len += n;
		if (len == n_bytes - 1) { /* a stream of warnings: keep the end */
			memmove(text, text + n_bytes / 2, len - n_bytes / 2);
			len -= n_bytes / 2;
		}
	}
	while (len && text[len - 1] == '\n')
		len--;
	text[len] = '\0';
	line = strrchr(text, '\n');
	if (line)
		memmove(text, line + 1, strlen(line));
}

int helper_wait(struct helper *helper, struct err *err)
{
	char text[1024];
	int status;

	memcpy(text, helper->text, helper->text_bytes);
	read_text(helper, text, helper->text_bytes, sizeof(text));
	auto_fd(&helper->text_fd);
	while (waitpid(helper->pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_system(err, -errno, "wait for the tree helper");
	helper->pid = 0;
	if (helper->is_cut)
		return err_set(err, ERR_SYSTEM, ECANCELED, "the server stops");
	if (!WIFEXITED(status))
		return err_set(err, ERR_SYSTEM, ECHILD, "the tree helper was killed");
	switch (WEXITSTATUS(status)) {
	case TREE_DONE:
		return 0;
	case TREE_BAD_ARCHIVE:
		return err_set(err, ERR_INVALID, EBADMSG, "%.400s", text);
	case TREE_NO_PATH:
		return err_set(err, ERR_NOT_FOUND, ENOENT, "%.400s", text);
	default:
		return err_set(err, ERR_SYSTEM, EIO, "%.400s", text);
	}
}

/* If something else comes it has failed already. */
static int await_ready(struct helper *helper, struct err *err)
{
	static const char ready[] = TREE_READY;
	char text[sizeof(ready) - 1];
	size_t len = 0;
	ssize_t n;
	int r;

	while (len < sizeof(text) && memcmp(text, ready, len) == 0) {
		n = read_some(helper, text + len, sizeof(text) - len);
		if (n <= 0)
			break;
		len += n;
	}
	if (len == sizeof(text) && memcmp(text, ready, len) == 0)
		return 0;
	memcpy(helper->text, text, len);
	helper->text_bytes = len;
	r = helper_wait(helper, err);
	return r < 0 ? r : err_set(err, ERR_SYSTEM, EPROTO, "the tree helper");
}

static int check_halt(const struct volumes *volumes, struct err *err)
{
	struct pollfd halt = { .fd = volumes->halt_fd, .events = POLLIN };

	return poll(&halt, 1, 0) > 0 ? err_set(err, ERR_SYSTEM, ECANCELED, "the server stops") : 0;
}

int helper_start_with(struct volumes *volumes, const struct strv *words,
	const struct helper_fds *fds, struct helper *ret_helper, struct err *err)
{
	AUTO_STRV struct strv argv = { 0 };
	AUTO_FD int their_text_fd = -1;
	AUTO_FD int text_fd = -1;
	int ends[2], r;
	pid_t pid;

	r = check_halt(volumes, err);
	if (r < 0)
		return r;
	r = strv_add(&argv, "cloche");
	if (r == 0)
		r = strv_add(&argv, "tree");
	if (r == 0)
		r = strv_copy(&argv, words);
	if (r == 0)
		r = strv_add(&argv, "ready");
	if (r < 0)
		return err_system(err, r, "tree helper");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_system(err, -errno, "tree helper");
	text_fd = ends[0];
	their_text_fd = ends[1];
	pid = spawn_program(&(struct spawn){ .exe_fd = volumes->self_exe_fd,
		.argv = (const char *const *)argv.items,
		.stdin_fd = fds->stdin_fd,
		.stdout_fd = fds->stdout_fd,
		.stderr_fd = their_text_fd,
		.extra_fd = fds->dir_fd,
		.more_fd = fds->userns_fd });
	if (pid < 0)
		return err_system(err, pid, "start the tree helper");
	*ret_helper = (struct helper){
		.pid = pid, .halt_fd = volumes->halt_fd, .text_fd = TAKE_FD(text_fd)
	};
	auto_fd(&their_text_fd); /* its end must show */
	return await_ready(ret_helper, err);
}

int helper_start(struct volumes *volumes, const struct strv *words, int stdin_fd, int stdout_fd,
	struct helper *ret_helper, struct err *err)
{
	struct helper_fds fds = { stdin_fd, stdout_fd, volumes->host_fd, 0 };

	return helper_start_with(volumes, words, &fds, ret_helper, err);
}

int helper_run(struct volumes *volumes, const struct strv *words, int stdin_fd, struct err *err)
{
	struct helper helper;
	int r = helper_start(volumes, words, stdin_fd, -1, &helper, err);

	return r < 0 ? r : helper_wait(&helper, err);
}

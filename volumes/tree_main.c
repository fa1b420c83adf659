#include "volumes/tree_main.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/parse.h"
#include "linux/seccomp.h"
#include "linux/sys.h"
#include "volumes/census.h"
#include "volumes/codec.h"
#include "volumes/confine.h"
#include "volumes/copy.h"
#include "volumes/pack.h"
#include "volumes/say.h"
#include "volumes/trial.h"
#include "volumes/unpack.h"
#include "volumes/view.h"

#define STORE_FD 3
#define USERNS_FD 4
#define UMASK 022 /* of who unpacks as a user */
#define PIPE_BYTES (1024 * 1024)
#define THREADS_MAX 16
#define CAP(name) (UINT64_C(1) << CAP_##name)

/* The arguments as they came; NULL or 0 where there was none. */
struct job {
	const char *tree, *lower, *upper, *work, *encoding, *path, *threads, *from, *follow, *uid,
		*gid, *ready, *view, *caps, *userns, *name, *layer;
	struct view_spec viewer;
	struct confined confined;
	int root_fd;
};

/* ---- operations ------------------------------------------------------------------------------ */

static int settle(void *arg, struct err *err)
{
	const struct job *job = arg;

	return view_settle(&job->viewer, err);
}

static int run_in(struct job *job, struct err *err)
{
	struct unpack_owner owner = { .uid = job->viewer.uid,
		.gid = job->viewer.gid,
		.umask = UMASK,
		.sets_caps = job->viewer.caps & CAP(SETFCAP),
		.settle = settle,
		.arg = job };
	struct unpack_spec spec = { .archive_fd = 0,
		.root_fd = job->root_fd,
		.path = job->path,
		.owner = job->view ? &owner : NULL };
	unsigned long n_skipped;
	int r;

	if (job->layer)
		spec.layer = strcmp(job->layer, "whiteouts") ? UNPACK_CONTENT : UNPACK_WHITEOUTS;
	spec.codec = strcmp(job->encoding, "auto") ? codec_by_name(job->encoding) : CODEC_AUTO;
	if (spec.codec < 0 && spec.codec != CODEC_AUTO)
		return err_set(err, ERR_INVALID, EINVAL, "encoding %.50s", job->encoding);
	r = unpack(&spec, &n_skipped, err);
	if (r == 0 && n_skipped)
		say(2, "%lu devices were left out\n", n_skipped);
	return r;
}

static int run_out(struct job *job, struct err *err)
{
	struct pack_spec spec = {
		.root_fd = job->root_fd, .archive_fd = 1, .path = job->path, .name = job->name
	};
	int codec = codec_by_name(job->encoding);
	uint64_t n_threads = 0;
	int r = job->view ? settle(job, err) : 0;

	if (r < 0)
		return r;
	if (codec < 0)
		return err_set(err, ERR_INVALID, EINVAL, "encoding %.50s", job->encoding);
	if (job->threads && parse_u64(job->threads, THREADS_MAX, &n_threads) < 0)
		return err_set(err, ERR_INVALID, EINVAL, "threads %.50s", job->threads);
	spec.codec = (enum codec)codec;
	spec.n_threads = (unsigned)n_threads;
	return pack(&spec, err);
}

/* A name below the store is a layer, whatever an overlay has put into it is to be in its copy. */
static bool is_layer(const struct job *job)
{
	return job->from && job->from[0] != '/';
}

static int run_copy(struct job *job, struct err *err)
{
	struct copy_spec spec = { .from_fd = job->confined.source_fd,
		.to_fd = job->root_fd,
		.as_layer = is_layer(job),
		.follow_top = job->follow ? job->from : NULL,
		.follow_fd = job->confined.source_root_fd };

	return copy(&spec, err);
}

static int run_chown(struct job *job, struct err *err)
{
	uint64_t uid, gid;

	/* the highest number stands for "as it was" */
	if (parse_u64(job->uid, UINT32_MAX - 1, &uid) < 0 ||
		parse_u64(job->gid, UINT32_MAX - 1, &gid) < 0)
		return err_set(err, ERR_INVALID, EINVAL, "owner %.50s:%.50s", job->uid, job->gid);
	return census_chown(job->root_fd, (uid_t)uid, (gid_t)gid, err);
}

static int run_size(struct job *job, struct err *err)
{
	uint64_t n_bytes, n_names;
	int r = census_size(job->root_fd, &n_bytes, &n_names, err);

	if (r == 0)
		r = say(1, "%" PRIu64 " %" PRIu64 "\n", n_bytes, n_names);
	return r < 0 && err->kind == ERR_NONE ? err_system(err, r, "write") : r;
}

static int run_try(struct job *job, struct err *err)
{
	return trial(job->root_fd, err);
}

/* ---- the table ------------------------------------------------------------------------------- */

enum needs { NEEDS_ENCODING = 1, NEEDS_PATH = 2, NEEDS_FROM = 4, NEEDS_OWNER = 8 };

static const struct operation {
	const char *name;
	int (*run)(struct job *job, struct err *err);
	int (*load)(struct err *err); /* what cannot be loaded once it is confined; or NULL */
	uint64_t caps;
	unsigned needs; /* enum needs */
	bool writes;
	bool has_view; /* can be done as a user of a container */
} operations[] = {
	{ "in", run_in, unpack_load,
		CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) | CAP(SETFCAP),
		NEEDS_ENCODING | NEEDS_PATH, true, true },
	{ "copy", run_copy, NULL,
		CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) | CAP(SETFCAP),
		NEEDS_FROM, true, false },
	{ "out", run_out, NULL, CAP(DAC_READ_SEARCH), NEEDS_ENCODING | NEEDS_PATH, false, true },
	{ "chown", run_chown, NULL,
		CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) | CAP(SETFCAP),
		NEEDS_OWNER, true, false },
	{ "size", run_size, NULL, CAP(DAC_READ_SEARCH), 0, false, false },
	{ "try", run_try, NULL, CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER), 0, true, false },
};

static const struct operation *find_operation(const char *name)
{
	for (size_t i = 0; name && i < N_ELEMENTS(operations); i++)
		if (!strcmp(name, operations[i].name))
			return &operations[i];
	return NULL;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static int parse_arguments(struct job *job, char **arguments, struct err *err)
{
	const struct {
		const char *key;
		const char **value;
	} keys[] = { { "tree", &job->tree }, { "lower", &job->lower }, { "upper", &job->upper },
		{ "work", &job->work }, { "encoding", &job->encoding }, { "path", &job->path },
		{ "threads", &job->threads }, { "from", &job->from }, { "follow", &job->follow },
		{ "uid", &job->uid }, { "gid", &job->gid }, { "ready", &job->ready },
		{ "view", &job->view }, { "caps", &job->caps }, { "userns", &job->userns },
		{ "name", &job->name }, { "layer", &job->layer } };

	for (; *arguments; arguments++) {
		size_t len = strcspn(*arguments, "="), i = 0;
		bool has_value = (*arguments)[len] == '=';

		while (i < N_ELEMENTS(keys) &&
			(strlen(keys[i].key) != len || strncmp(keys[i].key, *arguments, len)))
			i++;
		if (i == N_ELEMENTS(keys) || *keys[i].value ||
			has_value ==
				(keys[i].value == &job->follow || keys[i].value == &job->ready ||
					keys[i].value == &job->userns))
			return err_set(err, ERR_INVALID, EINVAL, "argument %.200s", *arguments);
		*keys[i].value = *arguments + len + has_value;
	}
	return 0;
}

static int check_needs(const struct job *job, unsigned needs, struct err *err)
{
	const struct {
		unsigned need;
		bool is_given;
		const char *what;
	} checks[] = { { NEEDS_ENCODING, job->encoding, "encoding" },
		{ NEEDS_PATH, job->path, "path" }, { NEEDS_FROM, job->from, "from" },
		{ NEEDS_OWNER, job->uid && job->gid, "uid and gid" } };

	for (size_t i = 0; i < N_ELEMENTS(checks); i++)
		if (needs & checks[i].need && !checks[i].is_given)
			return err_set(err, ERR_INVALID, EINVAL, "missing: %s", checks[i].what);
	return 0;
}

static int check_view(struct job *job, const struct operation *operation, struct err *err)
{
	if (job->tree || job->lower || job->from || !operation->has_view)
		return err_set(err, ERR_INVALID, EINVAL, "view= is for in and out alone");
	return view_parse(job->view, job->caps, &job->viewer, err);
}

static int check_tree(const struct job *job, const struct operation *operation, struct err *err)
{
	if (job->caps || job->userns || job->name)
		return err_set(err, ERR_INVALID, EINVAL, "caps=, userns and name= belong to view=");
	if (!job->tree == !job->lower)
		return err_set(err, ERR_INVALID, EINVAL, "either tree= or lower=");
	if (!job->upper != !job->work || (job->upper && !job->lower))
		return err_set(err, ERR_INVALID, EINVAL, "upper= and work= belong to lower=");
	if (operation->writes && job->lower && !job->upper)
		return err_set(err, ERR_INVALID, EINVAL, "only to be read without upper=");
	if (job->follow && is_layer(job))
		return err_set(err, ERR_INVALID, EINVAL, "follow is for a path of the machine");
	return 0;
}

static int check_arguments(struct job *job, const struct operation *operation, struct err *err)
{
	int r;

	if (!operation)
		return err_set(err, ERR_INVALID, EINVAL, "no such operation");
	r = job->view ? check_view(job, operation, err) : check_tree(job, operation, err);
	return r < 0 ? r : check_needs(job, operation->needs, err);
}

/* ---- the process ----------------------------------------------------------------------------- */

static int exit_status(int r, const struct err *err)
{
	if (r >= 0)
		return TREE_DONE;
	say(2, "%s\n", err->msg);
	return err->kind == ERR_BAD_REQUEST  ? TREE_BAD_ARCHIVE
		: err->kind == ERR_NOT_FOUND ? TREE_NO_PATH
					     : TREE_FAILED;
}

static void prepare(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct rlimit limit;

	umask(0);
	/* who reads only the beginning of a stream is no reason to die of */
	sigaction(SIGPIPE, &ignore, NULL);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	fcntl(0, F_SETPIPE_SZ, PIPE_BYTES); /* if it is a pipe */
	fcntl(1, F_SETPIPE_SZ, PIPE_BYTES);
}

static int open_root(struct job *job, struct err *err)
{
	job->root_fd = sys_open_at(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0, 0);
	return job->root_fd < 0 ? err_system(err, job->root_fd, "tree") : 0;
}

static int enter(struct job *job, const struct operation *operation, struct err *err)
{
	struct confine_spec spec = { .tree = job->tree,
		.lower = job->lower,
		.upper = job->upper,
		.work = job->work,
		.source = job->from,
		.source_links = job->follow,
		.writable = operation->writes,
		.caps = operation->caps };
	int r = operation->load ? operation->load(err) : 0;

	if (r < 0)
		return r;
	if (job->view) {
		r = view_enter(STORE_FD, job->userns ? USERNS_FD : -1, &job->viewer, err);
		return r < 0 ? r : open_root(job, err);
	}
	if (is_layer(job)) /* trusted.overlay.*, devices */
		spec.caps |= CAP(SYS_ADMIN) | CAP(MKNOD);
	r = confine(STORE_FD, &spec, &job->confined, err);
	return r < 0 ? r : open_root(job, err);
}

/* Whose other end of fd nobody holds has died before we could ask to be told. */
static int end_with(int fd)
{
	struct pollfd other = { .fd = fd };

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	return poll(&other, 1, 0) == 1 && other.revents & (POLLERR | POLLHUP) ? -EPIPE : 0;
}

/* ends: of a pipe that lives as long as the parent does */
_Noreturn static void work(
	struct job *job, const struct operation *operation, const int ends[2], struct err *err)
{
	close(ends[1]);
	if (end_with(ends[0]) < 0)
		_exit(TREE_FAILED);
	if (GUARD(TREE_FILTER) && seccomp_confine_to_files(err) < 0)
		_exit(exit_status(-EPERM, err));
	_exit(exit_status(operation->run(job, err), err));
}

/* The parser runs in a pid namespace of its own, where there is nobody it could signal. Neither
 * process outlives the server's thread that waits for it. */
int tree_main(int argc, char **argv)
{
	const struct operation *operation = find_operation(argc > 1 ? argv[1] : NULL);
	struct job job = { 0 };
	struct err err = { 0 };
	int ends[2], r, status;
	pid_t pid;

	r = parse_arguments(&job, argv + (argc > 1 ? 2 : 1), &err);
	if (r == 0)
		r = check_arguments(&job, operation, &err);
	if (r < 0)
		return exit_status(r, &err);
	prepare();
	if (end_with(2) < 0)
		return TREE_FAILED;
	r = enter(&job, operation, &err);
	if (r < 0)
		return exit_status(r, &err);
	if (end_with(2) < 0) /* once more: a change of ids has forgotten it */
		return TREE_FAILED;
	if (job.ready) /* from here on the tree may be renamed */
		say(2, "%s", TREE_READY);
	pid = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
	if (pid < 0)
		return exit_status(err_system(&err, -errno, "fork"), &err);
	if (pid == 0)
		work(&job, operation, ends, &err);
	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) != pid || !WIFEXITED(status))
		return exit_status(
			err_set(&err, ERR_SYSTEM, ECHILD, "the helper was killed"), &err);
	return WEXITSTATUS(status);
}

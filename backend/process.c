#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/registry.h"
#include "container.h"
#include "link.h"
#include "linux/caps.h"
#include "program.h"
#include "users.h"

/* A stream can be opened this long after its attach has ended. */
#define LATE_STREAM_MS 60000

struct attach {
	TAILQ_ENTRY(attach) entry;
	struct process *process; /* counted while the control connection lives */
	struct container *container; /* the same */
	char stream_id[33];
	int cut_fd;
	int64_t expires_ms; /* 0: the control connection lives */
	struct {
		struct pin pin;
		uint64_t start;
		bool is_pinned, is_opened;
	} streams[N_STREAMS];
};

struct stream_reader {
	struct reader reader;
	struct process *process;
	int cut_fd;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void signal_event(int fd)
{
	uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

/* ---- processes ------------------------------------------------------------------------------- */

struct process *process_new(struct container *container, const char *id, uint32_t token,
	bool is_tty, int take_ring_fd, int take_data_fd, int take_input_fd)
{
	struct process *process = calloc(1, sizeof(*process));
	int exit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (!process || exit_fd < 0) {
		auto_fd(&take_ring_fd);
		auto_fd(&take_data_fd);
		auto_fd(&take_input_fd);
		auto_fd(&exit_fd);
		free(process);
		return NULL;
	}
	*process = (struct process){ .n_refs = 1,
		.container = container,
		.token = token,
		.is_tty = is_tty,
		.input_fd = take_input_fd,
		.exit_fd = exit_fd };
	snprintf(process->id, sizeof(process->id), "%s", id);
	pthread_mutex_init(&process->lock, NULL);
	output_init(&process->output, take_ring_fd, take_data_fd, container->kick_fd);
	TAILQ_INIT(&process->attaches);
	return process;
}

static void attach_free(struct process *process, struct attach *attach)
{
	TAILQ_REMOVE(&process->attaches, attach, entry);
	for (int i = 0; i < N_STREAMS; i++)
		if (attach->streams[i].is_pinned)
			output_unpin(&process->output, i, &attach->streams[i].pin);
	auto_fd(&attach->cut_fd);
	free(attach);
}

/* The last one to put it frees it: the table lets go when the container ends. */
void process_put(struct process *process)
{
	unsigned n_refs;

	if (!process)
		return;
	pthread_mutex_lock(&process->lock);
	n_refs = --process->n_refs;
	pthread_mutex_unlock(&process->lock);
	if (n_refs)
		return;
	while (!TAILQ_EMPTY(&process->attaches))
		attach_free(process, TAILQ_FIRST(&process->attaches));
	output_done(&process->output);
	auto_fd(&process->input_fd);
	auto_fd(&process->exit_fd);
	pthread_mutex_destroy(&process->lock);
	free(process);
}

/* Nothing is left to deliver: the shim may give back the rings. Never blocks. */
static void release_if_delivered(struct process *process)
{
	struct msg_token body = { .token = process->token };
	bool has_exited;

	pthread_mutex_lock(&process->lock);
	has_exited = process->has_exited;
	pthread_mutex_unlock(&process->lock);
	if (has_exited && output_try_release(&process->output) && process->container->link)
		link_post(process->container->link,
			&(struct msg){
				.type = MSG_FORGET, .body = &body, .body_bytes = sizeof(body) });
}

void process_set_exited(struct process *process, const struct msg_exited *exited)
{
	pthread_mutex_lock(&process->lock);
	if (!process->has_exited) {
		process->exited = *exited;
		process->has_exited = true;
		auto_fd(&process->input_fd);
		signal_event(process->exit_fd);
	}
	pthread_mutex_unlock(&process->lock);
	release_if_delivered(process);
}

/* Nobody fills its rings any more: they end here. */
static void end_rings(struct process *process)
{
	struct output *output = &process->output;
	struct ring rings[N_STREAMS] = { 0 };

	pthread_mutex_lock(&output->lock);
	if (!output->is_released && ring_map(output->ring_fd, rings) == 0) {
		for (int i = 0; i < N_STREAMS; i++)
			atomic_store(&rings[i].shared->closed, 1);
		signal_event(output->data_fd);
		ring_unmap(rings);
	}
	pthread_mutex_unlock(&output->lock);
}

void process_set_lost(struct process *process)
{
	end_rings(process);
	process_set_exited(process,
		&(struct msg_exited){ .token = process->token,
			.exit_status = 137,
			.wait_status = 9,
			.reason = EXIT_CONTAINER_DEAD });
}

static struct process *find_process(struct container *container, const char *process_id)
{
	struct process *process;

	pthread_mutex_lock(&container->table_lock);
	process = registry_find(container->processes, process_id);
	if (process) {
		pthread_mutex_lock(&process->lock);
		process->n_refs++;
		pthread_mutex_unlock(&process->lock);
	}
	pthread_mutex_unlock(&container->table_lock);
	return process;
}

/* ---- attaches -------------------------------------------------------------------------------- */

/* Lock held. */
static void purge_expired(struct process *process)
{
	struct attach *attach, *next;

	for (attach = TAILQ_FIRST(&process->attaches); attach; attach = next) {
		next = TAILQ_NEXT(attach, entry);
		if (attach->expires_ms && attach->expires_ms < now_ms())
			attach_free(process, attach);
	}
}

/* Consumes the references to process and container, also on failure. */
static int attach_new(struct process *take_process, struct container *take_container,
	struct attach **ret_attach, struct err *err)
{
	struct attach *attach = calloc(1, sizeof(*attach));

	if (attach) {
		*attach = (struct attach){ .process = take_process, .container = take_container };
		attach->cut_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	if (!attach || attach->cut_fd < 0 || random_hex(attach->stream_id, 16) < 0) {
		free(attach);
		process_put(take_process);
		container_put(take_container);
		return err_system(err, -ENOMEM, "attach");
	}
	pthread_mutex_lock(&take_process->lock);
	purge_expired(take_process);
	TAILQ_INSERT_TAIL(&take_process->attaches, attach, entry);
	for (int i = 0; i < N_STREAMS; i++) {
		attach->streams[i].start =
			output_pin(&take_process->output, i, &attach->streams[i].pin);
		attach->streams[i].is_pinned = true;
	}
	pthread_mutex_unlock(&take_process->lock);
	*ret_attach = attach;
	return 0;
}

/* One that is still being started, or could not be, has no descriptors yet. */
static bool is_started(struct process *process)
{
	bool yes;

	pthread_mutex_lock(&process->lock);
	yes = process->is_started;
	pthread_mutex_unlock(&process->lock);
	return yes;
}

int process_attach(struct container *container, const char *process_id, struct attach **ret_attach,
	struct err *err)
{
	struct process *process = find_process(container, process_id);

	if (process && !is_started(process)) {
		process_put(process);
		process = NULL;
	}
	if (!process)
		return err_set(err, ERR_NO_PROCESS, ESRCH, "unknown process: %s", process_id);
	container_hold(container);
	return attach_new(process, container, ret_attach, err);
}

void attach_end(struct attach *attach)
{
	struct process *process = attach->process;
	struct container *container = attach->container;

	pthread_mutex_lock(&process->lock);
	attach->expires_ms = now_ms() + LATE_STREAM_MS;
	pthread_mutex_unlock(&process->lock);
	process_put(process);
	container_put(container);
}

const char *attach_process_id(const struct attach *attach)
{
	return attach->process->id;
}

const char *attach_stream_id(const struct attach *attach)
{
	return attach->stream_id;
}

int attach_exit_fd(const struct attach *attach)
{
	return attach->process->exit_fd;
}

int attach_cut_fd(const struct attach *attach)
{
	return attach->cut_fd;
}

bool attach_is_tty(const struct attach *attach)
{
	return attach->process->is_tty;
}

bool attach_exit_status(const struct attach *attach, int *ret_status)
{
	struct process *process = attach->process;
	bool has_exited;

	pthread_mutex_lock(&process->lock);
	has_exited = process->has_exited;
	*ret_status = process->exited.exit_status;
	pthread_mutex_unlock(&process->lock);
	return has_exited;
}

/* ---- run ------------------------------------------------------------------------------------- */

/* The table has it before the shim can say that it has ended. */
static int enter_table(struct container *container, const struct process_spec *spec,
	struct process **ret_process, struct err *err)
{
	char id[PROCESS_ID_SIZE];
	struct process *process;
	int r;

	if (spec->id && *spec->id)
		snprintf(id, sizeof(id), "%s", spec->id);
	else if (random_uuid(id) < 0)
		return err_system(err, -EIO, "process id");
	pthread_mutex_lock(&container->table_lock);
	process = process_new(container, id, container->next_token++, spec->tty, -1, -1, -1);
	r = process ? registry_add(container->processes, id, process) : -ENOMEM;
	if (r == 0)
		process->n_refs++; /* the caller's */
	pthread_mutex_unlock(&container->table_lock);
	if (r < 0)
		process_put(process);
	if (r == -EEXIST)
		return err_set(err, ERR_EXISTS, EEXIST, "process ID '%s' already in use", id);
	if (r < 0)
		return err_system(err, r, "process");
	*ret_process = process;
	return 0;
}

static void leave_table(struct container *container, struct process *process)
{
	pthread_mutex_lock(&container->table_lock);
	registry_remove(container->processes, process->id);
	pthread_mutex_unlock(&container->table_lock);
	process_put(process); /* the table's */
}

static uint64_t bounding_of(const struct container *container, const struct user *user)
{
	if (!container->privileged)
		return CAPS_DEFAULT;
	return user->uid == 0 ? caps_bounding() : CAPS_PRIVILEGED_USER & caps_bounding();
}

static int build_program(struct container *container, const struct process_spec *spec,
	struct user *user, void **ret_blob, size_t *ret_bytes, struct err *err)
{
	struct program_input input = {
		.spec = spec, .container_env = &container->env, .user = user
	};
	int r = user_lookup(
		container->root_fd, spec->user ? spec->user : "", container->map.n_ids, user, err);

	if (r < 0)
		return r;
	input.bounding = bounding_of(container, user);
	input.effective = user->uid == 0 ? input.bounding : 0;
	return program_build(&input, ret_blob, ret_bytes, err);
}

/* The texts are those that clients of the reference know. */
static int explain_step(const struct process_spec *spec, const struct user *user, int code,
	uint32_t step, struct err *err)
{
	static const char front[] = "exec failed: unable to start container process";
	const char *dir = spec->dir && *spec->dir ? spec->dir : user->home;
	const char *text = strerrordesc_np(code);
	bool has_slash = strchr(spec->path, '/');

	text = text ? text : "unknown error";
	switch ((enum child_step)step) {
	case STEP_LOOKUP:
		if (!has_slash)
			return err_set(err, ERR_NO_EXEC, code,
				"%s: exec: \"%.200s\": executable file not found in $PATH", front,
				spec->path);
		if (code == ENOENT)
			return err_set(err, ERR_NO_EXEC, code,
				"%s: exec: \"%.150s\": stat %.150s: no such file or directory",
				front, spec->path, spec->path);
		return err_set(
			err, ERR_SYSTEM, code, "%s: exec: \"%.200s\": %s", front, spec->path, text);
	case STEP_EXEC:
		if (code == EACCES)
			text = "permission denied";
		return err_set(
			err, ERR_SYSTEM, code, "%s: exec: \"%.200s\": %s", front, spec->path, text);
	case STEP_DIR_MAKE:
		return err_set(err, ERR_SYSTEM, code, "%s: mkdir %.200s: %s", front, dir, text);
	case STEP_DIR_ENTER:
		return err_set(err, ERR_SYSTEM, code, "%s: chdir to cwd (\"%.200s\"): %s", front,
			dir, text);
	case STEP_RLIMIT:
		return err_set(err, ERR_SYSTEM, code, "%s: rlimits: %s", front, text);
	case STEP_USER:
	case STEP_GROUPS:
		return err_set(err, ERR_SYSTEM, code, "%s: user %.100s: %s", front,
			spec->user ? spec->user : "", text);
	case STEP_STDIO:
	case STEP_TTY:
	case STEP_CAPS:
	case N_STEPS:
		break;
	}
	return err_set(err, ERR_SYSTEM, code, "%s: step %u: %s", front, step, text);
}

static int send_run(struct container *container, const struct process_spec *spec,
	const struct process *process, const struct user *user, const void *blob, size_t n_bytes,
	struct answer *ret_answer, struct err *err)
{
	AUTO_FREE char *body = malloc(sizeof(struct msg_run) + n_bytes);
	struct msg_run run = { .token = process->token,
		.uid = id_map_to_host(&container->map, user->uid),
		.gid = id_map_to_host(&container->map, user->gid),
		.tty = spec->tty,
		.columns = spec->columns,
		.rows = spec->rows,
		.ring_bytes = backend_ring_bytes(container->backend) };

	if (!body)
		return err_system(err, -ENOMEM, "run");
	memcpy(run.process_id, process->id, sizeof(run.process_id));
	memcpy(body, &run, sizeof(run));
	memcpy(body + sizeof(run), blob, n_bytes);
	return link_call(container->link,
		&(struct msg){ .type = MSG_RUN, .body = body, .body_bytes = sizeof(run) + n_bytes },
		ret_answer, err);
}

static int start_process(struct container *container, const struct process_spec *spec,
	struct process *process, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	AUTO_FREE void *blob = NULL;
	struct msg_reply reply;
	struct user user;
	size_t n_bytes;
	int r = build_program(container, spec, &user, &blob, &n_bytes, err);

	if (r == 0)
		r = send_run(container, spec, process, &user, blob, n_bytes, &answer, err);
	if (r < 0)
		return r;
	answer_body(&answer, &reply, sizeof(reply));
	if (reply.code < 0)
		return explain_step(spec, &user, -reply.code, reply.step, err);
	if (answer.n_fds != 3)
		return err_system(err, -EPROTO, "run");
	pthread_mutex_lock(&process->lock);
	pthread_mutex_lock(&process->output.lock);
	process->output.ring_fd = TAKE_FD(answer.fds[0]);
	process->output.data_fd = TAKE_FD(answer.fds[1]);
	process->output.is_released = false;
	pthread_mutex_unlock(&process->output.lock);
	process->is_started = true;
	if (!process->has_exited)
		process->input_fd = TAKE_FD(answer.fds[2]);
	pthread_mutex_unlock(&process->lock);
	release_if_delivered(process);
	return 0;
}

int process_run(struct container *container, const struct process_spec *spec,
	struct attach **ret_attach, struct err *err)
{
	struct process *process;
	int r = container_check_alive(container, err);

	if (r == 0)
		r = enter_table(container, spec, &process, err);
	if (r < 0)
		return r;
	r = start_process(container, spec, process, err);
	if (r < 0) {
		leave_table(container, process);
		process_put(process);
		return r;
	}
	container_hold(container);
	return attach_new(process, container, ret_attach, err);
}

/* ---- input ----------------------------------------------------------------------------------- */

/* 1: not ready yet; 0: done or nobody there; the lock keeps the descriptor open for the moment. */
static ssize_t write_some(struct process *process, const char *data, size_t n_bytes)
{
	ssize_t n = -EPIPE;

	pthread_mutex_lock(&process->lock);
	if (process->input_fd >= 0) {
		n = write(process->input_fd, data, n_bytes);
		if (n < 0)
			n = -errno;
	}
	pthread_mutex_unlock(&process->lock);
	return n;
}

/* A copy of the descriptor: another client may end stdin while we wait. */
static void wait_for_room(struct process *process)
{
	struct pollfd fds[2] = { { .events = POLLOUT },
		{ .fd = process->exit_fd, .events = POLLIN } };
	AUTO_FD int fd = -1;

	pthread_mutex_lock(&process->lock);
	if (process->input_fd >= 0)
		fd = fcntl(process->input_fd, F_DUPFD_CLOEXEC, 3);
	pthread_mutex_unlock(&process->lock);
	fds[0].fd = fd;
	if (fd >= 0)
		poll(fds, 2, -1);
}

int attach_write_stdin(struct attach *attach, const void *data, size_t n_bytes)
{
	struct process *process = attach->process;

	for (size_t done = 0; done < n_bytes;) {
		ssize_t n = write_some(process, (const char *)data + done, n_bytes - done);
		int status;

		if (n > 0)
			done += n;
		else if (n == -EAGAIN)
			wait_for_room(process);
		else if (n != -EINTR)
			return n < 0 ? (int)n : -EPIPE;
		if (n <= 0 && attach_exit_status(attach, &status))
			return -EPIPE;
	}
	return 0;
}

void attach_end_stdin(struct attach *attach)
{
	struct process *process = attach->process;
	struct msg_token body = { .token = process->token };
	bool was_open;

	if (process->is_tty)
		return;
	pthread_mutex_lock(&process->lock);
	was_open = process->input_fd >= 0;
	auto_fd(&process->input_fd);
	pthread_mutex_unlock(&process->lock);
	if (was_open)
		link_call(attach->container->link,
			&(struct msg){ .type = MSG_CLOSE_STDIN,
				.body = &body,
				.body_bytes = sizeof(body) },
			NULL, NULL);
}

int attach_signal(struct attach *attach, int signo, struct err *err)
{
	struct msg_signal body = { .token = attach->process->token, .signo = signo };

	return link_call(attach->container->link,
		&(struct msg){ .type = MSG_SIGNAL, .body = &body, .body_bytes = sizeof(body) },
		NULL, err);
}

void attach_resize(struct attach *attach, uint32_t columns, uint32_t rows)
{
	struct process *process = attach->process;
	struct winsize size = { .ws_col = columns < 1 ? 80
			: columns > 65535             ? 65535
						      : columns,
		.ws_row = rows < 1     ? 24
			: rows > 65535 ? 65535
				       : rows };

	pthread_mutex_lock(&process->lock);
	if (process->is_tty && process->input_fd >= 0)
		ioctl(process->input_fd, TIOCSWINSZ, &size);
	pthread_mutex_unlock(&process->lock);
}

/* ---- output ---------------------------------------------------------------------------------- */

/* From now on the shim may not drop anything: it must have heard so before we look at the tail. */
static void tell_opened(struct process *process, int stream)
{
	struct msg_signal body = { .token = process->token, .signo = stream };
	struct ring rings[N_STREAMS] = { 0 };
	bool is_new = false;

	pthread_mutex_lock(&process->output.lock);
	if (!process->output.is_released && ring_map(process->output.ring_fd, rings) == 0) {
		is_new = !atomic_load(&rings[stream].shared->opened) &&
			!atomic_load(&rings[stream].shared->closed);
		ring_unmap(rings);
	}
	pthread_mutex_unlock(&process->output.lock);
	if (is_new)
		link_call(process->container->link,
			&(struct msg){
				.type = MSG_OPENED, .body = &body, .body_bytes = sizeof(body) },
			NULL, NULL);
}

static struct attach *claim_stream(struct process *process, const char *stream_id, int stream)
{
	struct attach *attach, *found = NULL;

	TAILQ_FOREACH (attach, &process->attaches, entry)
		if (!strcmp(attach->stream_id, stream_id) && !attach->streams[stream].is_opened)
			found = attach;
	if (found)
		found->streams[stream].is_opened = true;
	if (found && found->expires_ms)
		found->expires_ms = now_ms() + LATE_STREAM_MS; /* not purged while we open it */
	return found;
}

static int open_claimed(struct process *process, struct attach *attach,
	struct stream_reader *reader, int stream, int sock_fd, struct err *err)
{
	int r;

	tell_opened(process, stream);
	r = reader_open(&reader->reader, &process->output, stream, attach->streams[stream].start,
		sock_fd, err);
	pthread_mutex_lock(&process->lock);
	output_unpin(&process->output, stream, &attach->streams[stream].pin);
	attach->streams[stream].is_pinned = false;
	pthread_mutex_unlock(&process->lock);
	return r;
}

/* Consumes the reference to process. */
static int open_stream(struct process *take_process, const char *stream_id, int stream, int sock_fd,
	struct stream_reader **ret_stream, struct err *err)
{
	struct stream_reader *reader = calloc(1, sizeof(*reader));
	struct attach *attach = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&take_process->lock);
	if (reader && (attach = claim_stream(take_process, stream_id, stream)))
		reader->cut_fd = fcntl(attach->cut_fd, F_DUPFD_CLOEXEC, 3);
	pthread_mutex_unlock(&take_process->lock);
	if (attach)
		r = open_claimed(take_process, attach, reader, stream, sock_fd, err);
	if (r < 0) {
		if (attach)
			auto_fd(&reader->cut_fd);
		free(reader);
		process_put(take_process);
		return err_set(err, ERR_NOT_FOUND, -r, "unknown stream id");
	}
	reader->process = take_process;
	*ret_stream = reader;
	return 0;
}

int stream_open(struct container *container, const char *process_id, const char *stream_id,
	int stream, int sock_fd, struct stream_reader **ret_stream, struct err *err)
{
	struct process *process = find_process(container, process_id);

	if (!process)
		return err_set(err, ERR_NO_PROCESS, ESRCH, "unknown process: %s", process_id);
	return open_stream(process, stream_id, stream, sock_fd, ret_stream, err);
}

int attach_open_stream(struct attach *attach, int stream, int sock_fd,
	struct stream_reader **ret_stream, struct err *err)
{
	struct process *process = attach->process;

	pthread_mutex_lock(&process->lock);
	process->n_refs++;
	pthread_mutex_unlock(&process->lock);
	return open_stream(process, attach->stream_id, stream, sock_fd, ret_stream, err);
}

struct reader *stream_reader(struct stream_reader *stream)
{
	return &stream->reader;
}

void stream_cut(struct stream_reader *stream)
{
	signal_event(stream->cut_fd);
}

void stream_close(struct stream_reader *stream)
{
	reader_close(&stream->reader);
	release_if_delivered(stream->process);
	auto_fd(&stream->cut_fd);
	process_put(stream->process);
	free(stream);
}

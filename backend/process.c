#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/parse.h"
#include "base/registry.h"
#include "container.h"
#include "link.h"
#include "pea.h"
#include "program.h"
#include "users.h"

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

	if (!process) {
		auto_fd(&take_ring_fd);
		auto_fd(&take_data_fd);
		auto_fd(&take_input_fd);
		return NULL;
	}
	*process = (struct process){ .n_refs = 1,
		.container = container,
		.token = token,
		.is_tty = is_tty,
		.input_fd = take_input_fd };
	snprintf(process->id, sizeof(process->id), "%s", id);
	pthread_mutex_init(&process->lock, NULL);
	output_init(&process->output, take_ring_fd, take_data_fd, container->kick_fd);
	TAILQ_INIT(&process->attaches);
	return process;
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
	attaches_free(process);
	output_done(&process->output);
	auto_fd(&process->input_fd);
	pthread_mutex_destroy(&process->lock);
	free(process);
}

void process_release_if_delivered(struct process *process)
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

void process_set_exited(struct process *process, const struct msg_end *end)
{
	pthread_mutex_lock(&process->lock);
	if (!process->has_exited) {
		process->exited = end->exited;
		process->has_exited = true;
		if (process->is_pea)
			pea_ended(process);
		auto_fd(&process->input_fd);
		attaches_exited(process);
	}
	pthread_mutex_unlock(&process->lock);
	process_release_if_delivered(process);
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
		&(struct msg_end){ .exited = { .token = process->token,
					   .exit_status = 137,
					   .wait_status = 9,
					   .reason = EXIT_CONTAINER_DEAD } });
}

struct process *process_find(struct container *container, const char *process_id)
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
	if (process)
		process->is_pea = spec->image != NULL;
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

uint64_t process_bounding(const struct container *container, const struct user *user)
{
	const struct rights *rights = privilege_rights(container->privilege);

	return backend_bounding(container->backend) &
		(user->uid == 0 ? rights->root_caps : rights->user_caps);
}

static int build_program(struct container *container, const struct process_spec *spec,
	struct user *user, void **ret_blob, size_t *ret_bytes, struct err *err)
{
	struct program_input input = { .spec = spec,
		.image_env = &container->image_env,
		.container_env = &container->env,
		.user = user };
	int r = user_lookup(
		container->root_fd, spec->user ? spec->user : "", container->map.n_ids, user, err);

	if (r < 0)
		return r;
	input.bounding = process_bounding(container, user);
	input.effective = user->uid == 0 ? input.bounding : 0;
	return program_build(&input, ret_blob, ret_bytes, err);
}

static const char front[] = "exec failed: unable to start container process";

/* The texts are those that clients of the reference know. */
static int explain_lookup(const char *path, int code, struct err *err)
{
	if (!strchr(path, '/'))
		return err_set(err, ERR_NO_EXEC, code,
			"%s: exec: \"%.200s\": executable file not found in $PATH", front, path);
	if (code == ENOENT)
		return err_set(err, ERR_NO_EXEC, code,
			"%s: exec: \"%.150s\": stat %.150s: no such file or directory", front, path,
			path);
	return err_set(err, ERR_SYSTEM, code, "%s: exec: \"%.200s\": %s", front, path,
		strerrordesc_np(code));
}

int process_explain(const struct process_spec *spec, const struct user *user, int code,
	uint32_t step, struct err *err)
{
	const char *dir = spec->dir && *spec->dir ? spec->dir : user->home;
	const char *name = spec->user ? spec->user : "";
	const struct {
		const char *what, *object;
	} steps[N_STEPS] = {
		[STEP_STDIO] = { "standard streams", "" },
		[STEP_TTY] = { "terminal", "" },
		[STEP_RLIMIT] = { "rlimits", "" },
		[STEP_DIR_MAKE] = { "mkdir ", dir },
		[STEP_DIR_ENTER] = { "chdir to cwd ", dir },
		[STEP_GROUPS] = { "groups of user ", name },
		[STEP_USER] = { "user ", name },
		[STEP_CAPS] = { "capabilities", "" },
		[STEP_LOOKUP] = { "exec ", spec->path },
		[STEP_EXEC] = { "exec ", spec->path },
		[STEP_JOIN] = { "join the container", "" },
	};
	const char *text = code == EACCES ? "permission denied" : strerrordesc_np(code);

	if (step == STEP_STDIO && code == ESRCH) /* nobody takes them: init has just died */
		return err_set(err, ERR_SYSTEM, code, "the container is dead");
	if (step == STEP_LOOKUP)
		return explain_lookup(spec->path, code, err);
	if (step == STEP_EXEC)
		return err_set(
			err, ERR_SYSTEM, code, "%s: exec: \"%.200s\": %s", front, spec->path, text);
	return err_set(err, ERR_SYSTEM, code, "%s: %s%.200s: %s", front,
		step < N_STEPS ? steps[step].what : "unknown step",
		step < N_STEPS ? steps[step].object : "", text ? text : "unknown error");
}

struct msg_run process_head(
	const struct process *process, const struct process_spec *spec, const struct user *user)
{
	const struct container *container = process->container;
	struct msg_run run = { .token = process->token,
		.uid = id_map_to_host(&container->map, user->uid),
		.gid = id_map_to_host(&container->map, user->gid),
		.tty = spec->tty,
		.columns = spec->columns,
		.rows = spec->rows,
		.ring_bytes = backend_ring_bytes(container->backend) };

	memcpy(run.process_id, process->id, sizeof(run.process_id));
	return run;
}

static int send_run(struct container *container, const struct process_spec *spec,
	const struct process *process, const struct user *user, const void *blob, size_t n_bytes,
	struct answer *ret_answer, struct err *err)
{
	AUTO_FREE char *body = malloc(sizeof(struct msg_run) + n_bytes);
	struct msg_run run = process_head(process, spec, user);

	if (!body)
		return err_system(err, -ENOMEM, "run");
	memcpy(body, &run, sizeof(run));
	memcpy(body + sizeof(run), blob, n_bytes);
	return link_call(container->link,
		&(struct msg){ .type = MSG_RUN, .body = body, .body_bytes = sizeof(run) + n_bytes },
		ret_answer, err);
}

static int run_in_container(struct container *container, const struct process_spec *spec,
	const struct process *process, struct answer *ret_answer, struct err *err)
{
	AUTO_FREE void *blob = NULL;
	struct msg_reply reply;
	struct user user;
	size_t n_bytes;
	int r = build_program(container, spec, &user, &blob, &n_bytes, err);

	if (r == 0)
		r = send_run(container, spec, process, &user, blob, n_bytes, ret_answer, err);
	if (r < 0)
		return r;
	answer_body(ret_answer, &reply, sizeof(reply));
	return reply.code < 0 ? process_explain(spec, &user, -reply.code, reply.step, err) : 0;
}

static int start_process_now(struct container *container, const struct process_spec *spec,
	struct process *process, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	bool is_lost;
	int r = spec->image ? pea_run(container, spec, process, &answer, err)
			    : run_in_container(container, spec, process, &answer, err);

	if (r == 0)
		r = FAULT(run_answered, err);
	if (r < 0)
		return r;
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
	is_lost = process->has_exited && process->exited.reason == EXIT_CONTAINER_DEAD;
	pthread_mutex_unlock(&process->lock);
	if (is_lost)
		end_rings(process); /* the end came before there were any */
	process_release_if_delivered(process);
	return 0;
}

static int start_process(struct container *container, const struct process_spec *spec,
	struct process *process, struct err *err)
{
	int r;

	container_begin_run(container);
	r = FAULT(run_entered, err);
	if (r == 0)
		r = container_refresh(container, err);
	if (r == 0)
		r = start_process_now(container, spec, process, err);
	container_end_run(container);
	return r;
}

/* The shim may still start what nobody waits for any more, or have started what we could not take. */
static void kill_late(struct container *container, const struct process *process)
{
	struct msg_signal body = { .token = process->token, .signo = SIGKILL };

	link_post(container->link,
		&(struct msg){ .type = MSG_SIGNAL, .body = &body, .body_bytes = sizeof(body) });
}

static int run(struct container *container, const struct process_spec *spec,
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
		kill_late(container, process);
		count_one(&container->backend->counts, COUNT_START_FAILED);
		leave_table(container, process);
		process_put(process);
		return r;
	}
	count_one(&container->backend->counts, COUNT_STARTED);
	container_hold(container);
	return attach_new(process, container, ret_attach, err);
}

int process_run(struct container *container, const struct process_spec *spec,
	struct attach **ret_attach, struct err *err)
{
	int r;

	pool_begin_work(container->backend);
	r = run(container, spec, ret_attach, err);
	pool_end_work(container->backend);
	return r;
}

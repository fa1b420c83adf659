#include "pea.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <string.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/registry.h"
#include "binds.h"
#include "container.h"
#include "link.h"
#include "pea_group.h"
#include "linux/sys.h"
#include "process.h"
#include "program.h"
#include "rootfs.h"
#include "shim/protocol.h"
#include "spec.h"
#include "store.h"
#include "users.h"
#include "volumes/volumes.h"
#include "watch.h"

/* ---- the end --------------------------------------------------------------------------------- */

/* What goes through the pipe to the thread. */
struct ended {
	char container[CONTAINER_ID_SIZE];
	uint32_t token;
};

#define USER_SIZE (CONTAINER_ID_SIZE + 16)

/* Who its volumes are attached to. */
static void name_user(const char *container, uint32_t token, char ret_name[USER_SIZE])
{
	snprintf(ret_name, USER_SIZE, "%s-p%u", container, token);
}

static char *layer_path(const struct backend *backend, const char *container, uint32_t token)
{
	char *path;

	return asprintf(&path, "%s/%s/pea-%u", backend->live_dir, container, token) < 0 ? NULL
											: path;
}

/* Idempotent. First everything that runs in it, be it what makes it: nobody writes any more to what is
 * given back. The record goes last. */
static int end(struct backend *backend, const char *container, uint32_t token, struct err *err)
{
	AUTO_FREE char *from = layer_path(backend, container, token), *to = NULL;
	char user[USER_SIZE];
	int r = pea_group_end(backend, container, token);

	if (r < 0)
		return err_system(err, r, "remove the groups of process %u", token);
	name_user(container, token, user);
	if (!from || asprintf(&to, "%s/%s", backend->dead_dir, user) < 0)
		return err_system(err, -ENOMEM, "process %u", token);
	if (rename(from, to) < 0 && errno != ENOENT)
		return err_system(err, -errno, "move %s to %s", from, to);
	volume_detach_all(backend->volumes, user);
	keeper_has_dead(backend);
	return store_remove_pea(backend->db, container, token, err);
}

/* What stays goes with the container. */
static void clean(struct backend *backend, const char *container, uint32_t token)
{
	struct err err = { 0 };

	if (end(backend, container, token, &err) < 0)
		LOG(LOG_WARN, "pea-not-removed", KV_STR("container", container),
			KV_STR("error", err.msg));
}

static void *bury(void *arg)
{
	struct backend *backend = arg;
	struct ended ended;

	while (TEMP_FAILURE_RETRY(read(backend->pea_fds[0], &ended, sizeof(ended))) ==
		sizeof(ended))
		clean(backend, ended.container, ended.token);
	return NULL;
}

/* When the pipe is full it goes with the container. */
void pea_ended(const struct process *process)
{
	struct ended ended = { .token = process->token };

	memcpy(ended.container, process->container->id, sizeof(ended.container));
	(void)!TEMP_FAILURE_RETRY(
		write(process->container->backend->pea_fds[1], &ended, sizeof(ended)));
}

int peas_start(struct backend *backend, struct err *err)
{
	int r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, backend->pea_fds) < 0 ? -errno
											    : 0;

	if (r == 0 && fcntl(backend->pea_fds[1], F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	if (r == 0)
		r = -pthread_create(&backend->pea_thread, NULL, bury, backend);
	return r < 0 ? err_system(err, r, "thread of processes with an image") : 0;
}

void peas_stop(struct backend *backend)
{
	auto_fd(&backend->pea_fds[1]);
	pthread_join(backend->pea_thread, NULL);
	auto_fd(&backend->pea_fds[0]);
}

/* ---- at start -------------------------------------------------------------------------------- */

struct search {
	struct container *container;
	uint32_t token;
	bool is_found;
};

static int match_token(uint32_t token, void *arg)
{
	struct search *search = arg;

	search->is_found |= token == search->token;
	return 0;
}

bool pea_is_one(struct container *container, uint32_t token)
{
	struct search search = { .token = token };
	struct err err;

	return container->had_peas &&
		store_peas(container->backend->db, container->id, match_token, &search, &err) ==
		0 &&
		search.is_found;
}

static int match_process(const char *id, void *value, void *arg)
{
	const struct process *process = value;
	struct search *search = arg;

	(void)id;
	search->is_found |= process->token == search->token && process->is_pea;
	return search->is_found;
}

static bool has_process(struct container *container, uint32_t token)
{
	struct search search = { .token = token };

	pthread_mutex_lock(&container->table_lock);
	registry_each(container->processes, match_process, &search);
	pthread_mutex_unlock(&container->table_lock);
	return search.is_found;
}

struct tokens {
	uint32_t *all;
	size_t n_all;
};

static int add_token(uint32_t token, void *arg)
{
	struct tokens *tokens = arg;
	uint32_t *more = reallocarray(tokens->all, tokens->n_all + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	tokens->all = more;
	more[tokens->n_all++] = token;
	return 0;
}

static void auto_tokens(struct tokens *tokens)
{
	free(tokens->all);
}

void pea_recover(struct container *container)
{
	AUTO(auto_tokens) struct tokens tokens = { 0 };
	struct err err;

	if (container->had_peas)
		store_peas(container->backend->db, container->id, add_token, &tokens, &err);
	for (size_t i = 0; i < tokens.n_all; i++)
		if (!has_process(container, tokens.all[i]))
			clean(container->backend, container->id, tokens.all[i]);
}

/* A record that cannot be removed on a full disk goes with the container's. */
int pea_end_all(struct container *container, struct err *err)
{
	struct backend *backend = container->backend;
	AUTO(auto_tokens) struct tokens tokens = { 0 };
	int r = store_peas(backend->db, container->id, add_token, &tokens, err);

	for (size_t i = 0; i < tokens.n_all && r == 0; i++) {
		r = end(backend, container->id, tokens.all[i], err);
		if (r == -ENOSPC || r == -EIO)
			r = 0;
	}
	return r;
}

struct user_visit {
	const struct container *container;
	int (*visit)(const char *name, void *arg);
	void *arg;
};

static int visit_user(const char *id, void *value, void *arg)
{
	struct process *process = value;
	const struct user_visit *visit = arg;
	char name[USER_SIZE];
	bool lives;

	(void)id;
	pthread_mutex_lock(&process->lock);
	lives = process->is_pea && !process->has_exited;
	pthread_mutex_unlock(&process->lock);
	if (!lives)
		return 0;
	name_user(visit->container->id, process->token, name);
	return visit->visit(name, visit->arg);
}

int pea_each_user(struct container *container, int (*visit)(const char *name, void *arg), void *arg)
{
	struct user_visit visitor = { container, visit, arg };
	int r;

	pthread_mutex_lock(&container->table_lock);
	r = registry_each(container->processes, visit_user, &visitor);
	pthread_mutex_unlock(&container->table_lock);
	return r;
}

/* ---- the beginning --------------------------------------------------------------------------- */

struct pea {
	struct container *container;
	const struct process_spec *spec;
	const struct process *process;
	struct rootfs rootfs;
	struct volume_mount *mounts;
	struct user user;
	struct pea_group group;
	char user_name[USER_SIZE]; /* of volumes */
	char *dir;
	void *plan, *program;
	size_t plan_bytes, program_bytes;
};

static void pea_done(struct pea *pea)
{
	rootfs_done(&pea->rootfs);
	binds_done(pea->mounts, pea->spec->n_binds);
	free(pea->dir);
	free(pea->plan);
	free(pea->program);
}

/* Who it is, its image says. */
static int find_user(struct pea *pea, struct err *err)
{
	const char *root = pea->rootfs.lower ? pea->rootfs.lower : pea->rootfs.raw;
	const char *text = pea->spec->user ? pea->spec->user : "";
	AUTO_FD int root_fd = sys_open_at(AT_FDCWD, root, O_PATH | O_DIRECTORY, 0, 0);
	int r;

	if (root_fd < 0)
		return err_system(err, root_fd, "image %.200s", pea->spec->image);
	r = user_lookup(root_fd, text, pea->container->map.n_ids, &pea->user, err);
	return r == -ENOENT ? err_context(err, r, "'%.100s' is not a valid uid:gid", text) : r;
}

static int build_program(struct pea *pea, struct err *err)
{
	struct process_spec spec = *pea->spec;
	static char top[] = "/";
	struct program_input input = { .spec = &spec,
		.image_env = &pea->rootfs.env,
		.container_env = &pea->container->env,
		.user = &pea->user };

	if (!spec.dir || !*spec.dir)
		spec.dir = top;
	input.bounding = process_bounding(pea->container, &pea->user);
	input.effective = pea->user.uid == 0 ? input.bounding : 0;
	return program_build(&input, &pea->program, &pea->program_bytes, err);
}

static int build_plan(struct pea *pea, struct err *err)
{
	struct container *container = pea->container;
	struct backend *backend = container->backend;
	struct plan_input input = { .id = container->id,
		.cgroups = &backend->cgroups,
		.map = container->map,
		.privileged = privilege_rights(container->privilege)->is_of_host,
		.has_fuse = privilege_rights(container->privilege)->has_fuse,
		.skeleton_dir = backend->skeleton_dir,
		.container_dir = pea->dir,
		.lower = pea->rootfs.lower,
		.raw = pea->rootfs.raw,
		.group = &pea->group,
		.binds = pea->spec->binds,
		.bind_volumes = pea->mounts,
		.n_binds = pea->spec->n_binds };
	int r = plan_pea(&input, &pea->plan, &pea->plan_bytes);

	return r < 0 ? err_system(err, r, "plan") : 0;
}

/* Everything that it needs before the shim makes it. What is made is recorded already. */
static int prepare(struct pea *pea, struct err *err)
{
	struct backend *backend = pea->container->backend;
	const struct store_image image = { pea->rootfs.image, pea->rootfs.lower, NULL };
	int r = find_user(pea, err);

	if (r == 0)
		r = build_program(pea, err);
	if (r == 0)
		r = store_add_pea(backend->db, pea->container->id, pea->process->token, err);
	if (r == 0)
		r = store_add_image(
			backend->db, pea->container->id, pea->process->token, &image, err);
	if (r == 0)
		r = FAULT(pea_recorded, err);
	if (r == 0)
		r = binds_attach(backend, pea->user_name, pea->spec->binds, pea->spec->n_binds,
			pea->mounts, err);
	if (r == 0)
		r = layer_make(pea->dir, pea->rootfs.lower, err);
	if (r == 0)
		r = FAULT(pea_on_disk, err);
	if (r == 0)
		r = pea_group_make(backend, &pea->group, &pea->spec->limits,
			privilege_rights(pea->container->privilege)->has_fuse, err);
	if (r == 0)
		r = FAULT(pea_grouped, err);
	return r < 0 ? r : build_plan(pea, err);
}

static size_t padded(size_t n_bytes)
{
	return (n_bytes + 7) / 8 * 8;
}

/* What the shim needs of its groups: the one where it is born, and the files of its limits. */
static int give_group(const struct pea *pea, struct msg_run_image *head, struct msg *msg)
{
	const struct backend *backend = pea->container->backend;
	int fd = pea_group_open(backend, &pea->group);

	if (fd < 0 && fd != -ENODEV)
		return fd;
	head->has_group = fd >= 0;
	if (fd >= 0)
		msg->fds[msg->n_fds++] = fd;
	if (pea->group.is_apart)
		watch_open(
			backend, pea->group.id, pea->spec->limits.memory_bytes, &head->watch, msg);
	return 0;
}

static int send_run(struct pea *pea, struct answer *ret_answer, struct err *err)
{
	const struct container *container = pea->container;
	const struct backend *backend = container->backend;
	const struct rights *rights = privilege_rights(container->privilege);
	const struct filter *filter = rights->filter == NO_FILTER
		? &(struct filter){ 0 }
		: &backend->filters[rights->filter];
	struct msg_run_image head = { .run = process_head(pea->process, pea->spec, &pea->user),
		.bounding = backend->bounding & rights->root_caps,
		.plan_bytes = (uint32_t)pea->plan_bytes,
		.program_bytes = (uint32_t)pea->program_bytes,
		.filter_bytes = (uint32_t)filter->n_bytes };
	size_t program_at = sizeof(head) + padded(pea->plan_bytes);
	size_t filter_at = program_at + padded(pea->program_bytes);
	AUTO_FREE char *body = calloc(1, filter_at + head.filter_bytes);
	struct msg msg = { .type = MSG_RUN_IMAGE,
		.body = body,
		.body_bytes = filter_at + head.filter_bytes,
		.fds = { backend->proc_fd },
		.n_fds = 1 };
	int r;

	if (!body)
		return err_system(err, -ENOMEM, "run");
	r = give_group(pea, &head, &msg);
	if (r < 0)
		return err_system(err, r, "cgroup %s", pea->group.id);
	head.effective = head.bounding;
	memcpy(body, &head, sizeof(head));
	memcpy(body + sizeof(head), pea->plan, pea->plan_bytes);
	memcpy(body + program_at, pea->program, pea->program_bytes);
	if (filter->program)
		memcpy(body + filter_at, filter->program, head.filter_bytes);
	r = link_call(container->link, &msg, ret_answer, err);
	for (unsigned i = 1; i < msg.n_fds; i++)
		auto_fd(&msg.fds[i]);
	return r;
}

static int explain(const struct pea *pea, const struct msg_reply *reply, struct err *err)
{
	AUTO_BUF struct buf text;

	buf_init(&text, 4096);
	if (reply->step < STEP_OF_PLAN)
		return process_explain(pea->spec, &pea->user, -reply->code, reply->step, err);
	plan_describe(pea->plan, reply->step - STEP_OF_PLAN, &text);
	return err_system(
		err, reply->code, "image %.100s: %.300s", pea->spec->image, buf_str(&text));
}

static int start(struct pea *pea, struct answer *ret_answer, struct err *err)
{
	struct msg_reply reply;
	int r = prepare(pea, err);

	if (r == 0)
		r = send_run(pea, ret_answer, err);
	volume_mounted(pea->container->backend->volumes, pea->user_name);
	if (r < 0)
		return r;
	answer_body(ret_answer, &reply, sizeof(reply));
	return reply.code < 0 ? explain(pea, &reply, err) : 0;
}

int pea_run(struct container *container, const struct process_spec *spec,
	const struct process *process, struct answer *ret_answer, struct err *err)
{
	AUTO(pea_done)
	struct pea pea = { .container = container, .spec = spec, .process = process };
	struct backend *backend = container->backend;
	int r = limits_check(&spec->limits, &backend->cgroups, err);

	if (r == 0)
		r = rootfs_resolve(&backend->rootfs, spec->image, &pea.rootfs, err);
	if (r < 0)
		return r;
	pea_group_name(&pea.group, container->id, process->token, spec->has_limits);
	name_user(container->id, process->token, pea.user_name);
	pea.dir = layer_path(backend, container->id, process->token);
	pea.mounts = calloc(spec->n_binds + 1, sizeof(*pea.mounts));
	if (!pea.dir || !pea.mounts)
		return err_system(err, -ENOMEM, "run");
	r = start(&pea, ret_answer, err);
	if (r < 0)
		clean(backend, container->id, process->token);
	return r;
}

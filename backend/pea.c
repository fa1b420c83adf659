#include "pea.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/registry.h"
#include "binds.h"
#include "container.h"
#include "link.h"
#include "linux/sys.h"
#include "pea_group.h"
#include "pea_internal.h"
#include "process.h"
#include "program.h"
#include "rootfs.h"
#include "shim/protocol.h"
#include "spec.h"
#include "store.h"
#include "users.h"
#include "volumes/volumes.h"
#include "watch.h"

/* ---- names ----------------------------------------------------------------------------------- */

void pea_user_name(const char *container, uint32_t token, char ret_name[PEA_USER_SIZE])
{
	snprintf(ret_name, PEA_USER_SIZE, "%s-p%u", container, token);
}

char *pea_layer_path(const struct backend *backend, const char *container, uint32_t token)
{
	char *path;

	return asprintf(&path, "%s/%s/pea-%u", backend->live_dir, container, token) < 0 ? NULL
											: path;
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
	char name[PEA_USER_SIZE];
	bool lives;

	(void)id;
	pthread_mutex_lock(&process->lock);
	lives = process->is_pea && !process->has_exited;
	pthread_mutex_unlock(&process->lock);
	if (!lives)
		return 0;
	pea_user_name(visit->container->id, process->token, name);
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
	char user_name[PEA_USER_SIZE]; /* of volumes */
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
	pea_user_name(container->id, process->token, pea.user_name);
	pea.dir = pea_layer_path(backend, container->id, process->token);
	pea.mounts = calloc(spec->n_binds + 1, sizeof(*pea.mounts));
	if (!pea.dir || !pea.mounts)
		return err_system(err, -ENOMEM, "run");
	r = start(&pea, ret_answer, err);
	if (r < 0)
		pea_clean(backend, container->id, process->token);
	return r;
}

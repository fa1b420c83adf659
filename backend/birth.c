/* From a recorded container to a running init: groups, directories, shim, plans. Each thing has a
 * name that derives from the record's id, so that teardown and recovery find it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fault.h"
#include "binds.h"
#include "container.h"
#include "disk_quota.h"
#include "link.h"
#include "linux/spawn.h"
#include "linux/sys.h"
#include "network.h"
#include "profile.h"
#include "shim/protocol.h"
#include "volumes/volumes.h"

#define HOSTNAME_MAX 49 /* as guardian: the end of the handle */

static void hostname_of(const struct container *container, char name[HOSTNAME_MAX + 1])
{
	size_t len = strlen(container->handle);

	snprintf(name, HOSTNAME_MAX + 1, "%s",
		container->handle + (len > HOSTNAME_MAX ? len - HOSTNAME_MAX : 0));
}

/* ---- on disk --------------------------------------------------------------------------------- */

/* container NULL: what its directory is holds for this one in it, too. */
static int make_dirs(const char *dir, struct container *container, struct err *err)
{
	AUTO_FD int dir_fd = -1;
	int r;

	if (mkdir(dir, 0755) < 0)
		return err_system(err, -errno, "%s", dir);
	r = dir_fd = sys_open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0, 0);
	if (r >= 0 && container)
		r = disk_quota_claim(container, dir_fd);
	if (r >= 0)
		r = mkdirat(dir_fd, "upper", 0755) < 0 || mkdirat(dir_fd, "work", 0755) < 0 ? -errno
											    : 0;
	return r < 0 ? err_system(err, r, "%s", dir) : 0;
}

/* The upper's owner and mode are the root's: take them from the image. */
static int copy_root_mode(const char *dir, const char *lower, struct err *err)
{
	AUTO_FREE char *upper = NULL;
	struct stat st;

	if (asprintf(&upper, "%s/upper", dir) < 0)
		return err_system(err, -ENOMEM, "%s", dir);
	if (stat(lower, &st) < 0 || chmod(upper, st.st_mode & 07777) < 0)
		return err_system(err, -errno, "rootfs %s", lower);
	return 0;
}

int layer_make(const char *dir, const char *lower, struct err *err)
{
	int r = make_dirs(dir, NULL, err);

	return r < 0 || !lower ? r : copy_root_mode(dir, lower, err);
}

/* ---- the shim -------------------------------------------------------------------------------- */

/* Where a later server finds the shim. The directory is 0700; the name is short by way of its
 * descriptor. */
static int listen_for_servers(const struct container *container)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	AUTO_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
		container->backend->run_fd, container->id);
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(fd, 4) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int start_shim(struct container *container, struct err *err)
{
	const char *argv[] = { "cloche-shim", container->nonce, NULL };
	struct spawn spawn = { container->backend->shim_exe_fd, argv, -1, -1, -1, -1, 0,
		FAULT_ENVIRON };
	AUTO_FD int theirs = -1;
	int ends[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_system(err, -errno, "shim");
	spawn.extra_fd = theirs = ends[1];
	r = link_open(container->backend->links, ends[0], container, &container->link, err);
	if (r < 0)
		return r;
	pid = spawn_program(&spawn);
	if (pid < 0)
		return err_system(err, pid, "start the shim");
	container->shim_pid = pid;
	return 0;
}

/* ---- plans ----------------------------------------------------------------------------------- */

struct birth {
	struct plan_input input;
	struct network_link link;
	struct buf hosts, hostname, resolvers;
	void *prepare, *birth;
	size_t prepare_bytes, birth_bytes;
	int64_t prepare_seq, birth_seq, start_seq;
	struct volume_mount *mounts; /* of the input's binds */
};

static int send_prepare(struct container *container, struct birth *birth)
{
	AUTO_FD int listen_fd = listen_for_servers(container);

	if (listen_fd < 0)
		return listen_fd;
	birth->prepare_seq = link_send(container->link,
		&(struct msg){ .type = MSG_PREPARE,
			.body = birth->prepare,
			.body_bytes = birth->prepare_bytes,
			.fds = { container->backend->proc_fd, listen_fd },
			.n_fds = 2 });
	return birth->prepare_seq < 0 ? (int)birth->prepare_seq : 0;
}

/* What does not depend on the request, up to the message that has it made. */
static int begin(struct container *container, struct birth *birth, struct err *err)
{
	struct backend *backend = container->backend;
	int r = start_shim(container, err); /* first: it starts up while we make directories */

	if (r == 0)
		r = FAULT(create_spawned, err);
	if (r == 0)
		r = make_dirs(birth->input.container_dir, container, err);
	if (r == 0)
		r = FAULT(create_on_disk, err);
	if (r == 0)
		r = cgroup_create(&backend->cgroups, container->id,
			privilege_rights(container->privilege)->has_fuse, err);
	if (r == 0)
		r = FAULT(create_grouped, err);
	if (r == 0 && container->lease)
		r = network_admit(container->lease, err); /* before it has a link */
	if (r < 0)
		return r;
	r = send_prepare(container, birth);
	return r < 0 ? err_system(err, r, "message to the shim") : 0;
}

static int send_start(struct container *container, struct birth *birth)
{
	const struct backend *backend = container->backend;
	const struct rights *rights = privilege_rights(container->privilege);
	const struct filter *filter = rights->filter == NO_FILTER
		? &(struct filter){ 0 }
		: &backend->filters[rights->filter];
	struct msg_start start = { .bounding = backend->bounding & rights->root_caps,
		.filter_bytes = filter->n_bytes,
		.new_namespaces = CLONE_NEWNS | CLONE_NEWCGROUP };
	AUTO_FREE char *body = malloc(sizeof(start) + start.filter_bytes);

	if (!body)
		return -ENOMEM;
	start.effective = start.bounding;
	hostname_of(container, start.hostname);
	memcpy(body, &start, sizeof(start));
	if (filter->program)
		memcpy(body + sizeof(start), filter->program, start.filter_bytes);
	birth->start_seq = link_send(container->link,
		&(struct msg){ .type = MSG_START,
			.body = body,
			.body_bytes = sizeof(start) + start.filter_bytes });
	return birth->start_seq < 0 ? (int)birth->start_seq : 0;
}

/* All go out at once: the shim works them off in order while we wait for the last. */
static int send_rest(struct container *container, struct birth *birth, struct err *err)
{
	int r;

	birth->birth_seq = link_send(container->link,
		&(struct msg){ .type = MSG_BIRTH,
			.body = birth->birth,
			.body_bytes = birth->birth_bytes });
	r = birth->birth_seq < 0 ? (int)birth->birth_seq : send_start(container, birth);
	return r < 0 ? err_system(err, r, "message to the shim") : 0;
}

static int explain(const void *plan, const struct msg_reply *reply, struct err *err)
{
	AUTO_BUF struct buf text;

	buf_init(&text, 4096);
	if (!plan)
		return err_system(err, reply->code, "start init");
	plan_describe(plan, reply->step, &text);
	return err_system(err, reply->code, "%.300s", buf_str(&text));
}

static int await(struct container *container, int64_t seq, const void *plan,
	struct answer *ret_answer, struct err *err)
{
	struct msg_reply reply;
	int r = link_wait(container->link, seq, LINK_TIMEOUT_MS, ret_answer, err);

	if (r < 0)
		return r;
	answer_body(ret_answer, &reply, sizeof(reply));
	return reply.code < 0 ? explain(plan, &reply, err) : 0;
}

static int await_prepared(struct container *container, struct birth *birth, struct err *err)
{
	AUTO(answer_done) struct answer prepared = { 0 };
	int r = await(container, birth->prepare_seq, birth->prepare, &prepared, err);

	container->is_prepared = r == 0;
	return r;
}

/* The last answer first: when it has come the others have, and nobody was woken for each. */
static int await_born(struct container *container, struct birth *birth, struct answer *ret_started,
	struct err *err)
{
	AUTO(answer_done) struct answer born = { 0 };
	struct err later = { 0 };
	int last = await(container, birth->start_seq, NULL, ret_started, &later);
	int r = await(container, birth->birth_seq, birth->birth, &born, err);

	profile_mark_at(container->profile, PROFILE_MOUNTS, born.at_us);
	profile_mark(container->profile, PROFILE_INIT);
	if (r == 0 && last < 0) {
		*err = later;
		r = last;
	}
	return r;
}

static int await_all(struct container *container, struct birth *birth, struct err *err)
{
	AUTO(answer_done) struct answer started = { 0 };
	int r = FAULT(create_asked, err);

	if (r == 0 && !container->is_prepared)
		r = await_prepared(container, birth, err);
	profile_mark(container->profile, PROFILE_NAMESPACES);
	if (r == 0)
		r = await_born(container, birth, &started, err);
	if (r < 0)
		return r;
	if (started.n_fds != 2)
		return err_system(err, -EPROTO, "start init");
	container->root_fd = TAKE_FD(started.fds[0]);
	container->kick_fd = TAKE_FD(started.fds[1]);
	return 0;
}

static void auto_birth(struct birth *birth)
{
	buf_done(&birth->hosts);
	buf_done(&birth->hostname);
	buf_done(&birth->resolvers);
	free(birth->prepare);
	free(birth->birth);
	binds_done(birth->mounts, birth->input.n_binds);
}

/* Its link belongs to the first plan: it is the same for all. */
static void describe_link(const struct container *container, struct birth *birth)
{
	if (!container->lease)
		return;
	network_describe(container->lease, &birth->link);
	birth->input.link = &birth->link;
}

#define FILE_BYTES 65536

/* What the files about the network say. */
static int write_files(const struct container *container, struct birth *birth)
{
	struct network *network = container->backend->network;
	char hostname[HOSTNAME_MAX + 1];
	int r;

	hostname_of(container, hostname);
	buf_init(&birth->hosts, FILE_BYTES);
	buf_init(&birth->hostname, FILE_BYTES);
	buf_init(&birth->resolvers, FILE_BYTES);
	network_hosts(network, container->lease, hostname, &birth->hosts);
	buf_addf(&birth->hostname, "%s\n", hostname);
	network_resolvers(network, container->lease, &birth->resolvers);
	birth->input.hosts = buf_str(&birth->hosts);
	birth->input.hostname_file = buf_str(&birth->hostname);
	birth->input.resolvers = buf_str(&birth->resolvers);
	r = buf_failed(&birth->hosts);
	return r ? r : buf_failed(&birth->resolvers);
}

static char *dir_of(const struct container *container)
{
	char *dir;

	return asprintf(&dir, "%s/%s", container->backend->live_dir, container->id) < 0 ? NULL
											: dir;
}

/* As far as the first plan needs it. */
static struct plan_input input_of(const struct container *container, const char *dir)
{
	const struct backend *backend = container->backend;

	return (struct plan_input){ .id = container->id,
		.cgroups = &backend->cgroups,
		.map = container->map,
		.privileged = privilege_rights(container->privilege)->is_of_host,
		.has_fuse = privilege_rights(container->privilege)->has_fuse,
		.skeleton_dir = backend->skeleton_dir,
		.container_dir = dir,
		.masked = &backend->masked,
		.readonly = &backend->readonly };
}

int container_prepare(struct container *container, struct err *err)
{
	AUTO_FREE char *dir = dir_of(container);
	AUTO(auto_birth) struct birth birth = { .input = input_of(container, dir) };
	int r;

	describe_link(container, &birth);
	if (!dir || plan_prepare(&birth.input, &birth.prepare, &birth.prepare_bytes) < 0)
		return err_system(err, -ENOMEM, "plan");
	r = begin(container, &birth, err);
	if (r == 0)
		r = await_prepared(container, &birth, err);
	if (r == 0)
		container_watch(container);
	return r;
}

/* Volumes are attached and the request is checked before anything is made. */
static int look_at_binds(struct container *container, const struct container_spec *spec,
	struct birth *birth, struct err *err)
{
	birth->mounts = calloc(spec->n_binds + 1, sizeof(*birth->mounts));
	if (!birth->mounts)
		return err_system(err, -ENOMEM, "create");
	birth->input.binds = spec->binds;
	birth->input.n_binds = spec->n_binds;
	birth->input.bind_volumes = birth->mounts;
	return binds_attach(
		container->backend, container->id, spec->binds, spec->n_binds, birth->mounts, err);
}

static int make_plans(const struct container *container, struct birth *birth, struct err *err)
{
	if ((!container->is_prepared &&
		    plan_prepare(&birth->input, &birth->prepare, &birth->prepare_bytes) < 0) ||
		plan_birth(&birth->input, &birth->birth, &birth->birth_bytes) < 0)
		return err_system(err, -ENOMEM, "plan");
	return 0;
}

/* Last, because the builder counts too; nobody can run anything yet. */
static int take_limits(
	struct container *container, const struct rootfs *rootfs, bool is_watched, struct err *err)
{
	struct backend *backend = container->backend;
	const struct limits *limits = &container->limits;
	int r = FAULT(create_born, err);

	if (r == 0)
		r = limits_apply(limits, &backend->config.limits_policy, &backend->cgroups,
			container->id, err);
	if (r == 0)
		r = disk_quota_apply(container, rootfs, err);
	if (r == 0 && container->lease && limits->rate_bytes)
		r = network_limit(container->lease, limits->rate_bytes, limits->burst_bytes, err);
	if (r == 0 && is_watched)
		container_watch_limits(container);
	else if (r == 0)
		container_watch(container);
	return r < 0 ? r : FAULT(create_limited, err);
}

int container_bear(struct container *container, const struct container_spec *spec,
	const struct rootfs *rootfs, struct err *err)
{
	AUTO_FREE char *dir = dir_of(container);
	AUTO(auto_birth) struct birth birth = { .input = input_of(container, dir) };
	const bool is_unborn = container->is_prepared; /* and then watched, too */
	int r;

	if (!dir)
		return err_system(err, -ENOMEM, "create");
	describe_link(container, &birth);
	birth.input.lower = rootfs->lower;
	birth.input.raw = rootfs->raw;
	birth.input.volume = rootfs->volume.layers.n_items ? &rootfs->volume : NULL;
	r = look_at_binds(container, spec, &birth, err);
	profile_mark(container->profile, PROFILE_ROOT);
	if (r == 0 && write_files(container, &birth) < 0)
		r = err_system(err, -ENOMEM, "files of the network");
	if (r == 0)
		r = make_plans(container, &birth, err);
	profile_mark(container->profile, PROFILE_REST);
	if (r == 0 && !container->is_prepared)
		r = begin(container, &birth, err);
	profile_mark(container->profile, PROFILE_SHIM);
	if (r == 0 && rootfs->lower)
		r = copy_root_mode(dir, rootfs->lower, err);
	if (r == 0)
		r = send_rest(container, &birth, err);
	if (r == 0)
		r = await_all(container, &birth, err);
	return r < 0 ? r : take_limits(container, rootfs, is_unborn, err);
}

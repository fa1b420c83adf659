/* Start of a server on a work directory that has a past: containers whose shims answer are adopted,
 * the others are ended. What no record names is leftovers.c's, and never a reason to fail. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/registry.h"
#include "container.h"
#include "disk_quota.h"
#include "leftovers.h"
#include "link.h"
#include "network.h"
#include "pea.h"
#include "process.h"
#include "store.h"

/* ---- a container from its record ------------------------------------------------------------- */

static int load_property(const char *key, const char *value, void *arg)
{
	char *copy = strdup(value);
	int r = copy ? registry_add(arg, key, copy) : -ENOMEM;

	if (r < 0)
		free(copy);
	return r;
}

static int load_bind(const struct bind_mount *bind, void *arg)
{
	struct container *container = arg;

	return bind_add(&container->binds, &container->n_binds, bind);
}

static int add_own_property(struct container *container, const char *key, const char *value)
{
	return registry_find(container->properties, key)
		? 0
		: load_property(key, value, container->properties);
}

/* The range is the record's, even if it is none of the pool that we were started with. */
static void load_ids(struct container *container, const struct record *record)
{
	if (record->id_base < 0 && privilege_rights(container->privilege)->has_userns)
		id_map_maximal(&container->map);
	if (record->id_base < 0)
		return;
	container->id_range = idpool_find(&container->backend->ids, record->id_base);
	idpool_mark_overlap(&container->backend->ids, record->id_base);
	id_map_range(&container->map, (uint32_t)record->id_base);
}

static int load(struct backend *backend, const struct record *record,
	struct container **ret_container, struct err *err)
{
	struct container *container =
		container_new(backend, record->handle, (enum privilege)record->privileged, 0, err);
	char grace[32];
	int r;

	if (!container)
		return -ENOMEM;
	container->id_range = -1;
	snprintf(container->id, sizeof(container->id), "%s", record->id);
	snprintf(container->nonce, sizeof(container->nonce), "%s", record->nonce);
	snprintf(grace, sizeof(grace), "%lld", (long long)record->grace_ns);
	container->grace_ns = record->grace_ns;
	container->state = record->state;
	container->created_ms = record->created_ms;
	if (record->root)
		container->root_uri = strdup(record->root); /* without it: only metrics miss it */
	load_ids(container, record);
	disk_quota_adopt(container);
	r = store_env(backend->db, record->id, &container->env, err);
	if (r == 0)
		r = store_image_env(backend->db, record->id, &container->image_env, err);
	if (r == 0)
		r = store_properties(
			backend->db, record->id, load_property, container->properties, err);
	if (r == 0)
		r = limits_load(backend->db, record->id, &container->limits, err);
	if (r == 0)
		r = store_binds(backend->db, record->id, load_bind, container, err);
	if (r == 0)
		r = store_lower(backend->db, record->id, 0, &container->lower, err);
	if (r == 0)
		r = network_adopt(backend->network, container->id, &container->lease, err);
	if (r == 0)
		r = container_put_network_properties(container, err);
	if (r == 0)
		r = add_own_property(container, "garden.state", "created");
	if (r == 0 && record->grace_ns > 0)
		r = add_own_property(container, "garden.grace-time", grace);
	if (r == 0)
		r = registry_add(backend->containers, container->handle, container);
	if (r < 0) {
		container_unref(container);
		return err_system(err, r, "load container %s", record->handle);
	}
	*ret_container = container;
	return 0;
}

/* ---- adoption -------------------------------------------------------------------------------- */

static int connect_shim(struct container *container, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = LINK_TIMEOUT_MS / 1000 };
	AUTO_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	/* before connect: behind one that hangs a few dead servers may fill the queue */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
		container->backend->run_fd, container->id);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_system(err, -errno, "connect to the shim");
	return link_open(container->backend->links, TAKE_FD(fd), container, &container->link, err);
}

static int ask_for(struct container *container, uint32_t token, struct msg_process *ret_told,
	int fds[3], struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	struct msg_token body = { .token = token };
	int r = link_call(container->link,
		&(struct msg){ .type = MSG_ADOPT, .body = &body, .body_bytes = sizeof(body) },
		&answer, err);

	if (r < 0)
		return r;
	answer_body(&answer, ret_told, sizeof(*ret_told));
	ret_told->process_id[sizeof(ret_told->process_id) - 1] = '\0';
	for (unsigned i = 0; fds && i < answer.n_fds && i < 3; i++)
		fds[i] = TAKE_FD(answer.fds[i]);
	return 0;
}

/* Two of one name: a run that timed out came true after all. The container matters more. */
static int enter_table(struct container *container, struct process *process, struct err *err)
{
	int r;

	pthread_mutex_lock(&container->table_lock);
	r = registry_add(container->processes, process->id, process);
	if (container->next_token <= process->token)
		container->next_token = process->token + 1;
	pthread_mutex_unlock(&container->table_lock);
	if (r == 0)
		return 1;
	LOG(LOG_WARN, "process-not-adopted", KV_STR("handle", container->handle),
		KV_STR("process", process->id));
	process_put(process);
	return r == -EEXIST ? 0 : err_system(err, r, "adopt a process");
}

static void adopt_end(
	struct container *container, struct process *process, const struct msg_process *told)
{
	struct msg_end end = { told->exited, told->usage };

	pthread_mutex_lock(&container->table_lock);
	container_note_end(container, process->id, &end);
	pthread_mutex_unlock(&container->table_lock);
	process_set_exited(process, &end);
}

static int adopt_process(struct container *container, uint32_t token, struct err *err)
{
	struct msg_process told;
	struct process *process;
	int fds[3] = { -1, -1, -1 };
	int r = ask_for(container, token, &told, fds, err);

	if (r < 0)
		return r;
	process = process_new(container, told.process_id, token, told.tty, fds[0], fds[1], fds[2]);
	if (!process)
		return err_system(err, -ENOMEM, "adopt");
	process->is_started = process->is_unsettled = true;
	process->is_pea = pea_is_one(container, token);
	r = enter_table(container, process, err);
	/* an exit that was told before the table knew the process was told to nobody: ask again */
	if (r == 1 && told.state != PROCESS_EXITED &&
		ask_for(container, token, &told, NULL, err) < 0)
		return -ESRCH;
	if (r == 1 && told.state == PROCESS_EXITED)
		adopt_end(container, process, &told);
	return r < 0 ? r : 0;
}

static int adopt(struct container *container, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	AUTO_FREE struct msg_welcome *welcome = calloc(1, sizeof(*welcome));
	struct msg_hello hello = { .protocol = SHIM_PROTOCOL };
	int r = welcome ? connect_shim(container, err) : err_system(err, -ENOMEM, "adopt");

	if (r == 0)
		r = FAULT(adopt_connected, err);
	if (r < 0)
		return r;
	snprintf(hello.nonce, sizeof(hello.nonce), "%s", container->nonce);
	r = link_call(container->link,
		&(struct msg){ .type = MSG_HELLO, .body = &hello, .body_bytes = sizeof(hello) },
		&answer, err);
	if (r < 0)
		return r;
	answer_body(&answer, welcome, sizeof(*welcome));
	if (welcome->reply.code < 0 || welcome->protocol != SHIM_PROTOCOL || answer.n_fds != 2)
		return err_set(
			err, ERR_SYSTEM, EPROTO, "the shim is not ours, or not of our version");
	container->root_fd = TAKE_FD(answer.fds[0]);
	container->kick_fd = TAKE_FD(answer.fds[1]);
	for (uint32_t i = 0; i < welcome->n_tokens && r == 0; i++)
		r = adopt_process(container, welcome->tokens[i], err);
	container_watch(container);
	if (r == 0)
		pea_recover(container);
	if (r == 0 && welcome->state == SHIM_DEAD)
		container_on_dead(container, &(struct msg){ .type = MSG_DEAD });
	return r;
}

/* ---- each record ----------------------------------------------------------------------------- */

struct candidate {
	struct record record; /* a copy: teardown changes the table */
	struct container *container; /* NULL: it could not be loaded */
	int adopted; /* 0, or what stood in the way, in err */
	struct err err;
};

struct recovery {
	struct backend *backend;
	struct candidate *all;
	size_t n_all;
	_Atomic size_t next;
};

/* Each waits for a shim at a time. */
#define N_ADOPTERS 8

/* Also to end it: its shim may have come further than its record. */
static void *adopt_each(void *arg)
{
	struct recovery *recovery = arg;
	size_t i;

	while ((i = atomic_fetch_add(&recovery->next, 1)) < recovery->n_all) {
		struct candidate *candidate = &recovery->all[i];

		if (candidate->container)
			candidate->adopted = adopt(candidate->container, &candidate->err);
	}
	return NULL;
}

static void adopt_all(struct recovery *recovery)
{
	pthread_t threads[N_ADOPTERS - 1];
	size_t n = 0;

	while (n < N_ELEMENTS(threads) && n + 1 < recovery->n_all &&
		pthread_create(&threads[n], NULL, adopt_each, recovery) == 0)
		n++;
	adopt_each(recovery);
	while (n)
		pthread_join(threads[--n], NULL);
}

static void settle(struct backend *backend, struct candidate *candidate)
{
	const struct record *record = &candidate->record;
	struct container *container = candidate->container;
	struct err err = candidate->err;
	bool is_whole = record->state != CONTAINER_CREATING && record->state != CONTAINER_UNBORN &&
		!strcmp(record->boot_id, backend->boot_id);
	int r = candidate->adopted;

	if (!container) {
		LOG(LOG_ERROR, "container-not-loaded", KV_STR("handle", record->handle),
			KV_STR("error", err.msg));
		return;
	}
	if (r == 0 && is_whole && !backend->config.destroy_on_start) {
		container->idle_since_ms = clock_ms();
		LOG(LOG_INFO, "container-adopted", KV_STR("handle", record->handle));
		return;
	}
	LOG(record->state == CONTAINER_UNBORN ? LOG_DEBUG : LOG_INFO, "container-ended-at-start",
		KV_STR("handle", record->handle),
		KV_STR("reason",
			r < 0              ? err.msg
				: is_whole ? "asked for"
					   : "half-made, or of another boot"));
	if (r < 0) { /* it does not obey a stranger; the end of the link is all it hears */
		link_close(container->link);
		container->link = NULL;
	}
	if (container_teardown(container, &err) == 0)
		return;
	if (record->state == CONTAINER_UNBORN) /* nobody can name it: the next start tries again */
		registry_remove(backend->containers, container->handle);
	LOG(LOG_ERROR, "container-not-removed", KV_STR("handle", record->handle),
		KV_STR("error", err.msg));
}

static int copy_record(const struct record *record, void *arg)
{
	struct recovery *recovery = arg;
	struct candidate *more =
		realloc(recovery->all, (recovery->n_all + 1) * sizeof(*recovery->all));
	struct record *copy;

	if (!more)
		return -ENOMEM;
	recovery->all = more;
	more += recovery->n_all++;
	*more = (struct candidate){ .record = *record };
	copy = &more->record;
	copy->id = strdup(record->id);
	copy->handle = strdup(record->handle);
	copy->nonce = strdup(record->nonce);
	copy->boot_id = strdup(record->boot_id);
	copy->root = record->root ? strdup(record->root) : NULL;
	return copy->id && copy->handle && copy->nonce && copy->boot_id ? 0 : -ENOMEM;
}

static void recovery_done(struct recovery *recovery)
{
	for (size_t i = 0; i < recovery->n_all; i++) {
		struct record *record = &recovery->all[i].record;

		free((char *)record->id);
		free((char *)record->handle);
		free((char *)record->nonce);
		free((char *)record->boot_id);
		free((char *)record->root);
	}
	free(recovery->all);
}

/* In one transaction: the locks of a thousand small ones take longer than the reading. */
static int load_all(struct db *db, void *arg, struct err *err)
{
	struct recovery *recovery = arg;
	int r = store_each(db, copy_record, recovery, err);

	for (size_t i = 0; r == 0 && i < recovery->n_all; i++)
		load(recovery->backend, &recovery->all[i].record, &recovery->all[i].container,
			&recovery->all[i].err);
	return r;
}

int recover(struct backend *backend, struct err *err)
{
	struct recovery recovery = { .backend = backend };
	int r = db_transaction(backend->db, load_all, &recovery, err);

	if (r == 0) {
		(void)FAULT(adopt_loaded, NULL);
		adopt_all(&recovery);
		(void)FAULT(adopt_answered, NULL);
		for (size_t i = 0; i < recovery.n_all; i++)
			settle(backend, &recovery.all[i]);
		(void)FAULT(adopt_settled, NULL);
		r = leftovers_sweep(backend, err);
		(void)FAULT(adopt_swept, NULL);
	}
	recovery_done(&recovery);
	if (r == 0)
		keeper_has_dead(backend); /* a process with an image may have ended meanwhile */
	return r;
}

/* The end of processes with a root of their own, and what a start finds of them. */
#include "pea_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/registry.h"
#include "container.h"
#include "pea.h"
#include "pea_group.h"
#include "process.h"
#include "store.h"
#include "volumes/volumes.h"

/* What goes through the pipe to the thread. */
struct ended {
	char container[CONTAINER_ID_SIZE];
	uint32_t token;
};

#define END_TRIES 20
#define END_PAUSE_MS 100

/* Idempotent. First everything that runs in it, be it what makes it: nobody writes any more to what is
 * given back. The record goes last. */
static int end(struct backend *backend, const char *container, uint32_t token, struct err *err)
{
	AUTO_FREE char *from = pea_layer_path(backend, container, token), *to = NULL;
	char user[PEA_USER_SIZE];
	int r = pea_group_end(backend, container, token);

	if (r < 0)
		return err_system(err, r, "remove the groups of process %u", token);
	pea_user_name(container, token, user);
	if (!from || asprintf(&to, "%s/%s", backend->dead_dir, user) < 0)
		return err_system(err, -ENOMEM, "process %u", token);
	if (rename(from, to) < 0 && errno != ENOENT)
		return err_system(err, -errno, "move %s to %s", from, to);
	volume_detach_all(backend->volumes, user);
	keeper_has_dead(backend);
	return store_remove_pea(backend->db, container, token, err);
}

/* What stays goes with the container. */
static void log_failure(const struct ended *ended, const struct err *err)
{
	LOG(LOG_WARN, "pea-not-removed", KV_STR("container", ended->container),
		KV_STR("error", err->msg));
}

/* Want of memory and a process that dies slowly may pass; a full disk is waited out by nobody. */
static bool may_pass(int r)
{
	return r == -ENOMEM || r == -EBUSY;
}

static void end_insistently(struct backend *backend, const struct ended *ended)
{
	struct err err;
	int r = end(backend, ended->container, ended->token, &err);

	for (int i = 1; i < END_TRIES && may_pass(r); i++) {
		poll(NULL, 0, END_PAUSE_MS);
		r = end(backend, ended->container, ended->token, &err);
	}
	if (r < 0)
		log_failure(ended, &err);
}

static void *bury(void *arg)
{
	struct backend *backend = arg;
	struct ended ended;

	while (TEMP_FAILURE_RETRY(read(backend->pea_fds[0], &ended, sizeof(ended))) ==
		sizeof(ended))
		end_insistently(backend, &ended);
	return NULL;
}

static bool give_to_bury(struct backend *backend, const struct ended *ended)
{
	return TEMP_FAILURE_RETRY(write(backend->pea_fds[1], ended, sizeof(*ended))) > 0;
}

static struct ended name_ended(const char *container, uint32_t token)
{
	struct ended ended = { .token = token };

	snprintf(ended.container, sizeof(ended.container), "%s", container);
	return ended;
}

/* When the pipe is full it goes with the container. */
void pea_ended(const struct process *process)
{
	struct ended ended = name_ended(process->container->id, process->token);

	give_to_bury(process->container->backend, &ended);
}

void pea_clean(struct backend *backend, const char *container, uint32_t token)
{
	struct ended ended = name_ended(container, token);
	struct err err;

	if (end(backend, container, token, &err) < 0 && !give_to_bury(backend, &ended))
		log_failure(&ended, &err);
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
			pea_clean(container->backend, container->id, tokens.all[i]);
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

/* Archives into containers and out of them. A helper process does it with the rights of one of the
 * container's users; here is decided who that is and where. */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/err.h"
#include "container.h"
#include "link.h"
#include "linux/caps.h"
#include "shim/protocol.h"
#include "users.h"
#include "volumes/volumes.h"

#define CAP(name) (UINT64_C(1) << CAP_##name)
#define FILE_CAPS (CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) | CAP(SETFCAP))

struct files_stream {
	LIST_ENTRY(files_stream) entry;
	struct container *container;
	struct volume_stream *stream;
	bool is_run; /* nobody may take the container for idle until it ends */
};

static const char front_in[] = "stream-in: error streaming in";
static const char front_out[] = "stream-out: error streaming out";

/* *ret_fd is -1 for a container in the host's user namespace. */
static int open_userns(struct container *container, int *ret_fd, struct err *err)
{
	AUTO(answer_done) struct answer answer = { 0 };
	struct msg_reply reply;
	int r;

	*ret_fd = -1;
	if (!*container->map.text)
		return 0;
	r = link_call(container->link,
		&(struct msg){
			.type = MSG_USERNS, .fds = { container->backend->proc_fd }, .n_fds = 1 },
		&answer, err);
	if (r < 0)
		return r;
	answer_body(&answer, &reply, sizeof(reply));
	if (reply.code < 0 || answer.n_fds != 1)
		return err_system(err, reply.code < 0 ? reply.code : -EPROTO,
			"the container's user namespace");
	*ret_fd = TAKE_FD(answer.fds[0]);
	return 0;
}

/* What of its capabilities concerns files. */
static uint64_t caps_of(const struct container *container, const struct user *user)
{
	if (user->uid != 0)
		return 0;
	return FILE_CAPS & (container->privileged ? caps_bounding() : CAPS_DEFAULT);
}

static char *absolute(const struct user *user, const char *path)
{
	char *whole;

	if (!path || !*path)
		path = ".";
	if (*path == '/')
		return strdup(path);
	return asprintf(&whole, "%s/%s", user->home, path) < 0 ? NULL : whole;
}

/* The last part, *ret_name NULL if there is none to speak of: "a/", ".", "/". */
static int last_part(const char *path, char **ret_name)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	*ret_name = NULL;
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	*ret_name = strdup(name);
	return *ret_name ? 0 : -ENOMEM;
}

static int start(struct container *container, const char *user_text, const char *path, bool is_in,
	struct volume_stream **ret_stream, struct err *err)
{
	struct volumes *volumes = container->backend->volumes;
	AUTO_FREE char *whole = NULL, *name = NULL;
	AUTO_FD int userns_fd = -1;
	struct user user;
	int r = user_lookup(
		container->root_fd, user_text ? user_text : "", container->map.n_ids, &user, err);

	if (r == 0)
		r = open_userns(container, &userns_fd, err);
	if (r < 0)
		return r;
	whole = absolute(&user, path);
	if (!whole || (!is_in && last_part(whole, &name) < 0))
		return err_system(err, -ENOMEM, "files");
	return (is_in ? tree_stream_in : tree_stream_out)(volumes,
		&(struct tree_view){ .root_fd = container->root_fd,
			.userns_fd = userns_fd,
			.uid = user.uid,
			.gid = user.gid,
			.groups = user.groups,
			.n_groups = user.n_groups,
			.caps = caps_of(container, &user),
			.path = whole,
			.name = name },
		ret_stream, err);
}

/* Like the start of a process: volumes of the container that were copied meanwhile are renewed first,
 * and none becomes a part of a copy while it is written to. */
static int begin(struct container *container, const char *user, const char *path, bool is_in,
	struct files_stream **ret_stream, struct err *err)
{
	struct files_stream *stream = calloc(1, sizeof(*stream));
	int r;

	if (!stream)
		return err_system(err, -ENOMEM, "files");
	*stream = (struct files_stream){ .container = container, .is_run = is_in };
	container_begin_run(container);
	r = container_check_alive(container, err);
	if (r == 0)
		r = container_refresh(container, err);
	if (r == 0)
		r = start(container, user, path, is_in, &stream->stream, err);
	if (r < 0 || !is_in)
		container_end_run(container);
	if (r < 0) {
		free(stream);
		return err_context(err, r, "%s", is_in ? front_in : front_out);
	}
	pthread_mutex_lock(&container->lock);
	LIST_INSERT_HEAD(&container->files, stream, entry);
	if (container->is_destroying)
		volume_stream_kill(stream->stream);
	pthread_mutex_unlock(&container->lock);
	*ret_stream = stream;
	return 0;
}

/* One that is in the list has not been waited for: its number is nobody else's. */
void container_cut_files(struct container *container)
{
	struct files_stream *stream;

	pthread_mutex_lock(&container->lock);
	LIST_FOREACH(stream, &container->files, entry)
	volume_stream_kill(stream->stream);
	pthread_mutex_unlock(&container->lock);
}

int files_in(struct container *container, const char *user, const char *destination,
	struct files_stream **ret_stream, struct err *err)
{
	return begin(container, user, destination, true, ret_stream, err);
}

int files_out(struct container *container, const char *user, const char *source,
	struct files_stream **ret_stream, struct err *err)
{
	return begin(container, user, source, false, ret_stream, err);
}

int files_fd(const struct files_stream *stream)
{
	return volume_stream_fd(stream->stream);
}

int files_end(struct files_stream *take_stream, bool kill_it, struct err *err)
{
	struct container *container = take_stream->container;
	bool is_in = take_stream->is_run;
	int r;

	pthread_mutex_lock(&container->lock);
	LIST_REMOVE(take_stream, entry);
	pthread_mutex_unlock(&container->lock);
	r = volume_stream_end(take_stream->stream, kill_it, err);
	if (is_in)
		container_end_run(container);
	free(take_stream);
	return r < 0 ? err_context(err, r, "%s", is_in ? front_in : front_out) : 0;
}

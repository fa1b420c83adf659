#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/parse.h"
#include "volumes/codec.h"
#include "volumes/volumes_internal.h"

#define PIPE_BYTES (1 << 20)
#define MAX_THREADS 16

bool volume_encoding_is_known(const char *encoding)
{
	return codec_by_name(encoding) >= 0;
}

struct volume_stream {
	struct volume *volume; /* NULL: of somebody else's tree */
	struct helper helper;
	int fd;
	bool is_writer;
};

static void let_go(struct volume_stream *stream)
{
	auto_fd(&stream->fd);
	if (stream->is_writer) {
		pthread_mutex_lock(&stream->volume->owner->lock);
		stream->volume->n_writers--;
		pthread_mutex_unlock(&stream->volume->owner->lock);
	}
	if (stream->volume)
		volume_put(stream->volume);
	free(stream);
}

static int open_stream(struct volumes *volumes, const char *handle,
	struct volume_stream **ret_stream, struct err *err)
{
	struct volume_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return err_system(err, -ENOMEM, "stream");
	stream->fd = -1;
	stream->volume = volume_get(volumes, handle, err);
	if (!stream->volume) {
		free(stream);
		return -ENOENT;
	}
	*ret_stream = stream;
	return 0;
}

/* False: somebody writes to what only one may write to. */
static bool try_claim(struct volume_stream *stream)
{
	struct volume *volume = stream->volume;

	pthread_mutex_lock(&volume->owner->lock);
	stream->is_writer = !volume->n_layers || !volume->n_writers;
	volume->n_writers += stream->is_writer;
	pthread_mutex_unlock(&volume->owner->lock);
	return stream->is_writer;
}

/* Two overlays must not share what they write to. What containers have mounted in which nothing runs
 * becomes a layer, as when it is copied: before something runs there again they get what the volume
 * is then. top_lock held. */
static int claim_top(struct volume_stream *stream, struct err *err)
{
	struct volume *volume = stream->volume;
	AUTO_STRV struct strv held = { 0 };
	int r;

	if (try_claim(stream))
		return volume_make_top(volume, err);
	if (!attach_hold(volume, &held))
		return err_set(err, ERR_BUSY, EBUSY,
			"%s: a process in a container, or another stream, may write to it",
			volume->handle);
	r = attach_set_stale(volume, err);
	if (r == 0)
		r = volume_leave_top(volume, err);
	if (r == 0 && !try_claim(stream))
		r = err_set(err, ERR_BUSY, EBUSY, "%s: is being attached", volume->handle);
	attach_release(volume->owner, &held);
	return r < 0 ? r : volume_make_top(volume, err);
}

/* What compresses may use every processor, as far as the helper's own limit allows. */
static int add_threads(struct strv *words)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return strv_addf(words, "threads=%ld", n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n);
}

static int add_words(const struct volume_stream *stream, const char *operation, const char *path,
	const char *encoding, struct strv *words)
{
	int r = strv_add(words, operation);

	if (r == 0)
		r = volume_tree_words(stream->volume, stream->is_writer, words);
	if (r == 0)
		r = strv_addf(words, "encoding=%s", encoding);
	if (r == 0 && !stream->is_writer)
		r = add_threads(words);
	return r < 0 ? r : strv_addf(words, "path=%s", path);
}

/* The helper is in its tree when this returns: from then on the top may be renamed. */
static int start(struct volumes *volumes, struct volume_stream *stream, bool is_in,
	const struct strv *words, const struct tree_view *view, struct err *err)
{
	struct helper_fds fds = { .stdin_fd = -1,
		.stdout_fd = -1,
		.dir_fd = view ? view->root_fd : volumes->host_fd,
		.userns_fd = view && view->userns_fd >= 0 ? view->userns_fd : 0 };
	AUTO_FD int theirs = -1;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_system(err, -errno, "stream");
	fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
	theirs = ends[is_in ? 0 : 1];
	stream->fd = ends[is_in ? 1 : 0];
	if (is_in)
		fcntl(stream->fd, F_SETFL, O_NONBLOCK);
	*(is_in ? &fds.stdin_fd : &fds.stdout_fd) = theirs;
	return helper_start_with(volumes, words, &fds, &stream->helper, err);
}

static int start_in_volume(
	struct volume_stream *stream, const char *path, const char *encoding, struct err *err)
{
	bool is_in = stream->is_writer;
	AUTO_STRV struct strv words = { 0 };

	if (add_words(stream, is_in ? "in" : "out", path, encoding, &words) < 0)
		return err_system(err, -ENOMEM, "stream");
	return start(stream->volume->owner, stream, is_in, &words, NULL, err);
}

static int begin(struct volumes *volumes, const char *handle, const char *path,
	const char *encoding, bool is_in, struct volume_stream **ret_stream, struct err *err)
{
	struct volume_stream *stream = NULL;
	int r = open_stream(volumes, handle, &stream, err);

	if (r < 0)
		return r;
	r = is_in ? volume_lock_top_to_write(stream->volume, err)
		  : volume_lock_top(stream->volume, err);
	if (r == 0) {
		r = is_in ? claim_top(stream, err) : 0;
		if (r == 0)
			r = start_in_volume(stream, path, encoding, err);
		pthread_mutex_unlock(&stream->volume->top_lock);
	}
	if (r < 0)
		let_go(stream);
	else
		*ret_stream = stream;
	return r;
}

int volume_stream_in(struct volumes *volumes, const char *handle, const char *path,
	const char *encoding, struct volume_stream **ret_stream, struct err *err)
{
	return begin(volumes, handle, path, encoding, true, ret_stream, err);
}

int volume_stream_out(struct volumes *volumes, const char *handle, const char *path,
	const char *encoding, struct volume_stream **ret_stream, struct err *err)
{
	return begin(volumes, handle, path, encoding, false, ret_stream, err);
}

/* ---- somebody else's files ------------------------------------------------------------------- */

static int add_ids(const struct tree_view *view, struct strv *words)
{
	AUTO_BUF struct buf text;

	buf_init(&text, 8192);
	buf_addf(&text, "view=%u:%u", view->uid, view->gid);
	for (size_t i = 0; i < view->n_groups; i++)
		buf_addf(&text, ":%u", view->groups[i]);
	return buf_failed(&text) ? buf_failed(&text) : strv_add(words, buf_str(&text));
}

static int add_view(const struct tree_view *view, const char *operation, struct strv *words)
{
	int r = strv_add(words, operation);

	if (r == 0)
		r = add_ids(view, words);
	if (r == 0)
		r = strv_addf(words, "caps=%llu", (unsigned long long)view->caps);
	if (r == 0 && view->userns_fd >= 0)
		r = strv_add(words, "userns");
	if (r == 0 && view->name)
		r = strv_addf(words, "name=%s", view->name);
	if (r == 0)
		r = strv_add(words, "encoding=raw");
	return r < 0 ? r : strv_addf(words, "path=%s", view->path);
}

static int begin_view(struct volumes *volumes, const struct tree_view *view, bool is_in,
	struct volume_stream **ret_stream, struct err *err)
{
	struct volume_stream *stream = calloc(1, sizeof(*stream));
	AUTO_STRV struct strv words = { 0 };
	int r;

	if (!stream || add_view(view, is_in ? "in" : "out", &words) < 0) {
		free(stream);
		return err_system(err, -ENOMEM, "stream");
	}
	stream->fd = -1;
	r = start(volumes, stream, is_in, &words, view, err);
	if (r < 0)
		let_go(stream);
	else
		*ret_stream = stream;
	return r;
}

int tree_stream_in(struct volumes *volumes, const struct tree_view *view,
	struct volume_stream **ret_stream, struct err *err)
{
	return begin_view(volumes, view, true, ret_stream, err);
}

int tree_stream_out(struct volumes *volumes, const struct tree_view *view,
	struct volume_stream **ret_stream, struct err *err)
{
	return begin_view(volumes, view, false, ret_stream, err);
}

/* ---- size ------------------------------------------------------------------------------------ */

/* "BYTES NAMES\n" */
static int read_size(int fd, uint64_t *ret_bytes, uint64_t *ret_names)
{
	char text[64], *names;
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(text) - 1 &&
		((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0 ||
			(n < 0 && errno == EINTR)))
		len += n > 0 ? n : 0;
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	names = strchr(text, ' ');
	if (!names)
		return -EPROTO;
	*names++ = '\0';
	if (parse_u64(text, UINT64_MAX, ret_bytes) < 0 ||
		parse_u64(names, UINT64_MAX, ret_names) < 0)
		return -EPROTO;
	return 0;
}

static int start_size(struct volume *volume, int stdout_fd, struct helper *helper, struct err *err)
{
	AUTO_STRV struct strv words = { 0 };
	int r = volume_lock_top(volume, err);

	if (r < 0)
		return r;
	if (strv_add(&words, "size") < 0 || volume_tree_words(volume, false, &words) < 0)
		r = err_system(err, -ENOMEM, "size");
	else
		r = helper_start(volume->owner, &words, -1, stdout_fd, helper, err);
	pthread_mutex_unlock(&volume->top_lock);
	return r;
}

int volume_size(struct volumes *volumes, const char *handle, uint64_t *ret_bytes,
	uint64_t *ret_names, struct err *err)
{
	struct volume *volume = volume_get(volumes, handle, err);
	AUTO_FD int fd = -1;
	struct helper helper;
	int ends[2], r, parsed;

	if (!volume)
		return -ENOENT;
	if (pipe2(ends, O_CLOEXEC) < 0) {
		volume_put(volume);
		return err_system(err, -errno, "size");
	}
	fd = ends[0];
	r = start_size(volume, ends[1], &helper, err);
	close(ends[1]);
	if (r == 0) {
		parsed = read_size(fd, ret_bytes, ret_names);
		r = helper_wait(&helper, err);
		if (r == 0 && parsed < 0)
			r = err_system(err, parsed, "size");
	}
	volume_put(volume);
	return r;
}

int volume_stream_fd(const struct volume_stream *stream)
{
	return stream->fd;
}

void volume_stream_kill(const struct volume_stream *stream)
{
	helper_kill(&stream->helper);
}

int volume_stream_end(struct volume_stream *take_stream, bool kill_it, struct err *err)
{
	int r;

	if (kill_it)
		helper_kill(&take_stream->helper);
	auto_fd(&take_stream->fd);
	r = helper_wait(&take_stream->helper, err);
	let_go(take_stream);
	return r;
}

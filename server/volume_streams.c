/* Archives into volumes and out of them. A helper process does the work (volumes/volumes.h); here
 * its pipe meets the connection. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/parse.h"
#include "server/pipes.h"
#include "server/request.h"
#include "server/router.h"
#include "server/volume_json.h"
#include "volumes/volumes.h"

static const char failed_in[] = "failed to stream in to volume";
static const char failed_out[] = "failed to stream out from volume";

static const char *path_of(const struct request *request)
{
	const char *path = request_query(request, "path");

	return path ? path : "";
}

/* ---- in -------------------------------------------------------------------------------------- */

struct upload_state {
	struct volume_stream *stream;
	uint64_t n_bytes, limit_bytes; /* on the wire; 0: as many as there are */
};

/* 0; -EINVAL: no number, or below 0. In units of 1 MiB. */
static int parse_limit(const char *text, uint64_t *ret_bytes)
{
	double mib = 0;

	if (!text || !*text)
		return 0;
	if (parse_double(text, &mib) < 0 || mib < 0)
		return -EINVAL;
	*ret_bytes = mib * 1048576 >= (double)UINT64_MAX ? 0 : (uint64_t)(mib * 1048576);
	return 0;
}

static void refuse_limit(struct request *request, const char *text)
{
	char message[128];

	snprintf(message, sizeof(message), "invalid limit %.100s", text);
	reply_failure(request, 400, message);
}

static int take_nothing(const struct volume_view *view, void *arg)
{
	(void)view;
	(void)arg;
	return 0;
}

/* 404 comes before what is wrong with the encoding. */
static int check_in(struct request *request, uint64_t *ret_limit)
{
	const char *limit = request_query(request, "limit");
	struct err err = { 0 };

	if (parse_limit(limit, ret_limit) < 0) {
		refuse_limit(request, limit);
		return -EINVAL;
	}
	if (volume_look(request_volumes(request), request_param(request, "handle"), take_nothing,
		    NULL, &err) < 0) {
		volume_fail(request, 404, failed_in, &err);
		return -ENOENT;
	}
	if (!volume_encoding_is_known(request_header(request, "Content-Encoding"))) {
		err_set(&err, ERR_BAD_REQUEST, EINVAL,
			"Content-Encoding: expected gzip, zstd, s2 or raw");
		volume_fail(request, 400, failed_in, &err);
		return -EINVAL;
	}
	return 0;
}

void handle_volume_stream_in_begin(struct request *request)
{
	struct upload_state *state;
	uint64_t limit = 0;
	struct err err;
	int r;

	if (check_in(request, &limit) < 0)
		return;
	state = calloc(1, sizeof(*state));
	if (!state) {
		reply_failure(request, 500, failed_in);
		return;
	}
	state->limit_bytes = limit;
	r = volume_stream_in(request_volumes(request), request_param(request, "handle"),
		path_of(request), request_header(request, "Content-Encoding"), &state->stream,
		&err);
	if (r < 0) {
		free(state);
		volume_fail(request, r == -ENOENT ? 404 : 500, failed_in, &err);
		return;
	}
	request->upload = state;
}

/* Ends the stream and frees the state. */
static int end_upload(struct request *request, bool kill_it, struct err *err)
{
	struct upload_state *state = request->upload;
	int r = volume_stream_end(state->stream, kill_it, err);

	free(state);
	request->upload = NULL;
	return r;
}

static void answer_in(struct request *request, int r, const struct err *err)
{
	if (r < 0)
		volume_fail(request, r == -EBADMSG ? 400 : 500, failed_in, err);
	else
		reply_nothing(request, 204);
}

static void refuse_size(struct request *request, uint64_t limit)
{
	char message[128];
	struct err ignored;

	end_upload(request, true, &ignored);
	if (limit < 1048576)
		snprintf(message, sizeof(message), "exceeded volume streaming limit of %lluB",
			(unsigned long long)limit);
	else
		snprintf(message, sizeof(message), "exceeded volume streaming limit of %lluMB",
			(unsigned long long)(limit >> 20));
	reply_failure(request, 403, message);
}

/* A helper that has gone before the end has something to say; one that has all it wants (behind the
 * archive's end mark) reads on. */
void handle_volume_stream_in_data(struct request *request, const char *data, size_t n_bytes)
{
	struct upload_state *state = request->upload;
	struct err err;
	int r;

	state->n_bytes += n_bytes;
	if (state->limit_bytes && state->n_bytes > state->limit_bytes) {
		refuse_size(request, state->limit_bytes);
		return;
	}
	r = pipe_write(request, volume_stream_fd(state->stream), data, n_bytes);
	if (r < 0)
		answer_in(request, end_upload(request, r == -ECANCELED, &err), &err);
}

void handle_volume_stream_in(struct request *request)
{
	struct err err;
	int r = end_upload(request, false, &err);

	answer_in(request, r, &err);
}

void handle_volume_stream_in_abort(struct request *request)
{
	struct err ignored;

	if (request->upload)
		end_upload(request, true, &ignored);
}

/* ---- out ------------------------------------------------------------------------------------- */

static void answer_out(struct request *request, int r, const struct err *err)
{
	if (r == -ENOENT)
		reply_failure(request, 404, "no such file or directory");
	else
		volume_fail(request, 500, failed_out, err);
}

static int end_out(void *stream, bool kill_it, struct err *err)
{
	return volume_stream_end(stream, kill_it, err);
}

static void pour_out(struct request *request, struct volume_stream *stream, const char *encoding)
{
	pipe_pour(request,
		&(struct pour){ .fd = volume_stream_fd(stream),
			.content_type = !strcmp(encoding, "gzip") ? "application/x-gzip"
								  : "application/octet-stream",
			.end = end_out,
			.refuse = answer_out,
			.stream = stream });
}

void handle_volume_stream_out(struct request *request)
{
	const char *encoding = request_header(request, "Accept-Encoding");
	struct volume_stream *stream;
	struct err err = { 0 };
	int r;

	r = volume_look(request_volumes(request), request_param(request, "handle"), take_nothing,
		NULL, &err);
	if (r == 0 && !volume_encoding_is_known(encoding)) {
		err_set(&err, ERR_BAD_REQUEST, EINVAL,
			"Accept-Encoding: expected gzip, zstd, s2 or raw");
		volume_fail(request, 400, failed_out, &err);
		return;
	}
	if (r == 0)
		r = volume_stream_out(request_volumes(request), request_param(request, "handle"),
			path_of(request), encoding, &stream, &err);
	if (r < 0)
		volume_fail(request, r == -ENOENT ? 404 : 500, failed_out, &err);
	else
		pour_out(request, stream, encoding);
}

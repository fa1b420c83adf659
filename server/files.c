/* Archives into containers and out of them. A helper process does the work (backend.h); here its pipe
 * meets the connection. */
#include <errno.h>
#include <stdlib.h>

#include "backend.h"
#include "base/err.h"
#include "server/pipes.h"
#include "server/request.h"
#include "server/router.h"

/* ---- in -------------------------------------------------------------------------------------- */

struct files_upload {
	struct container *container;
	struct files_stream *stream;
};

void handle_files_in_begin(struct request *request)
{
	struct container *container = request_container(request);
	struct files_upload *upload;
	struct err err;
	int r;

	if (!container)
		return;
	upload = calloc(1, sizeof(*upload));
	r = upload ? files_in(container, request_query(request, "user"),
			     request_query(request, "destination"), &upload->stream, &err)
		   : err_system(&err, -ENOMEM, "stream-in");
	if (r < 0) {
		free(upload);
		container_put(container);
		reply_error(request, &err);
		return;
	}
	upload->container = container;
	request->upload = upload;
}

static int end_upload(struct request *request, bool kill_it, struct err *err)
{
	struct files_upload *upload = request->upload;
	int r = files_end(upload->stream, kill_it, err);

	container_put(upload->container);
	free(upload);
	request->upload = NULL;
	return r;
}

/* A helper that has gone before the end has something to say. */
void handle_files_in_data(struct request *request, const char *data, size_t n_bytes)
{
	struct files_upload *upload = request->upload;
	int r = pipe_write(request, files_fd(upload->stream), data, n_bytes);
	struct err err = { 0 };

	if (r == 0)
		return;
	if (end_upload(request, r == -ECANCELED, &err) == 0)
		err_system(&err, r, "stream-in");
	reply_error(request, &err);
}

void handle_files_in(struct request *request)
{
	struct err err;

	if (end_upload(request, false, &err) < 0)
		reply_error(request, &err);
	else
		reply_empty(request);
}

void handle_files_in_abort(struct request *request)
{
	struct err ignored;

	if (request->upload)
		end_upload(request, true, &ignored);
}

/* ---- out ------------------------------------------------------------------------------------- */

static int end_out(void *stream, bool kill_it, struct err *err)
{
	return files_end(stream, kill_it, err);
}

static void refuse_out(struct request *request, int r, const struct err *err)
{
	struct err own;

	err_system(&own, r, "stream-out");
	reply_error(request, err->kind == ERR_NONE ? &own : err);
}

void handle_files_out(struct request *request)
{
	struct container *container = request_container(request);
	struct files_stream *stream;
	struct err err;

	if (!container)
		return;
	if (files_out(container, request_query(request, "user"), request_query(request, "source"),
		    &stream, &err) < 0)
		reply_error(request, &err);
	else
		pipe_pour(request,
			&(struct pour){ .fd = files_fd(stream),
				.content_type = "application/octet-stream",
				.end = end_out,
				.refuse = refuse_out,
				.stream = stream });
	container_put(container);
}

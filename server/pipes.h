/* pipes.h - between a connection and the pipe of a helper process, in the connection's own thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct err;
struct request;

/* All of data into a pipe that does not block. 0; -ECANCELED: the server is to stop; -EPIPE, ...: the
 * helper is gone. */
int pipe_write(const struct request *request, int fd, const char *data, size_t n_bytes);

/* What a helper writes is the answer, in chunks. refuse answers if it has failed before the first
 * byte; later a failure can only break the connection: an archive that is not whole never ends as if it
 * were. A client that has gone ends it. */
struct pour {
	int fd;
	const char *content_type;
	int (*end)(void *stream, bool kill_it, struct err *err); /* called once */
	void (*refuse)(struct request *request, int r, const struct err *err);
	void *stream;
};
void pipe_pour(struct request *request, const struct pour *pour);

#include "volumes/input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Fits into the second cache level beside what is made of it. */
#define READ_BYTES ((size_t)256 * 1024)

void input_init(struct input *in, int fd)
{
	*in = (struct input){ .fd = fd };
}

void input_done(struct input *in)
{
	free(in->space);
	*in = (struct input){ .fd = -1 };
}

static int make_room(struct input *in, size_t n_bytes)
{
	size_t size = n_bytes < READ_BYTES ? READ_BYTES : n_bytes;
	uint8_t *space = in->space;

	if (in->size < size)
		space = realloc(in->space, size);
	if (!space)
		return -ENOMEM;
	if (in->size < size)
		in->size = size;
	in->space = space;
	memmove(space, space + in->from, in->to - in->from);
	in->to -= in->from;
	in->from = 0;
	return 0;
}

static int read_some(struct input *in, size_t n_wanted)
{
	size_t n_room = in->size - in->to, n_most = n_wanted < READ_BYTES ? READ_BYTES : n_wanted;
	ssize_t n;

	do
		n = read(in->fd, in->space + in->to, n_room < n_most ? n_room : n_most);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	in->to += (size_t)n;
	in->at_end = n == 0;
	return 0;
}

ssize_t input_have(struct input *in, size_t n_bytes)
{
	int r = 0;

	if (in->from == in->to)
		in->from = in->to = 0;
	if (in->to - in->from < n_bytes && in->size - in->from < n_bytes)
		r = make_room(in, n_bytes);
	while (r == 0 && in->to - in->from < n_bytes && !in->at_end)
		r = read_some(in, n_bytes - (in->to - in->from));
	return r < 0 ? r : (ssize_t)(in->to - in->from);
}

const uint8_t *input_at(const struct input *in)
{
	return in->space + in->from;
}

void input_take(struct input *in, size_t n_bytes)
{
	in->from += n_bytes;
}

int input_skip(struct input *in, uint64_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = input_have(in, 1);

		if (n <= 0)
			return (int)n;
		if ((uint64_t)n > n_bytes)
			n = (ssize_t)n_bytes;
		input_take(in, (size_t)n);
		n_bytes -= (uint64_t)n;
	}
	return 1;
}

/* input.h - bytes of a descriptor, looked at before they are taken. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct input {
	int fd;
	bool at_end;
	uint8_t *space;
	size_t from, to, size;
};

/* fd stays the caller's. Takes no memory yet. */
void input_init(struct input *in, int fd);
void input_done(struct input *in);

/* Reads until n_bytes (at least 1) lie at input_at() in one piece, and returns how many do: more if
 * they came along, fewer only at the end of file. Memory grows to n_bytes: the caller bounds it.
 * -errno of read(2), -ENOMEM. */
ssize_t input_have(struct input *in, size_t n_bytes);

/* Valid until the next input_have or input_skip. */
const uint8_t *input_at(const struct input *in);

/* Takes n_bytes of those that input_have has counted. */
void input_take(struct input *in, size_t n_bytes);

/* Reads and forgets. 1; 0 if the file ends before that; -errno. */
int input_skip(struct input *in, uint64_t n_bytes);

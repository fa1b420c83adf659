/* program.h - a process spec and its user become one blob for init (struct program_wire). Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct process_spec;
struct strv;
struct user;
struct err;

struct program_input {
	const struct process_spec *spec;
	const struct strv *image_env, *container_env; /* image_env may be NULL */
	const struct user *user;
	uint64_t bounding, effective; /* capability masks for this user */
};

/* Environment, directory and PATH by the rules of garden.md 1.2. *ret_blob is the caller's. */
int program_build(
	const struct program_input *input, void **ret_blob, size_t *ret_bytes, struct err *err);

/* Each of the form NAME=value, none longer than execve(2) takes. */
int program_check_env(const struct strv *env, struct err *err);
/* The environment alone: NAME=value each once, in order. */
int program_environment(const struct program_input *input, struct strv *ret_env, struct err *err);

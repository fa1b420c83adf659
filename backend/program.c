#include "program.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/strv.h"
#include "shim/protocol.h"
#include "spec.h"
#include "users.h"

#define PROGRAM_CAP_BYTES (6u << 20)
#define STRING_CAP_BYTES 131071 /* MAX_ARG_STRLEN, execve(2) */
static const char root_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static const char user_path[] = "/usr/local/bin:/usr/bin:/bin";

static_assert(N_SPEC_RLIMITS == N_RLIMITS, "the spec counts limits as the protocol does");

/* ---- environment ----------------------------------------------------------------------------- */

static size_t name_length(const char *assignment)
{
	return strcspn(assignment, "=");
}

static char **find_name(const struct strv *env, const char *name, size_t len)
{
	for (size_t i = 0; i < env->n_items; i++)
		if (name_length(env->items[i]) == len && !memcmp(env->items[i], name, len))
			return &env->items[i];
	return NULL;
}

/* A later value takes the place of an earlier one. */
static int put(struct strv *env, const char *assignment)
{
	char **there = find_name(env, assignment, name_length(assignment));
	char *copy;

	if (!there)
		return strv_add(env, assignment);
	copy = strdup(assignment);
	if (!copy)
		return -ENOMEM;
	free(*there);
	*there = copy;
	return 0;
}

int program_check_env(const struct strv *env, struct err *err)
{
	for (size_t i = 0; i < env->n_items; i++) {
		if (!strchr(env->items[i], '=') || env->items[i][0] == '=')
			return err_set(err, ERR_INVALID, EINVAL,
				"env[%zu]: not of the form NAME=value", i);
		if (strlen(env->items[i]) > STRING_CAP_BYTES)
			return err_set(err, ERR_INVALID, E2BIG, "env[%zu]: longer than %d bytes", i,
				STRING_CAP_BYTES);
	}
	return 0;
}

static int put_all(struct strv *env, const struct strv *from, struct err *err)
{
	int r = from ? program_check_env(from, err) : 0;

	for (size_t i = 0; r == 0 && from && i < from->n_items; i++)
		if (put(env, from->items[i]) < 0)
			r = err_system(err, -ENOMEM, "env");
	return r;
}

static int put_default(struct strv *env, const char *name, const char *value)
{
	if (find_name(env, name, strlen(name)))
		return 0;
	return strv_addf(env, "%s=%s", name, value);
}

int program_environment(const struct program_input *input, struct strv *ret_env, struct err *err)
{
	const char *user = input->spec->user;
	int r = put_all(ret_env, input->image_env, err);

	if (r == 0)
		r = put_all(ret_env, input->container_env, err);
	if (r == 0)
		r = put_all(ret_env, &input->spec->env, err);
	if (r < 0)
		return r;
	if (put_default(ret_env, "PATH", input->user->uid == 0 ? root_path : user_path) < 0 ||
		put_default(ret_env, "USER", user && *user ? user : "root") < 0 ||
		put_default(ret_env, "HOME", input->user->home) < 0)
		return err_system(err, -ENOMEM, "env");
	return 0;
}

/* ---- the blob -------------------------------------------------------------------------------- */

static uint32_t add_text(struct buf *blob, const char *text)
{
	uint32_t at = blob->len;

	buf_add(blob, text, strlen(text) + 1);
	return at;
}

/* Reserves n + 1 zero slots; they are filled once the strings have their places. */
static uint32_t add_table(struct buf *blob, size_t n)
{
	static const uint64_t zero;
	uint32_t at = blob->len;

	for (size_t i = 0; i <= n; i++)
		buf_add(blob, &zero, sizeof(zero));
	return at;
}

static void fill_slot(struct buf *blob, uint32_t table, size_t i, const char *text)
{
	uint64_t at = add_text(blob, text);

	if (!buf_failed(blob))
		memcpy(blob->data + table + i * sizeof(at), &at, sizeof(at));
}

static const char *value_of(const struct strv *env, const char *name)
{
	char **there = find_name(env, name, strlen(name));

	return there ? *there + strlen(name) + 1 : "";
}

static void add_tables(struct buf *blob, struct program_wire *head,
	const struct program_input *input, const struct strv *env)
{
	const struct process_spec *spec = input->spec;
	const struct user *user = input->user;

	head->argv = add_table(blob, head->n_argv);
	head->envp = add_table(blob, head->n_envp);
	head->groups = blob->len;
	buf_add(blob, user->groups, user->n_groups * sizeof(user->groups[0]));
	fill_slot(blob, head->argv, 0, spec->path);
	for (size_t i = 0; i < spec->args.n_items; i++)
		fill_slot(blob, head->argv, i + 1, spec->args.items[i]);
	for (size_t i = 0; i < env->n_items; i++)
		fill_slot(blob, head->envp, i, env->items[i]);
	head->dir = add_text(blob, spec->dir && *spec->dir ? spec->dir : user->home);
	head->path = add_text(blob, value_of(env, "PATH"));
}

static int check_spec(const struct process_spec *spec, struct err *err)
{
	if (!spec->path || !*spec->path)
		return err_set(err, ERR_INVALID, EINVAL, "path: no program is named");
	if (spec->dir && strlen(spec->dir) >= 4096)
		return err_set(err, ERR_INVALID, ENAMETOOLONG, "dir: longer than 4095 bytes");
	for (size_t i = 0; i < spec->args.n_items; i++)
		if (strlen(spec->args.items[i]) > STRING_CAP_BYTES)
			return err_set(err, ERR_INVALID, E2BIG, "args[%zu]: longer than %d bytes",
				i, STRING_CAP_BYTES);
	return 0;
}

int program_build(
	const struct program_input *input, void **ret_blob, size_t *ret_bytes, struct err *err)
{
	const struct process_spec *spec = input->spec;
	struct program_wire head = { .uid = input->user->uid,
		.gid = input->user->gid,
		.n_groups = input->user->n_groups,
		.n_argv = spec->args.n_items + 1,
		.tty = spec->tty,
		.bounding = input->bounding,
		.effective = input->effective,
		.rlimit_set = spec->rlimit_set };
	AUTO_STRV struct strv env = { 0 };
	AUTO_BUF struct buf blob;
	int r = check_spec(spec, err);

	buf_init(&blob, PROGRAM_CAP_BYTES);
	if (r == 0)
		r = program_environment(input, &env, err);
	if (r < 0)
		return r;
	head.n_envp = env.n_items;
	memcpy(head.rlimits, spec->rlimits, sizeof(head.rlimits));
	buf_add(&blob, &head, sizeof(head));
	add_tables(&blob, &head, input, &env);
	if (buf_failed(&blob) == -ENOMEM)
		return err_system(err, -ENOMEM, "args and env");
	if (buf_failed(&blob))
		return err_set(err, ERR_INVALID, E2BIG, "args and env: together more than %u bytes",
			PROGRAM_CAP_BYTES);
	head.total_bytes = blob.len;
	memcpy(blob.data, &head, sizeof(head));
	*ret_bytes = blob.len;
	*ret_blob = buf_take(&blob);
	return 0;
}

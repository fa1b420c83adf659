#include "server/spec_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "base/auto.h"
#include "base/err.h"
#include "net_rule.h"
#include "server/json.h"
#include "server/limits_json.h"
#include "server/net_json.h"
#include "spec.h"

#define MAX_BINDS 1000
#define MAX_PROPERTIES 1000
#define KEY_BYTES 1024
#define VALUE_BYTES (1 << 20)
#define ENV_ITEMS 10000
#define MAX_PORTS 1000
#define PROCESS_ID_BYTES 255

/* ---- containers ------------------------------------------------------------------------------ */

/* rootfs and image.uri are one field under two names. */
static int parse_image(const json_t *json, struct container_spec *spec, struct err *err)
{
	AUTO_FREE char *uri = NULL;
	json_t *image;
	int r = json_string_field(json, "", "rootfs", &spec->rootfs, err);

	if (r == 0)
		r = json_object_field(json, "", "image", &image, err);
	if (r < 0 || !image)
		return r;
	r = json_string_field(image, "image", "uri", &uri, err);
	if (r < 0 || !uri || !*uri)
		return r;
	if (spec->rootfs && *spec->rootfs)
		return err_set(
			err, ERR_INVALID, EINVAL, "Cannot provide both Image.URI and RootFSPath");
	free(spec->rootfs);
	spec->rootfs = TAKE_PTR(uri);
	return 0;
}

static int parse_bind(const json_t *json, const char *where, void *item, struct err *err)
{
	struct bind_mount *bind = item;
	uint64_t mode = 0, origin = 0;
	int r;

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, EINVAL, "%s: expected an object", where);
	r = json_string_field(json, where, "src_path", &bind->src, err);
	if (r == 0)
		r = json_string_field(json, where, "dst_path", &bind->dst, err);
	if (r == 0)
		r = json_u64_field(json, where, "mode", 1, &mode, err);
	if (r == 0)
		r = json_u64_field(json, where, "origin", 1, &origin, err);
	if (r < 0)
		return r;
	if (!bind->src || !*bind->src || !bind->dst || !*bind->dst)
		return err_set(
			err, ERR_INVALID, EINVAL, "%s: src_path and dst_path are wanted", where);
	bind->read_write = mode == 1;
	bind->from_container = origin == 1;
	return 0;
}

static int parse_binds(
	const json_t *json, struct bind_mount **ret_binds, size_t *ret_n, struct err *err)
{
	static const struct json_list list = { "bind_mounts", MAX_BINDS, sizeof(struct bind_mount),
		parse_bind };
	void *binds = NULL;
	int r = json_list_field(json, "", &list, &binds, ret_n, err);

	*ret_binds = binds;
	return r;
}

static int parse_properties(const json_t *json, struct container_spec *spec, struct err *err)
{
	json_t *map, *value;
	const char *key;
	int r = json_object_field(json, "", "properties", &map, err);

	if (r < 0 || !map)
		return r;
	if (json_object_size(map) > MAX_PROPERTIES)
		return err_set(err, ERR_INVALID, E2BIG, "properties: more than %d", MAX_PROPERTIES);
	spec->properties = calloc(json_object_size(map) + 1, sizeof(*spec->properties));
	if (!spec->properties)
		return err_system(err, -ENOMEM, "properties");
	json_object_foreach(map, key, value)
	{
		struct property *property = &spec->properties[spec->n_properties++];

		if (!json_is_text(value) || strlen(key) > KEY_BYTES ||
			json_string_length(value) > VALUE_BYTES)
			return err_set(err, ERR_INVALID, EINVAL,
				"properties: expected strings, keys up to %d and values up to %d bytes",
				KEY_BYTES, VALUE_BYTES);
		property->key = strdup(key);
		property->value = strdup(json_string_value(value));
		if (!property->key || !property->value)
			return err_system(err, -ENOMEM, "properties");
	}
	return 0;
}

static int parse_grace(const json_t *json, struct container_spec *spec, struct err *err)
{
	json_t *value;
	int r = json_field(json, "", "grace_time", &value, err);

	if (r < 0 || !value)
		return r;
	r = json_i64_field(json, "", "grace_time", &spec->grace_ns, err);
	if (r == 0 && spec->grace_ns < 0)
		return err_set(err, ERR_INVALID, EINVAL, "grace_time: must not be negative");
	spec->has_grace =
		true; /* Go clients leave a zero out: then the default; written by hand it is "never" */
	return r;
}

static int check_env(const struct strv *env, struct err *err)
{
	return env->n_items > ENV_ITEMS
		? err_set(err, ERR_INVALID, E2BIG, "env: more than %d entries", ENV_ITEMS)
		: 0;
}

static int parse_net_in(const json_t *json, const char *where, void *item, struct err *err)
{
	return net_in_parse(json, where, item, err);
}

static int parse_network(const json_t *json, struct container_spec *spec, struct err *err)
{
	static const struct json_list ports = { "netin", MAX_PORTS, sizeof(struct net_port),
		parse_net_in };
	void *net_in = NULL;
	json_t *rules = NULL;
	int r = json_string_field(json, "", "network", &spec->network, err);

	if (r == 0)
		r = json_list_field(json, "", &ports, &net_in, &spec->n_net_in, err);
	spec->net_in = net_in;
	if (r == 0)
		r = json_array_field(json, "", "netout_rules", &rules, err);
	if (r < 0 || !rules)
		return r;
	return net_out_parse(rules, "netout_rules", &spec->net_out, &spec->n_net_out, err);
}

int container_spec_parse(const json_t *json, struct container_spec *ret_spec, struct err *err)
{
	int r = json_string_field(json, "", "handle", &ret_spec->handle, err);

	if (r == 0 && ret_spec->handle && !*ret_spec->handle) {
		free(ret_spec->handle);
		ret_spec->handle = NULL;
	}
	if (r == 0)
		r = parse_grace(json, ret_spec, err);
	if (r == 0)
		r = parse_image(json, ret_spec, err);
	if (r == 0)
		r = parse_network(json, ret_spec, err);
	if (r == 0)
		r = parse_binds(json, &ret_spec->binds, &ret_spec->n_binds, err);
	if (r == 0)
		r = parse_properties(json, ret_spec, err);
	if (r == 0)
		r = json_strv_field(json, "", "env", &ret_spec->env, err);
	if (r == 0)
		r = check_env(&ret_spec->env, err);
	if (r == 0)
		r = json_bool_field(json, "", "privileged", &ret_spec->privileged, err);
	if (r == 0)
		r = limits_parse(json, &ret_spec->limits, err);
	return r;
}

/* ---- processes ------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int resource;
} rlimit_names[] = { { "as", RLIMIT_AS }, { "core", RLIMIT_CORE }, { "cpu", RLIMIT_CPU },
	{ "data", RLIMIT_DATA }, { "fsize", RLIMIT_FSIZE }, { "locks", RLIMIT_LOCKS },
	{ "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
	{ "nofile", RLIMIT_NOFILE }, { "nproc", RLIMIT_NPROC }, { "rss", RLIMIT_RSS },
	{ "rtprio", RLIMIT_RTPRIO }, { "sigpending", RLIMIT_SIGPENDING },
	{ "stack", RLIMIT_STACK } };

static int parse_rlimits(const json_t *json, struct process_spec *spec, struct err *err)
{
	json_t *map, *value;
	int r = json_object_field(json, "", "rlimits", &map, err);

	for (size_t i = 0; r == 0 && map && i < N_ELEMENTS(rlimit_names); i++) {
		r = json_field(map, "rlimits", rlimit_names[i].name, &value, err);
		if (r < 0 || !value)
			continue;
		r = json_u64_field(map, "rlimits", rlimit_names[i].name, UINT64_MAX,
			&spec->rlimits[rlimit_names[i].resource], err);
		spec->rlimit_set |= 1u << rlimit_names[i].resource;
	}
	return r;
}

static int parse_tty(const json_t *json, struct process_spec *spec, struct err *err)
{
	uint64_t columns = 0, rows = 0;
	json_t *tty, *size;
	int r = json_object_field(json, "", "tty", &tty, err);

	if (r < 0 || !tty)
		return r;
	spec->tty = true;
	r = json_object_field(tty, "tty", "window_size", &size, err);
	if (r < 0 || !size)
		return r;
	r = json_u64_field(size, "tty.window_size", "columns", UINT16_MAX, &columns, err);
	if (r == 0)
		r = json_u64_field(size, "tty.window_size", "rows", UINT16_MAX, &rows, err);
	spec->columns = (uint32_t)columns;
	spec->rows = (uint32_t)rows;
	return r;
}

/* Present, and be it empty, they take the place of the container's. */
static int parse_own_limits(const json_t *json, struct process_spec *spec, struct err *err)
{
	json_t *limits;
	int r = json_object_field(json, "", "limits", &limits, err);

	if (r < 0 || !limits)
		return r;
	if (!spec->image)
		return err_set(err, ERR_UNSUPPORTED, EOPNOTSUPP,
			"limits: only a process with an image of its own can have its own");
	spec->has_limits = true;
	return limits_parse_cpu_and_memory(limits, "limits", &spec->limits, err);
}

/* A process with an image of its own. */
static int parse_pea(const json_t *json, struct process_spec *spec, struct err *err)
{
	json_t *image;
	int r = json_object_field(json, "", "image", &image, err);

	if (r == 0 && image)
		r = json_string_field(image, "image", "uri", &spec->image, err);
	if (r == 0 && spec->image && !*spec->image) {
		free(spec->image);
		spec->image = NULL;
	}
	if (r == 0)
		r = parse_binds(json, &spec->binds, &spec->n_binds, err);
	if (r == 0 && spec->n_binds && !spec->image)
		return err_set(err, ERR_INVALID, EINVAL,
			"Running a process with bind mounts and no image provided is not allowed");
	return r < 0 ? r : parse_own_limits(json, spec, err);
}

/* Ids go into URLs as they are. */
static int check_id(const char *id, struct err *err)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.~:@+-";

	if (!id || !*id)
		return 0;
	if (strlen(id) > PROCESS_ID_BYTES || strspn(id, allowed) != strlen(id) ||
		!strcmp(id, ".") || !strcmp(id, ".."))
		return err_set(err, ERR_INVALID, EINVAL, "id '%.64s': must be up to %d of %s", id,
			PROCESS_ID_BYTES, "[A-Za-z0-9_.~:@+-]");
	return 0;
}

int process_spec_parse(const json_t *json, struct process_spec *ret_spec, struct err *err)
{
	int r = json_string_field(json, "", "id", &ret_spec->id, err);

	if (r == 0)
		r = check_id(ret_spec->id, err);
	if (r == 0)
		r = json_string_field(json, "", "path", &ret_spec->path, err);
	if (r == 0)
		r = json_strv_field(json, "", "args", &ret_spec->args, err);
	if (r == 0)
		r = json_strv_field(json, "", "env", &ret_spec->env, err);
	if (r == 0)
		r = check_env(&ret_spec->env, err);
	if (r == 0)
		r = json_string_field(json, "", "dir", &ret_spec->dir, err);
	if (r == 0)
		r = json_string_field(json, "", "user", &ret_spec->user, err);
	if (r == 0)
		r = parse_rlimits(json, ret_spec, err);
	if (r == 0)
		r = parse_tty(json, ret_spec, err);
	return r < 0 ? r : parse_pea(json, ret_spec, err);
}

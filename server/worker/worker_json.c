#include "server/worker/worker_json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/strv.h"
#include "linux/sys.h"
#include "server/json.h"
#include "server/worker/config.h"

#define METADATA "resource_metadata.json"
#define METADATA_BYTES 65536

/* ---- resource types -------------------------------------------------------------------------- */

static int read_metadata(const char *path, json_t **ret_metadata, struct err *err)
{
	AUTO_FREE char *text = malloc(METADATA_BYTES);
	AUTO_JSON json_t *metadata = NULL;
	ssize_t n = text ? sys_read_small(AT_FDCWD, path, 0, text, METADATA_BYTES) : -ENOMEM;
	int r;

	if (n < 0)
		return err_system(err, (int)n, "%.190s", path);
	r = json_parse(text, (size_t)n, &metadata, err);
	if (r < 0)
		return err_context(err, r, "%.190s", path);
	if (!json_is_object(metadata))
		return err_set(err, ERR_INVALID, EINVAL, "%.190s: not an object", path);
	*ret_metadata = TAKE_PTR(metadata);
	return 0;
}

/* An archive or a directory, as web will ask for it in an import. */
static int find_image(const char *dir, char **ret_path, struct err *err)
{
	AUTO_FREE char *path = NULL, *tree = NULL;
	struct stat st;

	if (asprintf(&path, "%s/rootfs.tgz", dir) < 0 || asprintf(&tree, "%s/rootfs", dir) < 0)
		return err_system(err, -ENOMEM, "resource types");
	if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
		*ret_path = TAKE_PTR(path);
	else if (stat(tree, &st) == 0 && S_ISDIR(st.st_mode))
		*ret_path = TAKE_PTR(tree);
	else
		return err_set(err, ERR_INVALID, ENOENT,
			"%.170s: has neither a file rootfs.tgz nor a directory rootfs", dir);
	return 0;
}

/* What is in metadata, in the registration's order. */
static int fill_type(json_t *type, const json_t *metadata, struct err *err)
{
	AUTO_FREE char *name = NULL, *version = NULL;
	bool is_privileged = false, has_unique_history = false;
	int r = json_string_field(metadata, "", "type", &name, err);

	if (r == 0 && (!name || !*name))
		r = err_set(err, ERR_INVALID, EINVAL, "type: missing");
	if (r == 0)
		r = json_string_field(metadata, "", "version", &version, err);
	if (r == 0)
		r = json_bool_field(metadata, "", "privileged", &is_privileged, err);
	if (r == 0)
		r = json_bool_field(
			metadata, "", "unique_version_history", &has_unique_history, err);
	if (r < 0)
		return r;
	if (json_object_set_new(type, "type", json_string(name)) < 0 ||
		json_object_set_new(type, "version", json_string(version ? version : "")) < 0 ||
		json_object_set_new(type, "privileged", json_boolean(is_privileged)) < 0 ||
		json_object_set_new(
			type, "unique_version_history", json_boolean(has_unique_history)) < 0)
		return err_system(err, -ENOMEM, "resource types");
	return 0;
}

static int check_unique(const json_t *types, const json_t *type, const char *path, struct err *err)
{
	const char *name = json_string_value(json_object_get(type, "type"));
	const json_t *other;
	size_t i;

	json_array_foreach(
		types, i, other) if (!strcmp(json_string_value(json_object_get(other, "type")),
					     name)) return err_set(err, ERR_INVALID, EEXIST,
		"%.150s: type: '%.40s' is that of %.40s too", path, name,
		json_string_value(json_object_get(other, "image")));
	return 0;
}

static int add_type(json_t *types, const char *dir, struct err *err)
{
	AUTO_FREE char *path = NULL, *image = NULL;
	AUTO_JSON json_t *metadata = NULL, *type = json_object();
	int r;

	if (!type || asprintf(&path, "%s/%s", dir, METADATA) < 0)
		return err_system(err, -ENOMEM, "resource types");
	r = read_metadata(path, &metadata, err);
	if (r < 0)
		return r;
	r = fill_type(type, metadata, err);
	if (r < 0)
		return err_context(err, r, "%.190s", path);
	r = find_image(dir, &image, err);
	if (r == 0)
		r = check_unique(types, type, path, err);
	if (r < 0)
		return r;
	if (json_object_set_new(type, "image", json_string(image)) < 0)
		return err_set(err, ERR_INVALID, EILSEQ, "%.190s: the path is not UTF-8", image);
	return json_array_append(types, type) < 0 ? err_system(err, -ENOMEM, "resource types") : 0;
}

static int is_type(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Whatever it lies in: files beside the directories are no types. */
static int add_entry(json_t *types, const char *parent, const char *name, struct err *err)
{
	AUTO_FREE char *dir = NULL;
	struct stat st;

	if (asprintf(&dir, "%s/%s", parent, name) < 0)
		return err_system(err, -ENOMEM, "resource types");
	if (stat(dir, &st) < 0)
		return err_system(err, -errno, "%.190s", dir);
	return S_ISDIR(st.st_mode) ? add_type(types, dir, err) : 0;
}

static int find_types(const char *parent, json_t *types, struct err *err)
{
	struct dirent **entries = NULL;
	int n = *parent ? scandir(parent, &entries, is_type, alphasort) : 0, r = 0;

	if (n < 0)
		return err_system(err, -errno, "--resource-types %.190s", parent);
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add_entry(types, parent, entries[i]->d_name, err);
		free(entries[i]);
	}
	free(entries);
	return r;
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* As web will name it in an import, where paths are absolute. */
static int absolute(const char *dir, char **ret_path, struct err *err)
{
	char here[PATH_MAX];

	if (!*dir || *dir == '/') {
		*ret_path = strdup(dir);
		return *ret_path ? 0 : err_system(err, -ENOMEM, "worker");
	}
	if (!getcwd(here, sizeof(here)))
		return err_system(err, -errno, "current directory");
	return asprintf(ret_path, "%s/%s", here, dir) < 0 ? err_system(err, -ENOMEM, "worker") : 0;
}

static int check_certs(const char *dir, struct err *err)
{
	AUTO_FD int fd = *dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return *dir && fd < 0 ? err_system(err, -errno, "--certs-dir %.190s", dir) : 0;
}

static json_t *tags_of(const struct strv *tags)
{
	json_t *list = json_array();

	for (size_t i = 0; list && tags && i < tags->n_items; i++)
		if (json_array_append_new(list, json_string(tags->items[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* Strings that jansson would refuse, by the option that has them. */
static int check_texts(const struct worker_config *config, const char *name, struct err *err)
{
	const struct {
		const char *option, *text;
	} texts[] = { { "--name", name }, { "--team", config->team },
		{ "--http-proxy", config->http_proxy }, { "--https-proxy", config->https_proxy },
		{ "--no-proxy", config->no_proxy }, { "--certs-dir", config->certs_dir } };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++)
		if (!utf8_is_valid(texts[i].text))
			return err_set(err, ERR_INVALID, EILSEQ, "%s: not UTF-8", texts[i].option);
	for (size_t i = 0; config->tags && i < config->tags->n_items; i++)
		if (!utf8_is_valid(config->tags->items[i]))
			return err_set(err, ERR_INVALID, EILSEQ, "--tag: not UTF-8");
	return 0;
}

static int name_of(
	const struct worker_config *config, char name[HOST_NAME_MAX + 1], struct err *err)
{
	size_t len = strlen(config->name);

	if (len > HOST_NAME_MAX)
		return err_set(
			err, ERR_INVALID, E2BIG, "--name: longer than %d bytes", HOST_NAME_MAX);
	memcpy(name, config->name, len + 1);
	if (!len && gethostname(name, HOST_NAME_MAX + 1) < 0)
		return err_system(err, -errno, "name of this host");
	return 0;
}

/* With addresses and counts that the gateway fills in, as Concourse's worker sends it. */
static char *write_document(
	const struct worker_config *config, const char *name, const char *certs, json_t *types)
{
	AUTO_JSON json_t *document = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:O, s:s, s:o, s:s, s:s, s:s, s:I, s:b, s:s}",
		"addr", "", "baggageclaim_url", "", "http_proxy_url", config->http_proxy,
		"https_proxy_url", config->https_proxy, "no_proxy", config->no_proxy,
		"active_containers", 0, "active_volumes", 0, "active_tasks", 0, "max_active_tasks",
		(json_int_t)config->max_active_tasks, "resource_types", types, "platform", "linux",
		"tags", tags_of(config->tags), "team", config->team, "name", name, "version",
		config->version, "start_time", (json_int_t)config->start_time_s, "ephemeral",
		config->is_ephemeral, "state", "");
	AUTO_FREE char *text = NULL;
	char *line;

	if (!document ||
		(*certs && json_object_set_new(document, "certs_path", json_string(certs)) < 0))
		return NULL;
	text = json_dumps(document, JSON_COMPACT);
	return text && asprintf(&line, "%s\n", text) >= 0 ? line : NULL;
}

int worker_json(const struct worker_config *config, char **ret_json, struct err *err)
{
	AUTO_FREE char *certs = NULL, *types_dir = NULL;
	AUTO_JSON json_t *types = json_array();
	char name[HOST_NAME_MAX + 1];
	int r = types ? name_of(config, name, err) : err_system(err, -ENOMEM, "worker");

	if (r == 0)
		r = check_texts(config, name, err);
	if (r == 0)
		r = check_certs(config->certs_dir, err);
	if (r == 0)
		r = absolute(config->certs_dir, &certs, err);
	if (r == 0)
		r = absolute(config->resource_types_dir, &types_dir, err);
	if (r == 0)
		r = find_types(types_dir, types, err);
	if (r < 0)
		return r;
	*ret_json = write_document(config, name, certs, types);
	return *ret_json ? 0 : err_system(err, -ENOMEM, "worker");
}

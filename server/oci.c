#include "server/oci.h"

#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/sys.h"
#include "server/json.h"

#define MAX_NESTED 3 /* indexes in indexes */
#define REF_NAME "org.opencontainers.image.ref.name"

/* ---- documents ------------------------------------------------------------------------------- */

static int parse(const char *what, const char *text, size_t n_bytes, json_t **ret, struct err *err)
{
	int r = json_parse_first(text, n_bytes, ret, err);

	if (r == 0 && !json_is_object(*ret))
		r = err_set(err, ERR_INVALID, EINVAL, "expected an object");
	if (r < 0 && err)
		err->kind = ERR_INVALID;
	return r < 0 ? err_context(err, r, "%s", what) : 0;
}

/* A descriptor's digest and size. */
static int read_blob(
	const json_t *json, const char *where, struct layout_blob *ret_blob, struct err *err)
{
	AUTO_FREE char *digest = NULL;
	int r = json_string_field(json, where, "digest", &digest, err);

	if (r == 0)
		r = json_u64_field(json, where, "size", INT64_MAX, &ret_blob->n_bytes, err);
	if (r < 0)
		return r;
	if (!digest || layout_parse_digest(digest, ret_blob->hex) < 0)
		return err_set(err, ERR_INVALID, EINVAL,
			"%s.digest: expected sha256: and 64 hex digits", where);
	return 0;
}

static int load(int dir_fd, const struct layout_blob *blob, json_t **ret, struct err *err)
{
	AUTO_FREE char *text = NULL;
	AUTO_FD int fd = -1;
	ssize_t n;

	if (blob->n_bytes > JSON_BLOB_BYTES)
		return err_set(err, ERR_INVALID, EFBIG, "sha256:%s: more than %u bytes of JSON",
			blob->hex, JSON_BLOB_BYTES);
	fd = layout_open_blob(dir_fd, blob, err);
	if (fd < 0)
		return fd;
	text = malloc(blob->n_bytes + 1);
	n = text ? pread(fd, text, blob->n_bytes, 0) : -1;
	if (n < 0 || (size_t)n != blob->n_bytes)
		return err_system(err, text ? -EIO : -ENOMEM, "sha256:%s", blob->hex);
	return parse(blob->hex, text, n, ret, err);
}

/* ---- which image ------------------------------------------------------------------------------ */

static bool text_is(const json_t *object, const char *name, const char *text)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value && !strcmp(value, text);
}

/* As the image specification calls this machine. */
#if defined(__x86_64__)
static const char own_architecture[] = "amd64";
#elif defined(__aarch64__)
static const char own_architecture[] = "arm64";
#endif

/* One that says nothing of platforms is for all. */
static bool is_for_us(const json_t *descriptor)
{
	const json_t *platform = json_object_get(descriptor, "platform");

	return !platform ||
		(text_is(platform, "os", "linux") &&
			text_is(platform, "architecture", own_architecture));
}

static bool has_tag(const json_t *descriptor, const char *tag)
{
	return !tag || text_is(json_object_get(descriptor, "annotations"), REF_NAME, tag);
}

static int choose(const json_t *index, const char *tag, const json_t **ret, struct err *err)
{
	const json_t *item, *found = NULL;
	size_t i, n_found = 0;
	json_t *list;
	int r = json_array_field(index, "", "manifests", &list, err);

	if (r < 0)
		return r;
	json_array_foreach(list, i, item)
	{
		if (!json_is_object(item) || !has_tag(item, tag) || !is_for_us(item))
			continue;
		found = item;
		n_found++;
	}
	if (n_found == 0)
		return err_set(err, ERR_NOT_FOUND, ENOENT, "no image%s%.100s for linux/%s in it",
			tag ? " with the tag " : "", tag ? tag : "", own_architecture);
	if (n_found > 1)
		return err_set(err, ERR_INVALID, EINVAL,
			"%zu images in it: the URI must name a tag", n_found);
	*ret = found;
	return 0;
}

static bool is_index(const json_t *document)
{
	return json_object_get(document, "manifests") != NULL;
}

/* ---- what it is made of ----------------------------------------------------------------------- */

static int read_layers(const json_t *manifest, struct layout *layout, struct err *err)
{
	const json_t *item;
	json_t *list;
	size_t i;
	int r = json_array_field(manifest, "", "layers", &list, err);

	if (r == 0 && !list)
		r = err_set(err, ERR_INVALID, EINVAL, "layers: missing, this is no image manifest");
	if (r < 0)
		return r;
	if (json_array_size(list) > LAYOUT_MAX_LAYERS)
		return err_set(err, ERR_INVALID, E2BIG, "layers: more than %d", LAYOUT_MAX_LAYERS);
	json_array_foreach(list, i, item)
	{
		char where[32];

		snprintf(where, sizeof(where), "layers[%zu]", i);
		r = json_is_object(item)
			? read_blob(item, where, &layout->layers[layout->n_layers++], err)
			: err_set(err, ERR_INVALID, EINVAL, "%s: expected an object", where);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_config(int dir_fd, const json_t *manifest, struct layout *layout, struct err *err)
{
	AUTO_JSON json_t *document = NULL;
	struct layout_blob blob = { 0 };
	json_t *config;
	int r = json_object_field(manifest, "", "config", &config, err);

	if (r < 0 || !config)
		return r;
	r = read_blob(config, "config", &blob, err);
	if (r == 0)
		r = load(dir_fd, &blob, &document, err);
	if (r == 0)
		r = json_object_field(document, "", "config", &config, err);
	return r < 0 || !config ? r : json_strv_field(config, "config", "Env", &layout->env, err);
}

/* Index, perhaps another index, manifest. */
static int find_manifest(int dir_fd, json_t *take_index, const char *tag, struct layout *layout,
	json_t **ret, struct err *err)
{
	AUTO_JSON json_t *document = take_index;
	struct layout_blob blob = { 0 };
	int r = 0;

	for (int depth = 0; r == 0 && is_index(document); depth++) {
		const json_t *chosen = NULL;
		json_t *next = NULL;

		if (depth == MAX_NESTED)
			return err_set(err, ERR_INVALID, ELOOP, "indexes in indexes in indexes");
		r = choose(document, depth ? NULL : tag, &chosen, err);
		if (r == 0)
			r = read_blob(chosen, "manifests", &blob, err);
		if (r == 0)
			r = load(dir_fd, &blob, &next, err);
		json_decref(document);
		document = next;
	}
	if (r < 0)
		return r;
	memcpy(layout->manifest, blob.hex, sizeof(layout->manifest));
	*ret = TAKE_PTR(document);
	return 0;
}

static int read_index(int dir_fd, json_t **ret, struct err *err)
{
	AUTO_FREE char *text = malloc(JSON_BLOB_BYTES);
	ssize_t n = text ? sys_read_small(dir_fd, "index.json",
				   RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, text, JSON_BLOB_BYTES)
			 : -ENOMEM;

	return n < 0 ? err_system(err, (int)n, "index.json")
		     : parse("index.json", text, n, ret, err);
}

int oci_read(int dir_fd, const char *tag, struct layout *ret_layout, struct err *err)
{
	AUTO_JSON json_t *index = NULL;
	AUTO_JSON json_t *manifest = NULL;
	int r = read_index(dir_fd, &index, err);

	if (r == 0 && !is_index(index))
		r = err_set(err, ERR_INVALID, EINVAL, "index.json: no manifests in it");
	if (r == 0)
		r = find_manifest(dir_fd, TAKE_PTR(index), tag, ret_layout, &manifest, err);
	if (r == 0)
		r = read_layers(manifest, ret_layout, err);
	return r < 0 ? r : read_config(dir_fd, manifest, ret_layout, err);
}

#include "unit.h"

#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "server/json.h"
#include "server/worker/config.h"
#include "server/worker/worker_json.h"

static void make_dir(void **state, const char *name)
{
	assert_int_equal(mkdir(unit_path(state, name), 0755), 0);
}

static void make_file(void **state, const char *name, const char *text)
{
	FILE *file = fopen(unit_path(state, name), "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* Two types, one with an archive, one with a directory, and a file that is none. */
static void make_types(void **state)
{
	make_dir(state, "types");
	make_dir(state, "types/git");
	make_file(state, "types/git/resource_metadata.json",
		"{\"type\":\"git\",\"version\":\"1.2.3\",\"privileged\":true,\"unique_version_history\":true,"
		"\"more\":[1]}\n");
	make_file(state, "types/git/rootfs.tgz", "");
	make_dir(state, "types/mock");
	make_file(state, "types/mock/resource_metadata.json", "{\"type\":\"mock\"}");
	make_dir(state, "types/mock/rootfs");
	make_file(state, "types/README", "not a type");
}

static struct worker_config plain(void)
{
	return (struct worker_config){ .name = "w1",
		.team = "",
		.version = "3.0",
		.resource_types_dir = "",
		.certs_dir = "",
		.http_proxy = "",
		.https_proxy = "",
		.no_proxy = "" };
}

static json_t *document_of(const struct worker_config *config)
{
	AUTO_FREE char *text = NULL;
	struct err err = { 0 };
	json_t *document;

	if (worker_json(config, &text, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(text[strlen(text) - 1], '\n');
	document = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(document);
	return document;
}

static const char *text_of(const json_t *document, const char *key)
{
	return json_string_value(json_object_get(document, key));
}

static void a_plain_worker_has_every_field_that_web_reads(void **state UNUSED)
{
	struct worker_config config = plain();
	AUTO_FREE char *text = NULL;
	struct err err = { 0 };

	assert_int_equal(worker_json(&config, &text, &err), 0);
	assert_string_equal(text,
		"{\"addr\":\"\",\"baggageclaim_url\":\"\",\"http_proxy_url\":\"\",\"https_proxy_url\":\"\",\"no_proxy\":"
		"\"\",\"active_containers\":0,\"active_volumes\":0,\"active_tasks\":0,\"max_active_tasks\":0,"
		"\"resource_types\":[],\"platform\":\"linux\",\"tags\":[],\"team\":\"\",\"name\":\"w1\",\"version\":"
		"\"3.0\",\"start_time\":0,\"ephemeral\":false,\"state\":\"\"}\n");
}

static void what_is_configured_is_in_it(void **state)
{
	struct strv tags = { 0 };
	struct worker_config config = plain();
	AUTO_JSON json_t *document = NULL;

	assert_int_equal(strv_add(&tags, "big") + strv_add(&tags, "gpu"), 0);
	config.team = "main";
	config.tags = &tags;
	config.certs_dir = *state;
	config.http_proxy = "http://proxy:3128";
	config.no_proxy = "a,b";
	config.max_active_tasks = 4;
	config.start_time_s = 1786000000;
	config.is_ephemeral = true;
	document = document_of(&config);
	assert_string_equal(text_of(document, "team"), "main");
	assert_string_equal(
		json_string_value(json_array_get(json_object_get(document, "tags"), 1)), "gpu");
	assert_string_equal(text_of(document, "certs_path"), *state);
	assert_string_equal(text_of(document, "http_proxy_url"), "http://proxy:3128");
	assert_string_equal(text_of(document, "no_proxy"), "a,b");
	assert_int_equal(json_integer_value(json_object_get(document, "max_active_tasks")), 4);
	assert_int_equal(json_integer_value(json_object_get(document, "start_time")), 1786000000);
	assert_true(json_is_true(json_object_get(document, "ephemeral")));
	strv_done(&tags);
}

static void a_worker_without_a_name_has_the_host_s(void **state UNUSED)
{
	struct worker_config config = plain();
	char name[HOST_NAME_MAX + 1];
	AUTO_JSON json_t *document = NULL;

	config.name = "";
	document = document_of(&config);
	assert_int_equal(gethostname(name, sizeof(name)), 0);
	assert_string_equal(text_of(document, "name"), name);
}

static void types_are_read_in_the_order_of_their_directories(void **state)
{
	struct worker_config config = plain();
	char dir[PATH_MAX];
	AUTO_JSON json_t *document = NULL;
	AUTO_FREE char *got = NULL, *wanted = NULL;

	make_types(state);
	snprintf(dir, sizeof(dir), "%s", unit_path(state, "types"));
	config.resource_types_dir = dir;
	document = document_of(&config);
	got = json_dumps(json_object_get(document, "resource_types"), JSON_COMPACT);
	assert_true(asprintf(&wanted,
			    "[{\"type\":\"git\",\"version\":\"1.2.3\",\"privileged\":true,"
			    "\"unique_version_history\":true,\"image\":\"%s/git/rootfs.tgz\"},"
			    "{\"type\":\"mock\",\"version\":\"\",\"privileged\":false,"
			    "\"unique_version_history\":false,\"image\":\"%s/mock/rootfs\"}]",
			    dir, dir) > 0);
	assert_string_equal(got, wanted);
}

static void paths_are_made_absolute(void **state UNUSED)
{
	struct worker_config config = plain();
	AUTO_JSON json_t *document = NULL;
	char here[PATH_MAX], wanted[PATH_MAX + 8];

	config.certs_dir = "tests";
	document = document_of(&config);
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(wanted, sizeof(wanted), "%s/tests", here);
	assert_string_equal(text_of(document, "certs_path"), wanted);
}

/* What is wrong is named by its file, and its field. */
static void malformed_types_are_named(void **state)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
		{ "", "types/git/resource_metadata.json: JSON: line 1" },
		{ "{\"type\":", "types/git/resource_metadata.json: JSON: line 1" },
		{ "[]", "types/git/resource_metadata.json: not an object" },
		{ "{}", "types/git/resource_metadata.json: type: missing" },
		{ "{\"type\":\"\"}", "types/git/resource_metadata.json: type: missing" },
		{ "{\"type\":7}", "types/git/resource_metadata.json: type: expected" },
		{ "{\"type\":\"git\",\"version\":1.5}",
			"types/git/resource_metadata.json: version: expected" },
		{ "{\"type\":\"git\",\"privileged\":\"yes\"}",
			"types/git/resource_metadata.json: privileged: expected" },
		{ "{\"type\":\"git\",\"unique_version_history\":1}",
			"types/git/resource_metadata.json: unique_version_history: expected" },
		{ "{\"type\":\"mock\"}",
			"types/mock/resource_metadata.json: type: 'mock' is that of" },
		{ "{\"type\":\"git\",\"type\":\"git\"}",
			"types/git/resource_metadata.json: JSON: " },
	};
	struct worker_config config = plain();
	char dir[PATH_MAX];

	make_types(state);
	snprintf(dir, sizeof(dir), "%s", unit_path(state, "types"));
	config.resource_types_dir = dir;
	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct err err = { 0 };
		char *text;

		make_file(state, "types/git/resource_metadata.json", rows[i].text);
		if (worker_json(&config, &text, &err) >= 0 || !strstr(err.msg, rows[i].words))
			fail_msg("'%s': %s", rows[i].text, err.msg);
	}
}

static void assert_refused(const struct worker_config *config, const char *words)
{
	struct err err = { 0 };
	char *text;

	if (worker_json(config, &text, &err) >= 0 || !strstr(err.msg, words))
		fail_msg("'%s' expected: %s", words, err.msg);
}

static void what_is_missing_is_named(void **state)
{
	struct worker_config config = plain();
	char dir[PATH_MAX];

	config.certs_dir = "/nowhere/certs";
	assert_refused(&config, "--certs-dir /nowhere/certs: No such file");
	config.certs_dir = "";
	config.resource_types_dir = "/nowhere/types";
	assert_refused(&config, "--resource-types /nowhere/types: No such file");
	make_types(state);
	snprintf(dir, sizeof(dir), "%s", unit_path(state, "types"));
	config.resource_types_dir = dir;
	assert_int_equal(unlink(unit_path(state, "types/git/rootfs.tgz")), 0);
	assert_refused(&config, "types/git: has neither a file rootfs.tgz nor a directory rootfs");
	assert_int_equal(unlink(unit_path(state, "types/git/resource_metadata.json")), 0);
	assert_refused(&config, "types/git/resource_metadata.json: No such file");
	make_dir(state, "types/git/resource_metadata.json");
	assert_refused(&config, "types/git/resource_metadata.json: Invalid argument");
}

static void texts_that_are_no_utf_8_are_refused(void **state UNUSED)
{
	struct worker_config config = plain();

	config.team = "\xff";
	assert_refused(&config, "--team: not UTF-8");
	config = plain();
	config.name = "\xff";
	assert_refused(&config, "--name: not UTF-8");
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, unit_make_dir, unit_remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_worker_has_every_field_that_web_reads),
		IN_DIR(what_is_configured_is_in_it),
		cmocka_unit_test(a_worker_without_a_name_has_the_host_s),
		IN_DIR(types_are_read_in_the_order_of_their_directories),
		cmocka_unit_test(paths_are_made_absolute),
		IN_DIR(malformed_types_are_named),
		IN_DIR(what_is_missing_is_named),
		cmocka_unit_test(texts_that_are_no_utf_8_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>
#include <sys/resource.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "server/json.h"
#include "server/spec_json.h"
#include "spec.h"

static int parse_container(const char *text, struct container_spec *ret_spec, struct err *err)
{
	AUTO_JSON json_t *json = NULL;

	*ret_spec = (struct container_spec){ 0 };
	*err = (struct err){ 0 };
	if (json_parse(text, strlen(text), &json, err))
		fail_msg("%s: %s", text, err->msg);
	return container_spec_parse(json, ret_spec, err);
}

static int parse_process(const char *text, struct process_spec *ret_spec, struct err *err)
{
	AUTO_JSON json_t *json = NULL;

	*ret_spec = (struct process_spec){ 0 };
	*err = (struct err){ 0 };
	if (json_parse(text, strlen(text), &json, err))
		fail_msg("%s: %s", text, err->msg);
	return process_spec_parse(json, ret_spec, err);
}

static struct container_spec good_container(const char *text)
{
	struct container_spec spec;
	struct err err;

	if (parse_container(text, &spec, &err))
		fail_msg("%s: %s", text, err.msg);
	return spec;
}

static struct process_spec good_process(const char *text)
{
	struct process_spec spec;
	struct err err;

	if (parse_process(text, &spec, &err))
		fail_msg("%s: %s", text, err.msg);
	return spec;
}

/* ---- containers ------------------------------------------------------------------------------------ */

static void an_empty_container_spec_asks_for_nothing(void **state UNUSED)
{
	static const char *const texts[] = { "{}",
		"{\"handle\":\"\",\"properties\":null,\"env\":[]}",
		/* as the Go client sends it */
		"{\"image\":{},\"limits\":{\"bandwidth_limits\":{},\"cpu_limits\":{},\"disk_limits\":{},"
		"\"memory_limits\":{},\"pid_limits\":{}}}" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		struct container_spec spec = good_container(texts[i]);

		assert_null(spec.handle);
		assert_null(spec.rootfs);
		assert_false(spec.has_grace || spec.privileged);
		assert_int_equal(spec.n_binds + spec.n_properties + spec.env.n_items, 0);
		container_spec_done(&spec);
	}
}

static void a_full_container_spec_is_read(void **state UNUSED)
{
	struct container_spec spec = good_container(
		"{\"handle\":\"c1\",\"grace_time\":300000000000,\"rootfs\":\"raw:///srv\",\"privileged\":true,"
		"\"env\":[\"A=1\",\"B=\"],\"properties\":{\"k\":\"v\",\"K\":\"\"},\"bind_mounts\":["
		"{\"src_path\":\"/a\",\"dst_path\":\"/b\",\"mode\":1},"
		"{\"src_path\":\"/c\",\"dst_path\":\"/d\",\"origin\":1}],\"unknown\":[1]}");

	assert_string_equal(spec.handle, "c1");
	assert_true(spec.has_grace);
	assert_true(spec.grace_ns == INT64_C(300000000000));
	assert_string_equal(spec.rootfs, "raw:///srv");
	assert_true(spec.privileged);
	assert_int_equal(spec.env.n_items, 2);
	assert_string_equal(spec.env.items[1], "B=");
	assert_int_equal(spec.n_properties, 2);
	assert_string_equal(spec.properties[0].key, "k");
	assert_string_equal(spec.properties[1].value, "");
	assert_int_equal(spec.n_binds, 2);
	assert_string_equal(spec.binds[0].src, "/a");
	assert_true(spec.binds[0].read_write && !spec.binds[0].from_container);
	assert_string_equal(spec.binds[1].dst, "/d");
	assert_true(!spec.binds[1].read_write && spec.binds[1].from_container);
	container_spec_done(&spec);
}

static void image_and_rootfs_are_one_field(void **state UNUSED)
{
	struct container_spec spec =
		good_container("{\"image\":{\"uri\":\"/img.tar\"},\"rootfs\":\"\"}");
	struct err err;

	assert_string_equal(spec.rootfs, "/img.tar");
	container_spec_done(&spec);
	assert_true(
		parse_container("{\"image\":{\"uri\":\"/a\"},\"rootfs\":\"/b\"}", &spec, &err) < 0);
	assert_string_equal(err.msg, "Cannot provide both Image.URI and RootFSPath");
	container_spec_done(&spec);
}

static void container_specs_that_cannot_be_meant_are_refused_by_field(void **state UNUSED)
{
	static const struct {
		const char *text;
		enum err_kind kind;
		const char *field;
	} rows[] = {
		{ "{\"handle\":7}", ERR_INVALID, "handle" },
		{ "{\"handle\":\"a\",\"HANDLE\":\"b\"}", ERR_BAD_REQUEST, "handle" },
		{ "{\"grace_time\":-1}", ERR_INVALID, "grace_time" },
		{ "{\"grace_time\":1.5}", ERR_INVALID, "grace_time" },
		{ "{\"grace_time\":9223372036854775808}", ERR_INVALID, "grace_time" },
		{ "{\"grace_time\":\"5m\"}", ERR_INVALID, "grace_time" },
		{ "{\"rootfs\":[]}", ERR_INVALID, "rootfs" },
		{ "{\"image\":\"x\"}", ERR_INVALID, "image" },
		{ "{\"image\":{\"uri\":1}}", ERR_INVALID, "image.uri" },
		{ "{\"privileged\":1}", ERR_INVALID, "privileged" },
		{ "{\"privileged\":\"true\"}", ERR_INVALID, "privileged" },
		{ "{\"env\":{}}", ERR_INVALID, "env" },
		{ "{\"env\":[1]}", ERR_INVALID, "env" },
		{ "{\"env\":\"A=1\"}", ERR_INVALID, "env" },
		{ "{\"properties\":[]}", ERR_INVALID, "properties" },
		{ "{\"properties\":{\"a\":1}}", ERR_INVALID, "properties" },
		{ "{\"properties\":{\"a\":null}}", ERR_INVALID, "properties" },
		{ "{\"properties\":{\"a\":18446744073709551615}}", ERR_INVALID, "properties" },
		{ "{\"bind_mounts\":{}}", ERR_INVALID, "bind_mounts" },
		{ "{\"bind_mounts\":[1]}", ERR_INVALID, "bind_mounts[0]" },
		{ "{\"bind_mounts\":[{}]}", ERR_INVALID, "bind_mounts[0]" },
		{ "{\"bind_mounts\":[{\"src_path\":\"/a\"}]}", ERR_INVALID, "bind_mounts[0]" },
		{ "{\"bind_mounts\":[{\"src_path\":\"/a\",\"dst_path\":\"\"}]}", ERR_INVALID,
			"bind_mounts[0]" },
		{ "{\"bind_mounts\":[{\"src_path\":\"/a\",\"dst_path\":\"/b\"},"
		  "{\"src_path\":\"/a\",\"dst_path\":\"/b\",\"mode\":2}]}",
			ERR_INVALID, "bind_mounts[1].mode" },
		{ "{\"bind_mounts\":[{\"src_path\":\"/a\",\"dst_path\":\"/b\",\"origin\":-1}]}",
			ERR_INVALID, "bind_mounts[0].origin" },
		/* what later changes bring */
		{ "{\"network\":1}", ERR_INVALID, "network" },
		{ "{\"netin\":[{},1]}", ERR_INVALID, "netin[1]" },
		{ "{\"netin\":[{\"host_port\":65536}]}", ERR_INVALID, "netin[0].host_port" },
		{ "{\"netout_rules\":[{},{\"networks\":[{}]}]}", ERR_INVALID,
			"netout_rules[1].networks[0]" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct container_spec spec;
		struct err err;
		int r = parse_container(rows[i].text, &spec, &err);

		if (r >= 0 || err.kind != rows[i].kind || !strstr(err.msg, rows[i].field))
			fail_msg("%s: %d, kind %d (%s)", rows[i].text, r, (int)err.kind, err.msg);
		container_spec_done(&spec);
	}
}

/* n items between begin and end, commas between them. */
static void expect_limit(const char *begin, const char *item, const char *end, int limit)
{
	for (int n = limit; n <= limit + 1; n++) {
		AUTO_BUF struct buf text;
		struct container_spec spec;
		struct err err;

		buf_init(&text, 1 << 24);
		buf_adds(&text, begin);
		for (int i = 0; i < n; i++) {
			buf_adds(&text, i ? "," : "");
			for (const char *p = item; *p; p++)
				if (*p == '#')
					buf_addf(&text, "%d", i);
				else
					buf_add(&text, p, 1);
		}
		buf_adds(&text, end);
		assert_int_equal(parse_container(buf_str(&text), &spec, &err) == 0, n == limit);
		container_spec_done(&spec);
	}
}

static void limits_that_cannot_be_meant_are_refused_by_field(void **state UNUSED)
{
	static const struct {
		const char *text;
		enum err_kind kind;
		const char *field;
	} rows[] = {
		{ "{\"limits\":[]}", ERR_INVALID, "limits: expected" },
		{ "{\"limits\":{\"cpu_limits\":5}}", ERR_INVALID, "limits.cpu_limits" },
		{ "{\"limits\":{\"memory_limits\":{\"limit_in_bytes\":18446744073709551616}}}",
			ERR_INVALID, "limits.memory_limits.limit_in_bytes" },
		{ "{\"limits\":{\"memory_limits\":{\"limit_in_bytes\":-1}}}", ERR_INVALID,
			"limits.memory_limits.limit_in_bytes" },
		{ "{\"limits\":{\"pid_limits\":{\"max\":\"5\"}}}", ERR_INVALID,
			"limits.pid_limits.max" },
		{ "{\"limits\":{\"pid_limits\":{\"max\":5,\"MAX\":6}}}", ERR_BAD_REQUEST,
			"limits.pid_limits.max" },
		{ "{\"limits\":{\"disk_limits\":{\"scope\":2}}}", ERR_INVALID,
			"limits.disk_limits.scope" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct container_spec spec;
		struct err err;
		int r = parse_container(rows[i].text, &spec, &err);

		if (r >= 0 || err.kind != rows[i].kind || !strstr(err.msg, rows[i].field))
			fail_msg("%s: %d, kind %d (%s)", rows[i].text, r, (int)err.kind, err.msg);
		container_spec_done(&spec);
	}
}

static void every_limit_has_its_field(void **state UNUSED)
{
	struct container_spec spec;
	struct err err;

	assert_int_equal(
		parse_container(
			"{\"limits\":{\"bandwidth_limits\":{\"rate\":1,\"burst\":2},"
			"\"CPU_limits\":{\"weight\":3,\"limit_in_shares\":4},"
			"\"disk_limits\":{\"inode_soft\":5,\"inode_hard\":6,\"byte_soft\":7,"
			"\"byte_hard\":8,\"scope\":1},"
			"\"memory_limits\":{\"limit_in_bytes\":18446744073709551615},"
			"\"pid_limits\":{\"max\":9}}}",
			&spec, &err),
		0);
	assert_int_equal(spec.limits.rate_bytes, 1);
	assert_int_equal(spec.limits.burst_bytes, 2);
	assert_int_equal(spec.limits.cpu_weight, 3);
	assert_int_equal(spec.limits.cpu_shares, 4);
	assert_int_equal(spec.limits.disk_inodes_soft, 5);
	assert_int_equal(spec.limits.disk_inodes_hard, 6);
	assert_int_equal(spec.limits.disk_bytes_soft, 7);
	assert_int_equal(spec.limits.disk_bytes_hard, 8);
	assert_int_equal(spec.limits.disk_scope, 1);
	assert_true(spec.limits.memory_bytes == UINT64_MAX);
	assert_int_equal(spec.limits.n_pids, 9);
	container_spec_done(&spec);
}

static void lists_have_their_limits(void **state UNUSED)
{
	expect_limit("{\"env\":[", "\"A#=1\"", "]}", 10000);
	expect_limit("{\"bind_mounts\":[", "{\"src_path\":\"/a\",\"dst_path\":\"/#\"}", "]}", 1000);
	expect_limit("{\"properties\":{", "\"k#\":\"v\"", "}}", 1000);
}

static void properties_have_their_limits(void **state UNUSED)
{
	for (size_t n = 1024; n <= 1025; n++) {
		AUTO_BUF struct buf text;
		struct container_spec spec;
		struct err err;

		buf_init(&text, 1 << 16);
		buf_addf(&text, "{\"properties\":{\"%0*d\":\"v\"}}", (int)n, 7);
		assert_int_equal(parse_container(buf_str(&text), &spec, &err) == 0, n == 1024);
		container_spec_done(&spec);
	}
}

/* ---- processes --------------------------------------------------------------------------------------- */

static void a_process_with_an_image_may_have_bind_mounts(void **state UNUSED)
{
	struct process_spec spec = good_process(
		"{\"path\":\"ls\",\"image\":{\"uri\":\"docker:///x#y\"},\"bind_mounts\":["
		"{\"src_path\":\"/a\",\"dst_path\":\"/b\",\"mode\":1},"
		"{\"src_path\":\"/c\",\"dst_path\":\"/d\",\"origin\":1}]}");

	assert_string_equal(spec.image, "docker:///x#y");
	assert_int_equal(spec.n_binds, 2);
	assert_true(spec.binds[0].read_write && !spec.binds[0].from_container);
	assert_true(!spec.binds[1].read_write && spec.binds[1].from_container);
	process_spec_done(&spec);
	spec = good_process("{\"path\":\"ls\",\"image\":{\"uri\":\"\"},\"bind_mounts\":[]}");
	assert_null(spec.image);
	process_spec_done(&spec);
}

static void a_full_process_spec_is_read(void **state UNUSED)
{
	struct process_spec spec = good_process(
		"{\"id\":\"p-1\",\"path\":\"ls\",\"args\":[\"-l\",\"\"],\"env\":[\"A=1\"],\"dir\":\"/x\","
		"\"user\":\"alice\",\"rlimits\":{\"nofile\":30,\"as\":18446744073709551615,\"core\":0},"
		"\"tty\":{\"window_size\":{\"columns\":80,\"rows\":24}},\"image\":{},\"bind_mounts\":null}");

	assert_string_equal(spec.id, "p-1");
	assert_string_equal(spec.path, "ls");
	assert_int_equal(spec.args.n_items, 2);
	assert_string_equal(spec.args.items[1], "");
	assert_string_equal(spec.env.items[0], "A=1");
	assert_string_equal(spec.dir, "/x");
	assert_string_equal(spec.user, "alice");
	assert_int_equal(
		spec.rlimit_set, 1u << RLIMIT_NOFILE | 1u << RLIMIT_AS | 1u << RLIMIT_CORE);
	assert_int_equal(spec.rlimits[RLIMIT_NOFILE], 30);
	assert_true(spec.rlimits[RLIMIT_AS] == UINT64_MAX);
	assert_int_equal(spec.rlimits[RLIMIT_CORE], 0);
	assert_true(spec.tty);
	assert_int_equal(spec.columns, 80);
	assert_int_equal(spec.rows, 24);
	process_spec_done(&spec);
}

static void a_terminal_may_come_without_a_size(void **state UNUSED)
{
	static const char *const texts[] = { "{\"path\":\"sh\",\"tty\":{}}",
		"{\"path\":\"sh\",\"tty\":{\"window_size\":null}}",
		"{\"path\":\"sh\",\"tty\":{\"window_size\":{}}}" };

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		struct process_spec spec = good_process(texts[i]);

		assert_true(spec.tty);
		assert_int_equal(spec.columns + spec.rows, 0);
		process_spec_done(&spec);
	}
}

static void every_rlimit_has_its_number(void **state UNUSED)
{
	static const struct {
		const char *name;
		int resource;
	} rows[] = { { "as", RLIMIT_AS }, { "core", RLIMIT_CORE }, { "cpu", RLIMIT_CPU },
		{ "data", RLIMIT_DATA }, { "fsize", RLIMIT_FSIZE }, { "locks", RLIMIT_LOCKS },
		{ "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE },
		{ "nice", RLIMIT_NICE }, { "nofile", RLIMIT_NOFILE }, { "nproc", RLIMIT_NPROC },
		{ "rss", RLIMIT_RSS }, { "rtprio", RLIMIT_RTPRIO },
		{ "sigpending", RLIMIT_SIGPENDING }, { "stack", RLIMIT_STACK } };

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct process_spec spec;
		char text[100];

		snprintf(text, sizeof(text), "{\"path\":\"x\",\"rlimits\":{\"%s\":%zu}}",
			rows[i].name, i + 1);
		spec = good_process(text);
		assert_int_equal(spec.rlimit_set, 1u << rows[i].resource);
		assert_int_equal(spec.rlimits[rows[i].resource], i + 1);
		process_spec_done(&spec);
	}
}

static void process_specs_that_cannot_be_meant_are_refused_by_field(void **state UNUSED)
{
	static const struct {
		const char *text;
		enum err_kind kind;
		const char *field;
	} rows[] = {
		{ "{\"id\":7}", ERR_INVALID, "id" },
		{ "{\"id\":\"a/b\"}", ERR_INVALID, "id" },
		{ "{\"id\":\"..\"}", ERR_INVALID, "id" },
		{ "{\"id\":\"a b\"}", ERR_INVALID, "id" },
		{ "{\"path\":[]}", ERR_INVALID, "path" },
		{ "{\"args\":\"x\"}", ERR_INVALID, "args" },
		{ "{\"args\":[null]}", ERR_INVALID, "args" },
		{ "{\"env\":[18446744073709551615]}", ERR_INVALID, "env" },
		{ "{\"dir\":1}", ERR_INVALID, "dir" },
		{ "{\"user\":0}", ERR_INVALID, "user" },
		{ "{\"user\":18446744073709551615}", ERR_INVALID, "user" },
		{ "{\"rlimits\":[]}", ERR_INVALID, "rlimits" },
		{ "{\"rlimits\":{\"nofile\":-1}}", ERR_INVALID, "rlimits.nofile" },
		{ "{\"rlimits\":{\"nofile\":18446744073709551616}}", ERR_INVALID,
			"rlimits.nofile" },
		{ "{\"tty\":1}", ERR_INVALID, "tty" },
		{ "{\"tty\":{\"window_size\":{\"columns\":65536}}}", ERR_INVALID,
			"tty.window_size.columns" },
		{ "{\"tty\":{\"window_size\":{\"rows\":-1}}}", ERR_INVALID,
			"tty.window_size.rows" },
		{ "{\"path\":\"x\",\"image\":{\"uri\":1}}", ERR_INVALID, "image.uri" },
		{ "{\"path\":\"x\",\"image\":{\"uri\":\"/x\"},\"limits\":1}", ERR_INVALID,
			"limits" },
		{ "{\"path\":\"x\",\"image\":{\"uri\":\"/x\"},\"limits\":{\"memory_limits\":"
		  "{\"limit_in_bytes\":-1}}}",
			ERR_INVALID, "limits.memory_limits.limit_in_bytes" },
		{ "{\"path\":\"x\",\"image\":{\"uri\":\"/x\"},\"bind_mounts\":[1]}", ERR_INVALID,
			"bind_mounts[0]" },
		/* the container's root is in the container's groups */
		{ "{\"path\":\"x\",\"limits\":{}}", ERR_UNSUPPORTED, "limits" },
		{ "{\"path\":\"x\",\"bind_mounts\":[{\"src_path\":\"/a\",\"dst_path\":\"/b\"}]}",
			ERR_INVALID,
			"Running a process with bind mounts and no image provided is not allowed" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct process_spec spec;
		struct err err;
		int r = parse_process(rows[i].text, &spec, &err);

		if (r >= 0 || err.kind != rows[i].kind || !strstr(err.msg, rows[i].field))
			fail_msg("%s: %d, kind %d (%s)", rows[i].text, r, (int)err.kind, err.msg);
		process_spec_done(&spec);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_container_spec_asks_for_nothing),
		cmocka_unit_test(a_full_container_spec_is_read),
		cmocka_unit_test(image_and_rootfs_are_one_field),
		cmocka_unit_test(container_specs_that_cannot_be_meant_are_refused_by_field),
		cmocka_unit_test(limits_that_cannot_be_meant_are_refused_by_field),
		cmocka_unit_test(every_limit_has_its_field),
		cmocka_unit_test(lists_have_their_limits),
		cmocka_unit_test(properties_have_their_limits),
		cmocka_unit_test(a_full_process_spec_is_read),
		cmocka_unit_test(a_process_with_an_image_may_have_bind_mounts),
		cmocka_unit_test(a_terminal_may_come_without_a_size),
		cmocka_unit_test(every_rlimit_has_its_number),
		cmocka_unit_test(process_specs_that_cannot_be_meant_are_refused_by_field),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

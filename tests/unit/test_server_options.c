#include "unit.h"

#include <errno.h>
#include <getopt.h>

#include "base/auto.h"
#include "base/err.h"
#include "server/options.h"

static char *no_env[] = { NULL };

/* The arguments as one text, split at spaces. */
static int parse_with(struct options *options, const char *line, char **env, struct err *err)
{
	static char copy[1000];
	char *argv[32] = { (char *)"cloche" }, *save = NULL;
	int argc = 1;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	optind = 0; /* getopt starts anew */
	return options_parse(options, argc, argv, env, err);
}

static struct options good(const char *line, char **env)
{
	struct options options;
	struct err err = { 0 };

	if (parse_with(&options, line, env, &err))
		fail_msg("%s: %s", line, err.msg);
	return options;
}

static void without_arguments_the_defaults_hold(void **state UNUSED)
{
	struct options options = good("", no_env);

	assert_string_equal(options.work_dir, "/var/lib/cloche");
	assert_string_equal(options.bind_ip, "127.0.0.1");
	assert_int_equal(options.bind_port, 7777);
	assert_int_equal(options.socket_mode, 0600);
	assert_int_equal(options.allow_raw.n_items, 0);
	assert_string_equal(options.idmap, "unique");
	options_done(&options);
}

static void the_environment_is_over_the_defaults_and_arguments_are_over_both(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_BIND_PORT=1", (char *)"CONCOURSE_BIND_IPX=9.9.9.9",
		(char *)"CONCOURSE_BIND_IP=::1", (char *)"CLOCHE_SOCKET_MODE=0660", NULL };
	struct options options = good("--bind-port 2", env);

	assert_int_equal(options.bind_port, 2);
	assert_string_equal(options.bind_ip, "::1");
	assert_int_equal(options.socket_mode, 0660);
	options_done(&options);
}

static void values_come_behind_a_space_or_an_equals_sign(void **state UNUSED)
{
	struct options options = good("--work-dir=/a=b --bind-port 7 --bind-port=8", no_env);

	assert_string_equal(options.work_dir, "/a=b");
	assert_int_equal(options.bind_port, 8);
	options_done(&options);
}

static void lists_may_be_repeated_and_hold_commas(void **state UNUSED)
{
	struct options options = good("--allow-raw /a,/b,, --allow-raw=/c", no_env);

	assert_int_equal(options.allow_raw.n_items, 3);
	assert_string_equal(options.allow_raw.items[0], "/a");
	assert_string_equal(options.allow_raw.items[1], "/b");
	assert_string_equal(options.allow_raw.items[2], "/c");
	options_done(&options);
}

static void flags_need_no_value(void **state UNUSED)
{
	struct options options = good("--disable-privileged", no_env);

	assert_true(options.disable_privileged);
	options_done(&options);
	options = good("--disable-privileged=false", no_env);
	assert_false(options.disable_privileged);
	options_done(&options);
}

static void what_cannot_be_meant_is_refused_by_its_name(void **state UNUSED)
{
	static const struct {
		const char *line, *word;
	} rows[] = {
		{ "--nonsense", "--nonsense" },
		{ "--bind-port", "--bind-port" },
		{ "--bind-port x", "bind-port" },
		{ "--bind-port=", "bind-port" },
		{ "--bind-port -1", "bind-port" },
		{ "--bind-port 1e3", "bind-port" },
		{ "--bind-port 99999999999999999999", "bind-port" },
		{ "--socket-mode 0999", "socket-mode" },
		{ "--socket-mode 01777", "socket-mode" },
		{ "--socket-mode=", "socket-mode" },
		{ "--default-grace-time 5", "default-grace-time" },
		{ "--default-grace-time x", "default-grace-time" },
		{ "--disable-privileged=maybe", "disable-privileged" },
		{ "word", "word" },
		{ "--bind-port 1 word", "word" },
		{ "-x", "-x" },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct options options;
		struct err err = { 0 };
		int r = parse_with(&options, rows[i].line, no_env, &err);

		if (r != -EINVAL || err.kind != ERR_INVALID || !strstr(err.msg, rows[i].word))
			fail_msg("%s: %d (%s)", rows[i].line, r, err.msg);
		options_done(&options);
	}
}

static void a_broken_environment_is_refused_too(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_BIND_PORT=x", NULL };
	struct options options;
	struct err err = { 0 };

	assert_int_equal(parse_with(&options, "", env, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "CONCOURSE_BIND_PORT 'x'"));
	options_done(&options);
}

static void other_names_mean_the_same(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_GARDEN_MTU=1300",
		(char *)"CONCOURSE_GARDEN_DENY_NETWORK=10.0.0.0/8,1.1.1.1",
		(char *)"CONCOURSE_CONTAINERD_ALLOW_HOST_ACCESS=true", NULL };
	struct options options = good("--containerd-max-containers 7 --containerd-v6-enable", env);

	assert_int_equal(options.mtu, 1300);
	assert_int_equal(options.max_containers, 7);
	assert_int_equal(options.deny_networks.n_items, 2);
	assert_true(options.allow_host_access);
	assert_true(options.v6_enable);
	assert_int_equal(options.remarks.n_items, 0);
	options_done(&options);
}

static void an_option_s_own_name_is_over_its_others(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_CONTAINERD_MTU=1400",
		(char *)"CONCOURSE_GARDEN_MTU=1300", NULL };
	struct options options = good("", env);

	assert_int_equal(options.mtu, 1400);
	options_done(&options);
}

static void a_value_of_another_name_is_refused_by_that_name(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_GARDEN_MTU=wide", NULL };
	struct options options;
	struct err err = { 0 };

	assert_int_equal(parse_with(&options, "", env, &err), -EINVAL);
	assert_string_equal(err.msg, "CONCOURSE_GARDEN_MTU 'wide': expected BYTES");
	options_done(&options);
	assert_int_equal(parse_with(&options, "--garden-mtu wide", no_env, &err), -EINVAL);
	assert_string_equal(err.msg, "--garden-mtu 'wide': expected BYTES");
	options_done(&options);
}

static void what_has_no_effect_is_remarked(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_CONTAINERD_BIN=/x",
		(char *)"CONCOURSE_CONTAINERD_DNS_PROXY_ENABLE=false",
		(char *)"CONCOURSE_GARDEN_BIN=", (char *)"CONCOURSE_GARDEN_NONSENSE=1",
		(char *)"CONCOURSE_POSTGRES_HOST=db", NULL };
	struct options options = good("--runtime containerd --garden-dns-proxy-enable", env);

	assert_int_equal(options.remarks.n_items, 4);
	assert_string_equal(options.remarks.items[0],
		"CONCOURSE_CONTAINERD_BIN has no effect: there is no containerd");
	assert_string_equal(options.remarks.items[1],
		"CONCOURSE_GARDEN_NONSENSE has no effect: it is not known (cloche --help lists what is)");
	assert_string_equal(
		options.remarks.items[2], "--runtime has no effect: cloche runs containers itself");
	assert_non_null(
		strstr(options.remarks.items[3], "--garden-dns-proxy-enable has no effect"));
	options_done(&options);
}

static void what_would_be_dangerous_to_ignore_is_refused(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_CONTAINERD_SECCOMP_PROFILE=/etc/profile.json", NULL };
	char *empty[] = { (char *)"CONCOURSE_CONTAINERD_SECCOMP_PROFILE=", NULL };
	struct options options;
	struct err err = { 0 };

	assert_int_equal(parse_with(&options, "", env, &err), -EINVAL);
	assert_non_null(strstr(
		err.msg, "CONCOURSE_CONTAINERD_SECCOMP_PROFILE: a profile cannot be loaded"));
	options_done(&options);
	assert_int_equal(
		parse_with(&options, "--containerd-oci-hooks-dir /h", no_env, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "--containerd-oci-hooks-dir: hooks are not run"));
	options_done(&options);
	options = good("", empty);
	options_done(&options);
}

static void a_worker_has_defaults_of_its_own(void **state UNUSED)
{
	char *env[] = { (char *)"CONCOURSE_HEALTHCHECK_BIND_PORT=9", NULL };
	struct options options = good("worker --debug-bind-port 5", env);

	assert_true(options.is_worker);
	assert_true(options.hermetic);
	assert_int_equal(options.health_port, 9);
	assert_int_equal(options.debug_port, 5);
	options_done(&options);
	options = good("worker --hermetic-without-netout=false", no_env);
	assert_false(options.hermetic);
	assert_int_equal(options.health_port, 8888);
	assert_int_equal(options.debug_port, 7776);
	options_done(&options);
	options = good("", no_env);
	assert_false(options.is_worker);
	assert_false(options.hermetic);
	assert_int_equal(options.health_port, 0);
	options_done(&options);
}

static void help_is_asked_for(void **state UNUSED)
{
	struct options options;
	struct err err = { 0 };

	assert_int_equal(parse_with(&options, "--help", no_env, &err), 1);
	options_done(&options);
	assert_int_equal(parse_with(&options, "-h", no_env, &err), 1);
	options_done(&options);
}

static void durations_are_written_as_go_writes_them(void **state UNUSED)
{
	static const struct {
		const char *text;
		int64_t ns; /* -1: refused */
	} rows[] = {
		{ "0", 0 },
		{ "0s", 0 },
		{ "1ns", 1 },
		{ "7us", 7000 },
		{ "300ms", 300000000 },
		{ "10s", INT64_C(10000000000) },
		{ "5m", INT64_C(300000000000) },
		{ "1h30m", INT64_C(5400000000000) },
		{ "1m1ms", INT64_C(60001000000) },
		{ "5m0s", INT64_C(300000000000) },
		{ "9223372036854775807ns", INT64_MAX },
		{ "2562047h", INT64_C(2562047) * 3600 * 1000000000 },
		{ "", -1 },
		{ "5", -1 },
		{ "s", -1 },
		{ "-5s", -1 },
		{ "+5s", -1 },
		{ "1.5h", -1 },
		{ "5 m", -1 },
		{ " 5m", -1 },
		{ "5m ", -1 },
		{ "5d", -1 },
		{ "5mm", -1 },
		{ "5M", -1 },
		{ "1h5", -1 },
		{ "2562048h", -1 },
		{ "9223372036854775808ns", -1 },
		{ "2562047h48m", -1 },
		{ "00000000000000000001s", -1 },
	};

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		int64_t ns = 12345;
		int r = duration_parse(rows[i].text, &ns);

		if (r != (rows[i].ns < 0 ? -EINVAL : 0) || (r == 0 && ns != rows[i].ns))
			fail_msg("'%s': %d, %jd", rows[i].text, r, (intmax_t)ns);
	}
}

static void help_and_manual_name_every_option(void **state)
{
	static const char *const names[] = {
#define OPT(field, kind, name, environment, value, metavar, help) "--" name, environment,
#include "server/options.def"
#undef OPT
#define IN_WORKER(name, value) "--" name "=" value,
#define ALIAS(field, kind, name, environment) "--" name, environment,
#define IGNORED(kind, name, environment, remark) "--" name, environment, remark,
#define REFUSED(kind, name, environment, reason) "--" name, environment, reason,
#include "server/concourse.def"
	};
	static void (*const writers[])(FILE *) = { options_help, options_manual };

	for (size_t i = 0; i < N_ELEMENTS(writers); i++) {
		FILE *file = fopen(unit_path(state, "text"), "we");
		AUTO_FREE char *text = NULL;

		assert_non_null(file);
		writers[i](file);
		assert_int_equal(fclose(file), 0);
		text = unit_read_file(unit_path(state, "text"));
		for (size_t k = 0; k < N_ELEMENTS(names); k++)
			if (!strstr(text, names[k]))
				fail_msg("%s is not in:\n%s", names[k], text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_arguments_the_defaults_hold),
		cmocka_unit_test(the_environment_is_over_the_defaults_and_arguments_are_over_both),
		cmocka_unit_test(values_come_behind_a_space_or_an_equals_sign),
		cmocka_unit_test(lists_may_be_repeated_and_hold_commas),
		cmocka_unit_test(flags_need_no_value),
		cmocka_unit_test(what_cannot_be_meant_is_refused_by_its_name),
		cmocka_unit_test(a_broken_environment_is_refused_too),
		cmocka_unit_test(other_names_mean_the_same),
		cmocka_unit_test(an_option_s_own_name_is_over_its_others),
		cmocka_unit_test(a_value_of_another_name_is_refused_by_that_name),
		cmocka_unit_test(what_has_no_effect_is_remarked),
		cmocka_unit_test(what_would_be_dangerous_to_ignore_is_refused),
		cmocka_unit_test(a_worker_has_defaults_of_its_own),
		cmocka_unit_test(help_is_asked_for),
		cmocka_unit_test(durations_are_written_as_go_writes_them),
		cmocka_unit_test_setup_teardown(
			help_and_manual_name_every_option, unit_make_dir, unit_remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "program.h"
#include "shim/protocol.h"
#include "spec.h"
#include "users.h"

#define ROOT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define USER_PATH "PATH=/usr/local/bin:/usr/bin:/bin"

/* A list written as "A=1 B=2". */
static struct strv words(const char *text)
{
	struct strv list = { 0 };
	AUTO_FREE char *copy = strdup(text);
	char *save = NULL;

	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		strv_add(&list, word);
	return list;
}

static const struct {
	const char *why, *image, *container, *process, *user;
	uint32_t uid;
	const char *want;
} rows[] = {
	{ "defaults of root", "", "", "", NULL, 0, ROOT_PATH " USER=root HOME=/home" },
	{ "an empty user is root", "", "", "", "", 0, ROOT_PATH " USER=root HOME=/home" },
	{ "defaults of others", "", "", "", "alice", 1000, USER_PATH " USER=alice HOME=/home" },
	{ "USER is the text as given", "", "", "", "1234:4321", 1234,
		USER_PATH " USER=1234:4321 HOME=/home" },
	{ "uid 0 by another name", "", "", "", "0:5", 0, ROOT_PATH " USER=0:5 HOME=/home" },
	{ "image, container, process, in this order", "A=1", "B=2", "C=3", NULL, 0,
		"A=1 B=2 C=3 " ROOT_PATH " USER=root HOME=/home" },
	{ "the later value in the place of the first", "A=1 B=1", "C=2 A=2", "B=3 A=3", NULL, 0,
		"A=3 B=3 C=2 " ROOT_PATH " USER=root HOME=/home" },
	{ "twice in one list", "", "", "A=1 B=2 A=3", NULL, 0,
		"A=3 B=2 " ROOT_PATH " USER=root HOME=/home" },
	{ "a PATH of one's own", "", "PATH=/x", "", NULL, 0, "PATH=/x USER=root HOME=/home" },
	{ "an image's PATH", "PATH=/i", "A=1", "", "alice", 1,
		"PATH=/i A=1 USER=alice HOME=/home" },
	{ "APATH is not PATH", "", "APATH=/x", "PATHS=/y", NULL, 0,
		"APATH=/x PATHS=/y " ROOT_PATH " USER=root HOME=/home" },
	{ "USER and HOME of the container stay", "", "USER=ppp HOME=/home/ppp", "", "alice", 1000,
		"USER=ppp HOME=/home/ppp " USER_PATH },
	{ "USER of the process wins, HOME is still the container's", "", "USER=ppp HOME=/home/ppp",
		"USER=qqq", "alice", 1000, "USER=qqq HOME=/home/ppp " USER_PATH },
	{ "empty values are values", "", "", "PATH= USER= HOME= A=", NULL, 0,
		"PATH= USER= HOME= A=" },
	{ "values may hold =", "", "", "A=b=c= A=d=e", NULL, 0,
		"A=d=e " ROOT_PATH " USER=root HOME=/home" },
	{ "names are told apart by case", "", "", "path=/x home=/y user=z", NULL, 0,
		"path=/x home=/y user=z " ROOT_PATH " USER=root HOME=/home" },
};

static void join(const struct strv *list, char *text, size_t n_bytes)
{
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < list->n_items; i++)
		len += (size_t)snprintf(
			text + len, n_bytes - len, "%s%s", i ? " " : "", list->items[i]);
}

static void the_environment_follows_the_rules(void **state UNUSED)
{
	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		AUTO_STRV struct strv image = words(rows[i].image);
		AUTO_STRV struct strv container = words(rows[i].container);
		AUTO_STRV struct strv env = { 0 };
		struct user user = { .uid = rows[i].uid, .home = "/home" };
		struct process_spec spec = { .user = (char *)rows[i].user,
			.env = words(rows[i].process) };
		struct program_input input = { .spec = &spec,
			.image_env = &image,
			.container_env = &container,
			.user = &user };
		char got[1024];

		assert_int_equal(program_environment(&input, &env, NULL), 0);
		join(&env, got, sizeof(got));
		if (strcmp(got, rows[i].want))
			fail_msg("%s: %s", rows[i].why, got);
		strv_done(&spec.env);
	}
}

static void what_is_no_assignment_is_refused_by_its_number_and_not_shown(void **state UNUSED)
{
	static const char *const bad[] = { "secret", "", "=secret", "=" };

	for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
		AUTO_STRV struct strv container = { 0 };
		AUTO_STRV struct strv env = { 0 };
		struct user user = { .home = "/" };
		struct process_spec spec = { 0 };
		struct program_input input = {
			.spec = &spec, .container_env = &container, .user = &user
		};
		struct err err = { 0 };

		strv_add(&container, "GOOD=1");
		strv_add(&container, bad[i]);
		assert_true(program_environment(&input, &env, &err) < 0);
		assert_int_equal(err.kind, ERR_INVALID);
		assert_non_null(strstr(err.msg, "env[1]"));
		assert_null(strstr(err.msg, "secret"));
	}
}

/* ---- the blob ------------------------------------------------------------------------------------ */

static const char *string_at(const void *blob, uint64_t offset)
{
	return (const char *)blob + offset;
}

static const char *table_at(const void *blob, uint32_t table, size_t i)
{
	uint64_t offset;

	memcpy(&offset, string_at(blob, table) + i * sizeof(offset), sizeof(offset));
	return offset ? string_at(blob, offset) : NULL;
}

static int build(struct process_spec *spec, const struct user *user,
	struct program_wire **ret_program, struct err *err)
{
	const struct strv none = { 0 };
	struct program_input input = { .spec = spec,
		.container_env = &none,
		.user = user,
		.bounding = 0xff,
		.effective = 0xf };
	size_t n_bytes = 0;
	int r = program_build(&input, (void **)ret_program, &n_bytes, err);

	if (r == 0) {
		assert_int_equal((*ret_program)->total_bytes, n_bytes);
		assert_int_equal(program_check(*ret_program, n_bytes), 0);
	}
	return r;
}

static void a_program_holds_everything_the_child_needs(void **state UNUSED)
{
	AUTO_FREE struct program_wire *program = NULL;
	struct user user = { 1000, 50, { 1010, 1011 }, 2, "/home/alice" };
	struct process_spec spec = { .path = (char *)"ls",
		.dir = (char *)"/work",
		.user = (char *)"alice",
		.args = words("-l /tmp"),
		.env = words("A=1 PATH=/x:/y"),
		.rlimit_set = 1 << 7 | 1,
		.tty = true };

	spec.rlimits[7] = 30;
	spec.rlimits[0] = UINT64_MAX;
	assert_int_equal(build(&spec, &user, &program, NULL), 0);
	assert_int_equal(program->uid, 1000);
	assert_int_equal(program->gid, 50);
	assert_int_equal(program->n_groups, 2);
	assert_memory_equal(string_at(program, program->groups), user.groups, 2 * sizeof(uint32_t));
	assert_int_equal(program->n_argv, 3);
	assert_string_equal(table_at(program, program->argv, 0), "ls");
	assert_string_equal(table_at(program, program->argv, 1), "-l");
	assert_string_equal(table_at(program, program->argv, 2), "/tmp");
	assert_null(table_at(program, program->argv, 3));
	assert_int_equal(program->n_envp, 4);
	assert_string_equal(table_at(program, program->envp, 0), "A=1");
	assert_string_equal(table_at(program, program->envp, 3), "HOME=/home/alice");
	assert_null(table_at(program, program->envp, 4));
	assert_string_equal(string_at(program, program->dir), "/work");
	assert_string_equal(string_at(program, program->path), "/x:/y");
	assert_true(program->tty);
	assert_int_equal(program->bounding, 0xff);
	assert_int_equal(program->effective, 0xf);
	assert_int_equal(program->rlimit_set, 1 << 7 | 1);
	assert_int_equal(program->rlimits[7], 30);
	assert_true(program->rlimits[0] == UINT64_MAX);
	strv_done(&spec.args);
	strv_done(&spec.env);
}

static void without_a_directory_a_program_begins_at_home(void **state UNUSED)
{
	static char *const dirs[] = { NULL, (char *)"" };

	for (size_t i = 0; i < N_ELEMENTS(dirs); i++) {
		AUTO_FREE struct program_wire *program = NULL;
		struct user user = { .home = "/home/x" };
		struct process_spec spec = { .path = (char *)"ls", .dir = dirs[i] };

		assert_int_equal(build(&spec, &user, &program, NULL), 0);
		assert_string_equal(string_at(program, program->dir), "/home/x");
	}
}

static void a_program_without_a_path_is_refused(void **state UNUSED)
{
	static char *const paths[] = { NULL, (char *)"" };

	for (size_t i = 0; i < N_ELEMENTS(paths); i++) {
		struct program_wire *program = NULL;
		struct user user = { .home = "/" };
		struct process_spec spec = { .path = paths[i] };
		struct err err = { 0 };

		assert_true(build(&spec, &user, &program, &err) < 0);
		assert_int_equal(err.kind, ERR_INVALID);
		assert_non_null(strstr(err.msg, "path"));
		assert_null(program);
	}
}

static char *long_text(size_t n_bytes, char first)
{
	char *text = malloc(n_bytes + 1);

	memset(text, 'x', n_bytes);
	text[0] = first;
	text[n_bytes] = '\0';
	return text;
}

static void what_the_kernel_would_refuse_is_refused_with_its_name(void **state UNUSED)
{
	struct user user = { .home = "/" };
	struct program_wire *program = NULL;
	struct process_spec spec = { .path = (char *)"ls" };
	struct err err = { 0 };
	char *text;

	strv_take(&spec.args, long_text(131071, '/'));
	assert_int_equal(build(&spec, &user, &program, &err), 0);
	auto_free(&program);
	strv_take(&spec.args, long_text(131072, '/'));
	assert_true(build(&spec, &user, &program, &err) < 0);
	assert_non_null(strstr(err.msg, "args[1]"));
	strv_done(&spec.args);
	text = long_text(131072, 'A');
	text[1] = '=';
	strv_take(&spec.env, text);
	assert_true(build(&spec, &user, &program, &err) < 0);
	assert_non_null(strstr(err.msg, "env[0]"));
	strv_done(&spec.env);
	spec.dir = long_text(4096, '/');
	assert_true(build(&spec, &user, &program, &err) < 0);
	assert_non_null(strstr(err.msg, "dir"));
	free(spec.dir);
	spec.dir = NULL;
	for (int i = 0; i < 64; i++)
		strv_take(&spec.args, long_text(131071, '/'));
	assert_true(build(&spec, &user, &program, &err) < 0);
	assert_int_equal(err.kind, ERR_INVALID);
	strv_done(&spec.args);
}

static void whichever_allocation_fails_the_build_says_so(void **state UNUSED)
{
	struct user user = { .home = "/" };
	struct process_spec spec = {
		.path = (char *)"ls", .args = words("-l /tmp"), .env = words("A=1 B=2 A=3")
	};
	struct strv none = { 0 };
	struct program_input input = { .spec = &spec, .container_env = &none, .user = &user };
	long n = 0;
	int failed;

	if (!alloc_can_fail) {
		process_spec_done(&(struct process_spec){ .args = spec.args, .env = spec.env });
		skip();
	}
	do {
		AUTO_FREE void *blob = NULL;
		size_t n_bytes = 0;
		int r;

		alloc_fail_at(++n);
		r = program_build(&input, &blob, &n_bytes, NULL);
		failed = alloc_has_failed();
		assert_true(r == 0 || (failed && r == -ENOMEM));
		if (r == 0) {
			assert_int_equal(program_check(blob, n_bytes), 0);
			assert_int_equal(((struct program_wire *)blob)->n_envp, 5);
		}
	} while (failed);
	strv_done(&spec.args);
	strv_done(&spec.env);
}

static void a_spec_can_be_ended_half_filled_and_twice(void **state UNUSED)
{
	struct process_spec process = { .path = strdup("ls") };
	struct container_spec container = { .handle = strdup("c1") };

	strv_add(&process.env, "A=1");
	process_spec_done(&process);
	process_spec_done(&process);
	assert_null(process.path);
	container.binds = calloc(2, sizeof(*container.binds));
	container.n_binds = 2;
	container.binds[0].src = strdup("/src");
	container.properties = calloc(1, sizeof(*container.properties));
	container.n_properties = 1;
	container.properties[0].key = strdup("key");
	container_spec_done(&container);
	container_spec_done(&container);
	assert_null(container.handle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_environment_follows_the_rules),
		cmocka_unit_test(what_is_no_assignment_is_refused_by_its_number_and_not_shown),
		cmocka_unit_test(a_program_holds_everything_the_child_needs),
		cmocka_unit_test(without_a_directory_a_program_begins_at_home),
		cmocka_unit_test(a_program_without_a_path_is_refused),
		cmocka_unit_test(what_the_kernel_would_refuse_is_refused_with_its_name),
		cmocka_unit_test(whichever_allocation_fails_the_build_says_so),
		cmocka_unit_test(a_spec_can_be_ended_half_filled_and_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

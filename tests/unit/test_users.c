#include "unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"
#include "users.h"

#define N_IDS 65536u

/* Some names look like numbers, as an image may have them to be taken for somebody else. */
static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "daemon:*:1:1::/usr/sbin:/usr/sbin/nologin\n"
			     "alice:x:1000:1000:Alice,,,:/home/alice:/bin/sh\n"
			     "testuser:x:1001:1001::/home/testuser:/bin/sh\n"
			     "1000:x:0:0::/root:/bin/sh\n"
			     "4294967295:x:0:0::/root:/bin/sh\n"
			     "4294967296:x:0:0::/root:/bin/sh\n"
			     "18446744073709551616:x:0:0::/root:/bin/sh\n"
			     "-1:x:0:0::/root:/bin/sh\n"
			     "+0:x:0:0::/root:/bin/sh\n"
			     "\n"
			     "# a comment\n"
			     "short:x\n"
			     "nogid:x:5\n"
			     "baduid:x:abc:0::/root:/bin/sh\n"
			     "neguid:x:-5:0::/root:/bin/sh\n"
			     "hugeuid:x:4294967296:0::/root:/bin/sh\n"
			     "spaced:x: 0:0::/root:/bin/sh\n"
			     "emptyuid:x::0::/root:/bin/sh\n"
			     "hexuid:x:0x10:0::/root:/bin/sh\n"
			     "outside:x:70000:0::/root:/bin/sh\n"
			     "outgroup:x:1500:70000::/root:/bin/sh\n"
			     "nohome:x:1600:1600:::/bin/sh\n"
			     "relhome:x:1601:1601::home/rel:/bin/sh\n"
			     "fourfields:x:1602:1603\n"
			     "twice:x:1700:1700::/first:/bin/sh\n"
			     "twice:x:1701:1701::/second:/bin/sh\n"
			     "first1800:x:1800:1::/first:/bin/sh\n"
			     "second1800:x:1800:2::/second:/bin/sh\n"
			     ":x:1900:1900::/noname:/bin/sh\n"
			     "lastline:x:2000:2000::/last:/bin/sh";

static const char group[] = "root:x:0:\n"
			    "staff:x:50:\n"
			    "alice:x:1000:\n"
			    "wheel:x:1010:root,alice\n"
			    "docker:x:1011:alice\n"
			    "notalice:x:1012:malice,alices,alic\n"
			    "middle:x:1013:root,alice,daemon\n"
			    "outside:x:70000:alice\n"
			    "bad:x:abc:alice\n"
			    "1010:x:0:\n"
			    "-1:x:0:\n"
			    "+0:x:0:\n"
			    "short:x\n"
			    "daemons:x:2:daemon,,first1800\n"
			    "lastgroup:x:3000:lastline";

#define NOT_FOUND -ENOENT
#define REFUSED -EINVAL

static const struct {
	const char *text;
	int r;
	uint32_t uid, gid;
	const char *home, *groups;
} rows[] = {
	/* nobody named */
	{ "", 0, 0, 0, "/root", "1010 1013" },
	/* names */
	{ "root", 0, 0, 0, "/root", "1010 1013" },
	{ "alice", 0, 1000, 1000, "/home/alice", "1010 1011 1013" },
	{ "testuser", 0, 1001, 1001, "/home/testuser", "" },
	{ "daemon", 0, 1, 1, "/usr/sbin", "1013 2" },
	{ "lastline", 0, 2000, 2000, "/last", "3000" },
	{ "Alice", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alic", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alicex", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice ", NOT_FOUND, 0, 0, NULL, NULL },
	{ " alice", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice\n", NOT_FOUND, 0, 0, NULL, NULL },
	{ "nobody", NOT_FOUND, 0, 0, NULL, NULL },
	{ "# a comment", NOT_FOUND, 0, 0, NULL, NULL },
	/* a name and a group */
	{ "alice:staff", 0, 1000, 50, "/home/alice", "" },
	{ "alice:50", 0, 1000, 50, "/home/alice", "" },
	{ "alice:1000", 0, 1000, 1000, "/home/alice", "" },
	{ "alice:60000", 0, 1000, 60000, "/home/alice", "" },
	{ "root:root", 0, 0, 0, "/root", "" },
	{ "testuser:lastgroup", 0, 1001, 3000, "/home/testuser", "" },
	{ "alice:nogroup", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice:staff:x", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice:50:0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "nobody:staff", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice:short", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice:bad", NOT_FOUND, 0, 0, NULL, NULL },
	{ "alice:outside", REFUSED, 0, 0, NULL, NULL },
	/* ids of somebody known */
	{ "0", 0, 0, 0, "/root", "1010 1013" },
	{ "1", 0, 1, 1, "/usr/sbin", "1013 2" },
	{ "1000", 0, 1000, 1000, "/home/alice", "1010 1011 1013" },
	{ "0001000", 0, 1000, 1000, "/home/alice", "1010 1011 1013" },
	{ "1000:50", 0, 1000, 50, "/home/alice", "" },
	{ "1000:staff", 0, 1000, 50, "/home/alice", "" },
	{ "1000:1010", 0, 1000, 1010, "/home/alice", "" },
	{ "0:1", 0, 0, 1, "/root", "" },
	{ "1:1", 0, 1, 1, "/usr/sbin", "" },
	{ "1:0", 0, 1, 0, "/usr/sbin", "" },
	{ "1800", 0, 1800, 1, "/first", "2" },
	{ "1900", 0, 1900, 1900, "/noname", "" },
	/* ids of nobody known */
	{ "1234:4321", 0, 1234, 4321, "/", "" },
	{ "1234", 0, 1234, 0, "/", "" },
	{ "1234:staff", 0, 1234, 50, "/", "" },
	{ "65535:65535", 0, 65535, 65535, "/", "" },
	/* ids that this container does not have */
	{ "65536", REFUSED, 0, 0, NULL, NULL },
	{ "65536:0", REFUSED, 0, 0, NULL, NULL },
	{ "0:65536", REFUSED, 0, 0, NULL, NULL },
	{ "1234:65536", REFUSED, 0, 0, NULL, NULL },
	{ "4294967294", REFUSED, 0, 0, NULL, NULL },
	{ "4294967295", REFUSED, 0, 0, NULL, NULL },
	{ "4294967296", REFUSED, 0, 0, NULL, NULL },
	{ "4294967297:4294967297", REFUSED, 0, 0, NULL, NULL },
	{ "18446744073709551615", REFUSED, 0, 0, NULL, NULL },
	{ "18446744073709551616", REFUSED, 0, 0, NULL, NULL },
	{ "18446744073709552616", REFUSED, 0, 0, NULL, NULL },
	{ "99999999999999999999999999999999", REFUSED, 0, 0, NULL, NULL },
	{ "0:18446744073709551616", REFUSED, 0, 0, NULL, NULL },
	{ "outside", REFUSED, 0, 0, NULL, NULL },
	{ "outgroup", REFUSED, 0, 0, NULL, NULL },
	{ "outgroup:0", 0, 1500, 0, "/root", "" },
	/* what only looks like a number is nobody, whatever the files say */
	{ "-1", NOT_FOUND, 0, 0, NULL, NULL },
	{ "+0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "-0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "0x0", NOT_FOUND, 0, 0, NULL, NULL },
	{ " 0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "0 ", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1e3", NOT_FOUND, 0, 0, NULL, NULL },
	{ "0.0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1000abc", NOT_FOUND, 0, 0, NULL, NULL },
	{ "\xd9\xa0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1000:-1", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1000:+0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1000:abc", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1000: 0", NOT_FOUND, 0, 0, NULL, NULL },
	{ "1000:0x0", NOT_FOUND, 0, 0, NULL, NULL },
	/* entries that are broken are nobody's */
	{ "short", NOT_FOUND, 0, 0, NULL, NULL },
	{ "nogid", NOT_FOUND, 0, 0, NULL, NULL },
	{ "baduid", NOT_FOUND, 0, 0, NULL, NULL },
	{ "neguid", NOT_FOUND, 0, 0, NULL, NULL },
	{ "hugeuid", NOT_FOUND, 0, 0, NULL, NULL },
	{ "spaced", NOT_FOUND, 0, 0, NULL, NULL },
	{ "emptyuid", NOT_FOUND, 0, 0, NULL, NULL },
	{ "hexuid", NOT_FOUND, 0, 0, NULL, NULL },
	/* the rest */
	{ "nohome", 0, 1600, 1600, "/", "" },
	{ "relhome", 0, 1601, 1601, "/", "" },
	{ "fourfields", 0, 1602, 1603, "/", "" },
	{ "twice", 0, 1700, 1700, "/first", "" },
};

static void list_groups(const struct user *user, char *text, size_t n_bytes)
{
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < user->n_groups; i++)
		len += (size_t)snprintf(
			text + len, n_bytes - len, "%s%u", i ? " " : "", user->groups[i]);
}

static void every_form_of_user_is_resolved_or_refused(void **state UNUSED)
{
	int n_wrong = 0;

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		struct user user;
		struct err err = { 0 };
		char groups[256] = "";
		int r = user_resolve(rows[i].text, passwd, group, N_IDS, &user, &err);

		if (r == 0)
			list_groups(&user, groups, sizeof(groups));
		if (r == rows[i].r &&
			(r < 0 ||
				(user.uid == rows[i].uid && user.gid == rows[i].gid &&
					!strcmp(user.home, rows[i].home) &&
					!strcmp(groups, rows[i].groups))))
			continue;
		print_error("\"%s\": %d %u:%u home %s groups [%s] (%s)\n", rows[i].text, r,
			user.uid, user.gid, user.home, groups, err.msg);
		n_wrong++;
	}
	assert_int_equal(n_wrong, 0);
}

/* None of the forms of garden.md 1.2. They are not worth guessing at: a guess ends at root. */
static void half_a_user_is_refused(void **state UNUSED)
{
	static const char *const texts[] = { ":", ":0", ":staff", "1000:", "alice:", "0:", "::" };
	int n_wrong = 0;

	for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
		struct user user;

		if (user_resolve(texts[i], passwd, group, N_IDS, &user, NULL) < 0)
			continue;
		print_error("\"%s\" is %u:%u\n", texts[i], user.uid, user.gid);
		n_wrong++;
	}
	assert_int_equal(n_wrong, 0);
}

static void errors_say_what_the_reference_says(void **state UNUSED)
{
	struct user user;
	struct err err = { 0 };

	user_resolve("x", passwd, group, N_IDS, &user, &err);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	assert_string_equal(err.msg, "unable to find user x: no matching entries in passwd file");
	user_resolve("alice:g", passwd, group, N_IDS, &user, &err);
	assert_string_equal(err.msg, "unable to find group g: no matching entries in group file");
	user_resolve("65536", passwd, group, N_IDS, &user, &err);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_non_null(strstr(err.msg, "0 to 65535"));
}

static void without_files_only_root_and_numbers_work(void **state UNUSED)
{
	static const char *const roots[] = { "", "root", "0", "root:0", "0:0" };
	struct user user;

	for (size_t i = 0; i < N_ELEMENTS(roots); i++) {
		assert_int_equal(user_resolve(roots[i], NULL, NULL, N_IDS, &user, NULL), 0);
		assert_int_equal(user.uid, 0);
		assert_int_equal(user.gid, 0);
		assert_int_equal(user.n_groups, 0);
		assert_string_equal(user.home, "/");
	}
	assert_int_equal(user_resolve("7:8", NULL, NULL, N_IDS, &user, NULL), 0);
	assert_int_equal(user.uid, 7);
	assert_int_equal(user.gid, 8);
	assert_int_equal(user_resolve("alice", NULL, NULL, N_IDS, &user, NULL), NOT_FOUND);
	assert_int_equal(user_resolve("root:root", NULL, NULL, N_IDS, &user, NULL), NOT_FOUND);
	assert_int_equal(user_resolve("alice", "", "", N_IDS, &user, NULL), NOT_FOUND);
}

static void all_ids_of_the_host_can_be_had_but_the_last(void **state UNUSED)
{
	struct user user;

	assert_int_equal(
		user_resolve("1000000000:4294967294", NULL, NULL, UINT32_MAX, &user, NULL), 0);
	assert_int_equal(user.uid, 1000000000);
	assert_int_equal(user.gid, 4294967294u);
	assert_int_equal(user_resolve("4294967295", NULL, NULL, UINT32_MAX, &user, NULL), REFUSED);
	assert_int_equal(
		user_resolve("0:4294967295", NULL, NULL, UINT32_MAX, &user, NULL), REFUSED);
}

static void a_user_text_that_is_very_long_is_refused(void **state UNUSED)
{
	AUTO_FREE char *text = calloc(1, 100001);
	struct user user;

	memset(text, 'a', 100000);
	assert_true(user_resolve(text, passwd, group, N_IDS, &user, NULL) < 0);
	memset(text, '0', 100000);
	assert_true(user_resolve(text, passwd, group, N_IDS, &user, NULL) < 0);
}

static void a_line_that_is_very_long_hides_nobody_behind_it(void **state UNUSED)
{
	static const char last[] = "\nbob:x:7:8::/bob:/bin/sh\n";
	const size_t n_long = 200000;
	AUTO_FREE char *text = calloc(1, n_long + sizeof(last));
	struct user user;

	memset(text, 'x', n_long);
	memcpy(text, "eve:x:0:0:", 10);
	memcpy(text + n_long, last, sizeof(last));
	assert_int_equal(user_resolve("bob", text, NULL, N_IDS, &user, NULL), 0);
	assert_int_equal(user.uid, 7);
	assert_int_equal(user_resolve("eve", text, NULL, N_IDS, &user, NULL), NOT_FOUND);
}

/* Leaving one out would widen what a file with "group: no access" lets in (T-G2). */
static void more_groups_than_fit_are_not_silently_left_out(void **state UNUSED)
{
	AUTO_FREE char *text = calloc(1, 32 * (USERS_MAX_GROUPS + 1));
	struct user user;
	size_t len = 0;

	for (int i = 0; i < USERS_MAX_GROUPS; i++)
		len += (size_t)sprintf(text + len, "g%d:x:%d:alice\n", i, 5000 + i);
	assert_int_equal(user_resolve("alice", passwd, text, N_IDS, &user, NULL), 0);
	assert_int_equal(user.n_groups, USERS_MAX_GROUPS);
	sprintf(text + len, "more:x:9000:alice\n");
	assert_true(user_resolve("alice", passwd, text, N_IDS, &user, NULL) < 0);
}

static void a_home_that_does_not_fit_is_not_cut(void **state UNUSED)
{
	AUTO_FREE char *text = calloc(1, 3000);
	struct user user;
	int r;

	strcpy(text, "bob:x:7:8::/");
	memset(text + strlen(text), 'h', 2000);
	strcat(text, ":/bin/sh\n");
	r = user_resolve("bob", text, NULL, N_IDS, &user, NULL);
	assert_true(r < 0 || strlen(user.home) == 2001 || !strcmp(user.home, "/"));
}

/* ---- files of a root file system that somebody else made (T-C12) ------------------------------ */

static int root_fd;

static int make_root(void **state)
{
	if (unit_make_dir(state) < 0 || mkdir(unit_path(state, "etc"), 0755) < 0)
		return -1;
	root_fd = open(*state, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return root_fd < 0 ? -1 : 0;
}

static int remove_root(void **state)
{
	auto_fd(&root_fd);
	return unit_remove_dir(state);
}

static void write_text(void **state, const char *name, const char *text)
{
	unit_write_file(unit_path(state, name), text, strlen(text));
}

static void the_files_of_the_root_are_used(void **state)
{
	struct user user;

	write_text(state, "etc/passwd", passwd);
	write_text(state, "etc/group", group);
	assert_int_equal(user_lookup(root_fd, "alice", N_IDS, &user, NULL), 0);
	assert_int_equal(user.uid, 1000);
	assert_int_equal(user.n_groups, 3);
}

static void long_files_are_read_to_their_end(void **state)
{
	static const char last[] = "bob:x:7:8::/:/bin/sh\n";
	static char text[100000];
	struct user user;

	memset(text, '\n', sizeof(text));
	memcpy(text + sizeof(text) - sizeof(last), last, sizeof(last));
	write_text(state, "etc/passwd", text);
	assert_int_equal(user_lookup(root_fd, "bob", N_IDS, &user, NULL), 0);
	assert_int_equal(user.uid, 7);
}

static void missing_files_are_no_error(void **state)
{
	struct user user;

	assert_int_equal(user_lookup(root_fd, "root", N_IDS, &user, NULL), 0);
	assert_string_equal(user.home, "/");
	assert_int_equal(rmdir(unit_path(state, "etc")), 0);
	assert_int_equal(user_lookup(root_fd, "", N_IDS, &user, NULL), 0);
	write_text(state, "etc", "a file");
	assert_int_equal(user_lookup(root_fd, "0", N_IDS, &user, NULL), 0);
}

static void links_are_followed_within_the_root_only(void **state)
{
	struct user user;

	write_text(state, "own", "bob:x:7:8::/:/bin/sh\n");
	assert_int_equal(symlink("/own", unit_path(state, "etc/passwd")), 0);
	assert_int_equal(user_lookup(root_fd, "bob", N_IDS, &user, NULL), 0);
	assert_int_equal(unlink(unit_path(state, "etc/passwd")), 0);
	assert_int_equal(symlink("../../../../../../own", unit_path(state, "etc/passwd")), 0);
	assert_int_equal(user_lookup(root_fd, "bob", N_IDS, &user, NULL), 0);
	assert_int_equal(unlink(unit_path(state, "etc/passwd")), 0);
	/* the host's file is there, the container's is not */
	assert_int_equal(symlink("/etc/hostname", unit_path(state, "etc/passwd")), 0);
	assert_int_equal(user_lookup(root_fd, "bob", N_IDS, &user, NULL), NOT_FOUND);
}

static void files_that_would_never_end_are_refused_at_once(void **state)
{
	AUTO_FD int fd = -1;
	struct user user;
	struct err err = { 0 };
	const char *path = unit_path(state, "etc/passwd");

	assert_int_equal(mkfifo(path, 0644), 0);
	assert_true(user_lookup(root_fd, "root", N_IDS, &user, &err) < 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_true(user_lookup(root_fd, "root", N_IDS, &user, &err) < 0);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("passwd", path), 0);
	assert_true(user_lookup(root_fd, "root", N_IDS, &user, &err) < 0);
	assert_int_equal(unlink(path), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_int_equal(ftruncate(fd, INT64_C(2) << 30), 0);
	assert_true(user_lookup(root_fd, "root", N_IDS, &user, &err) < 0);
	assert_non_null(strstr(err.msg, "/etc/passwd"));
}

static void a_device_in_the_place_of_a_file_is_refused(void **state)
{
	struct user user;

	if (mknod(unit_path(state, "etc/passwd"), S_IFCHR | 0644, (1 << 8) | 5) < 0)
		skip();
	assert_true(user_lookup(root_fd, "root", N_IDS, &user, NULL) < 0);
}

#define ROOT_TEST(name) cmocka_unit_test_setup_teardown(name, make_root, remove_root)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_form_of_user_is_resolved_or_refused),
		cmocka_unit_test(half_a_user_is_refused),
		cmocka_unit_test(errors_say_what_the_reference_says),
		cmocka_unit_test(without_files_only_root_and_numbers_work),
		cmocka_unit_test(all_ids_of_the_host_can_be_had_but_the_last),
		cmocka_unit_test(a_user_text_that_is_very_long_is_refused),
		cmocka_unit_test(a_line_that_is_very_long_hides_nobody_behind_it),
		cmocka_unit_test(more_groups_than_fit_are_not_silently_left_out),
		cmocka_unit_test(a_home_that_does_not_fit_is_not_cut),
		ROOT_TEST(the_files_of_the_root_are_used),
		ROOT_TEST(long_files_are_read_to_their_end),
		ROOT_TEST(missing_files_are_no_error),
		ROOT_TEST(links_are_followed_within_the_root_only),
		ROOT_TEST(files_that_would_never_end_are_refused_at_once),
		ROOT_TEST(a_device_in_the_place_of_a_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "unit.h"

#include <errno.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/db.h"
#include "base/err.h"
#include "base/strv.h"
#include "spec.h"
#include "store.h"

static struct db *db;

static int open_store(void **state)
{
	return unit_make_dir(state) || store_open(unit_path(state, "state.db"), &db, NULL);
}

static int close_store(void **state)
{
	db_close(db);
	return unit_remove_dir(state);
}

static void reopen(void **state)
{
	db_close(db);
	db = NULL;
	assert_int_equal(store_open(unit_path(state, "state.db"), &db, NULL), 0);
}

static struct record record(const char *id, const char *handle)
{
	return (struct record){ .id = id,
		.handle = handle,
		.nonce = "nonce",
		.boot_id = "boot",
		.id_base = 7,
		.grace_ns = INT64_MAX,
		.state = 1,
		.privileged = 1 };
}

static int add_simple(const char *id, const char *handle, struct err *err)
{
	const struct strv env = { 0 };
	struct record rec = record(id, handle);

	return store_add(db, &rec, &env, NULL, 0, err);
}

static int note_record(const struct record *rec, void *arg)
{
	buf_addf(arg, "%s %s %s %s %jd %jd %d %d\n", rec->id, rec->handle, rec->nonce, rec->boot_id,
		(intmax_t)rec->id_base, (intmax_t)rec->grace_ns, rec->state, rec->privileged);
	return 0;
}

/* Those of one container, or of all with their ids in front. */
struct notes {
	const char *id;
	struct buf text;
};

static int note_detail(const struct detail *detail, void *arg)
{
	struct notes *notes = arg;

	if (!notes->id)
		buf_addf(&notes->text, "%s ", detail->id);
	if (!notes->id || !strcmp(notes->id, detail->id))
		buf_addf(&notes->text, "%s=%s:%jd\n", detail->key, detail->text,
			(intmax_t)detail->number);
	return 0;
}

static void expect_details(enum store_detail which, const char *id, const char *want)
{
	struct notes notes = { .id = id };

	buf_init(&notes.text, 1 << 16);
	assert_int_equal(store_each_detail(db, which, note_detail, &notes, NULL), 0);
	assert_string_equal(buf_str(&notes.text), want);
	buf_done(&notes.text);
}

static void expect_records(const char *want)
{
	AUTO_BUF struct buf text;

	buf_init(&text, 1 << 16);
	assert_int_equal(store_each(db, note_record, &text, NULL), 0);
	assert_string_equal(buf_str(&text), want);
}

static void a_record_is_there_after_a_new_start_with_all_that_belongs_to_it(void **state)
{
	AUTO_STRV struct strv env = { 0 };
	const struct property properties[] = { { (char *)"b", (char *)"2" },
		{ (char *)"a", (char *)"" } };
	struct record rec = record("id1", "h1");

	for (int i = 0; i < 12; i++)
		strv_addf(&env, "V%d", i);
	assert_int_equal(store_add(db, &rec, &env, properties, 2, NULL), 0);
	reopen(state);
	expect_records("id1 h1 nonce boot 7 9223372036854775807 1 1\n");
	expect_details(STORE_PROPERTIES, "id1", "a=:0\nb=2:0\n");
	expect_details(STORE_ENV, NULL,
		"id1 =V0:0\nid1 =V1:1\nid1 =V2:2\nid1 =V3:3\nid1 =V4:4\nid1 =V5:5\n"
		"id1 =V6:6\nid1 =V7:7\nid1 =V8:8\nid1 =V9:9\nid1 =V10:10\nid1 =V11:11\n");
}

static void a_handle_is_taken_once_and_free_again_after_removal(void **state UNUSED)
{
	struct err err = { 0 };

	assert_int_equal(add_simple("id1", "h", &err), 0);
	assert_int_equal(add_simple("id2", "h", &err), -EEXIST);
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_int_equal(store_remove(db, "id1", NULL), 0);
	assert_int_equal(add_simple("id2", "h", NULL), 0);
	expect_records("id2 h nonce boot 7 9223372036854775807 1 1\n");
}

static void a_record_is_added_whole_or_not_at_all(void **state UNUSED)
{
	const struct strv env = { 0 };
	const struct property bad[] = { { (char *)"a", (char *)"1" }, { (char *)"b", NULL } };
	struct record rec = record("id1", "h1");

	assert_true(store_add(db, &rec, &env, bad, 2, NULL) < 0);
	expect_records("");
	expect_details(STORE_PROPERTIES, "id1", "");
	assert_int_equal(add_simple("id1", "h1", NULL), 0);
}

static void a_removed_record_takes_everything_with_it(void **state UNUSED)
{
	assert_int_equal(add_simple("id1", "h1", NULL), 0);
	assert_int_equal(add_simple("id2", "h2", NULL), 0);
	assert_int_equal(store_set_property(db, "id1", "k", "v", NULL), 0);
	assert_int_equal(store_remove(db, "id1", NULL), 0);
	assert_int_equal(store_remove(db, "id1", NULL), 0);
	expect_details(STORE_PROPERTIES, "id1", "");
	expect_details(STORE_ENV, "id1", "");
	expect_records("id2 h2 nonce boot 7 9223372036854775807 1 1\n");
}

static int collect(uint32_t token, void *arg)
{
	*(uint32_t *)arg = *(uint32_t *)arg * 10 + token;
	return 0;
}

static int add_image(
	const char *id, uint32_t token, const char *name, const char *lower, const struct strv *env)
{
	const struct store_image image = { name, lower, env };

	return store_add_image(db, id, token, &image, NULL);
}

static void images_and_peas_are_the_containers(void **state UNUSED)
{
	AUTO_STRV struct strv names = { 0 }, none = { 0 }, env = { 0 };
	uint32_t tokens = 0;

	assert_int_equal(strv_add(&env, "A=1"), 0);
	assert_int_equal(strv_add(&env, "B=2"), 0);
	assert_int_equal(add_simple("one", "h1", NULL), 0);
	assert_int_equal(add_image("one", 0, "img", NULL, &env), 0);
	assert_int_equal(add_image("one", 0, "img", NULL, NULL), 0);
	assert_int_equal(add_image("one", 0, "", NULL, NULL), 0);
	assert_int_equal(store_add_pea(db, "one", 3, NULL), 0);
	assert_int_equal(store_add_pea(db, "one", 4, NULL), 0);
	assert_true(store_add_pea(db, "one", 4, NULL) < 0);
	assert_int_equal(store_remove_pea(db, "one", 3, NULL), 0);
	assert_int_equal(store_remove_pea(db, "one", 3, NULL), 0);
	assert_int_equal(store_peas(db, "one", collect, &tokens, NULL), 0);
	assert_int_equal(tokens, 4);
	assert_int_equal(store_images(db, &names, NULL), 0);
	assert_int_equal(names.n_items, 1);
	assert_string_equal(names.items[0], "img");
	expect_details(STORE_IMAGE_ENV, NULL, "one =A=1:0\none =B=2:1\n");
	expect_details(STORE_PEAS, NULL, "one =:4\n");
	assert_int_equal(store_remove(db, "one", NULL), 0);
	assert_int_equal(store_images(db, &none, NULL), 0);
	assert_int_equal(none.n_items, 0);
	assert_true(add_image("one", 0, "img", NULL, NULL) < 0);
}

static void properties_are_set_replaced_and_removed(void **state UNUSED)
{
	assert_int_equal(add_simple("id1", "h1", NULL), 0);
	assert_int_equal(store_set_property(db, "id1", "a b/\xc3\xa9", "1", NULL), 0);
	assert_int_equal(store_set_property(db, "id1", "a b/\xc3\xa9", "2", NULL), 0);
	assert_int_equal(store_set_property(db, "id1", "A", "x'y\"z", NULL), 0);
	expect_details(STORE_PROPERTIES, "id1", "A=x'y\"z:0\na b/\xc3\xa9=2:0\n");
	assert_int_equal(store_remove_property(db, "id1", "A", NULL), 0);
	assert_int_equal(store_remove_property(db, "id1", "absent", NULL), 0);
	expect_details(STORE_PROPERTIES, "id1", "a b/\xc3\xa9=2:0\n");
	assert_true(store_set_property(db, "nobody", "a", "1", NULL) < 0);
}

static void state_and_grace_time_are_changed_in_place(void **state)
{
	assert_int_equal(add_simple("id1", "h1", NULL), 0);
	assert_int_equal(store_set_state(db, "id1", 3, NULL), 0);
	assert_int_equal(store_set_grace(db, "id1", 0, NULL), 0);
	reopen(state);
	expect_records("id1 h1 nonce boot 7 0 3 1\n");
}

static void an_instance_keeps_its_name(void **state)
{
	char first[9], again[9];

	assert_int_equal(store_instance(db, first, NULL), 0);
	assert_int_equal(strspn(first, "0123456789abcdef"), 8);
	assert_int_equal(store_instance(db, again, NULL), 0);
	assert_string_equal(again, first);
	reopen(state);
	assert_int_equal(store_instance(db, again, NULL), 0);
	assert_string_equal(again, first);
}

static void binds_and_lowers_come_in_order(void **state UNUSED)
{
	const struct bind_mount binds[] = { { .src = (char *)"/b", .dst = (char *)"/2" },
		{ .src = (char *)"/a",
			.dst = (char *)"/1",
			.read_write = true,
			.from_container = true } };
	struct record rec = record("id1", "h1");
	const struct strv none = { 0 };
	struct bind_mount back =
		store_bind(&(struct detail){ .key = "/a", .text = "/1", .number = 3 });

	rec.binds = binds;
	rec.n_binds = 2;
	assert_int_equal(store_add(db, &rec, &none, NULL, 0, NULL), 0);
	assert_int_equal(add_image("id1", 0, "", "/of/the/container", NULL), 0);
	assert_int_equal(add_image("id1", 7, "", "/of/a/process", NULL), 0);
	expect_details(STORE_BINDS, NULL, "id1 /b=/2:0\nid1 /a=/1:3\n");
	expect_details(STORE_LOWERS, NULL, "id1 =/of/the/container:0\n");
	assert_true(back.read_write && back.from_container && !strcmp(back.dst, "/1"));
}

static int refuse(const struct record *rec UNUSED, void *arg UNUSED)
{
	return -ECANCELED;
}

static void a_visit_can_be_ended(void **state UNUSED)
{
	assert_int_equal(add_simple("id1", "h1", NULL), 0);
	assert_int_equal(store_each(db, refuse, NULL, NULL), -ECANCELED);
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, open_store, close_store)

static void expect_cgroups(const char *first, size_t n)
{
	AUTO_STRV struct strv paths = { 0 };

	assert_int_equal(store_cgroups(db, &paths, NULL), 0);
	assert_int_equal(paths.n_items, n);
	if (n)
		assert_string_equal(paths.items[0], first);
}

static void paths_of_cgroups_replace_those_of_before(void **state)
{
	AUTO_STRV struct strv old = { 0 }, new = { 0 };
	const struct strv none = { 0 };

	strv_add(&old, "/sys/fs/cgroup/memory/cloche-1");
	strv_add(&old, "/sys/fs/cgroup/cpu/cloche-1");
	strv_add(&new, "/sys/fs/cgroup/cloche-1");
	strv_add(&new, "/sys/fs/cgroup/cloche-1"); /* twice is once */
	expect_cgroups(NULL, 0);
	assert_int_equal(store_set_cgroups(db, &old, NULL), 0);
	reopen(state);
	expect_cgroups("/sys/fs/cgroup/cpu/cloche-1", 2);
	assert_int_equal(store_set_cgroups(db, &new, NULL), 0);
	expect_cgroups("/sys/fs/cgroup/cloche-1", 1);
	assert_int_equal(store_set_cgroups(db, &none, NULL), 0);
	expect_cgroups(NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(a_record_is_there_after_a_new_start_with_all_that_belongs_to_it),
		STORE_TEST(a_handle_is_taken_once_and_free_again_after_removal),
		STORE_TEST(a_record_is_added_whole_or_not_at_all),
		STORE_TEST(a_removed_record_takes_everything_with_it),
		STORE_TEST(images_and_peas_are_the_containers),
		STORE_TEST(binds_and_lowers_come_in_order),
		STORE_TEST(properties_are_set_replaced_and_removed),
		STORE_TEST(state_and_grace_time_are_changed_in_place),
		STORE_TEST(an_instance_keeps_its_name),
		STORE_TEST(a_visit_can_be_ended),
		STORE_TEST(paths_of_cgroups_replace_those_of_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

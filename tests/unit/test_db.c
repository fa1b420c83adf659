#include "db_things.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#include "alloc.h"
static void what_was_written_is_there_after_a_new_open(void **state)
{
	struct db *db = open_db(state);

	assert_int_equal(add(db, "a", 1, NULL), 0);
	db_close(db);
	db = open_db(state);
	assert_int_equal(count(db), 1);
	db_close(db);
}

static void closing_nothing_is_allowed(void **state UNUSED)
{
	db_close(NULL);
}

static int expect_values(const struct db_row *row, void *arg)
{
	static const int64_t numbers[] = { INT64_MIN, -1, 0, 1, INT64_MAX };
	int *n_rows = arg;

	assert_int_equal(db_row_int(row, 1), numbers[*n_rows]);
	if (*n_rows % 2)
		assert_null(db_row_text(row, 2));
	else
		assert_string_equal(db_row_text(row, 2), "it's \"quoted\"; \xc3\xa9");
	++*n_rows;
	return 0;
}

static void values_come_back_as_they_went_in(void **state)
{
	static const int64_t numbers[] = { INT64_MIN, -1, 0, 1, INT64_MAX };
	AUTO_DB struct db *db = open_db(state);
	int n_rows = 0;

	for (int i = 0; i < 5; i++) {
		char name[] = { (char)('a' + i), '\0' };
		const char *note = i % 2 ? NULL : "it's \"quoted\"; \xc3\xa9";

		assert_int_equal(db_change(db, NULL, "INSERT INTO thing VALUES(?, ?, ?)", "sis",
					 name, numbers[i], note),
			0);
	}
	assert_int_equal(db_each(db, expect_values, &n_rows, NULL,
				 "SELECT name, number, note FROM thing ORDER BY name", ""),
		0);
	assert_int_equal(n_rows, 5);
}

static void a_taken_name_or_number_is_exists(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };

	assert_int_equal(add(db, "a", 1, &err), 0);
	assert_int_equal(add(db, "a", 2, &err), -EEXIST);
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_non_null(strstr(err.msg, "thing.name"));
	err = (struct err){ 0 };
	assert_int_equal(add(db, "b", 1, &err), -EEXIST);
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_non_null(strstr(err.msg, "thing.number"));
	assert_int_equal(add(db, "b", 1, NULL), -EEXIST);
	assert_int_equal(count(db), 1);
}

static void other_broken_rules_and_statements_are_system_errors(void **state)
{
	static const char *const statements[] = {
		"INSERT INTO part VALUES(NULL)",
		"INSERT INTO part VALUES('no such thing')",
		"INSERT INTO thing(number) VALUES('a text')",
		"SELEC nonsense",
		"SELECT * FROM nowhere",
	};
	AUTO_DB struct db *db = open_db(state);

	for (size_t i = 0; i < N_ELEMENTS(statements); i++) {
		struct err err = { 0 };

		assert_int_equal(db_change(db, &err, statements[i], ""), -EIO);
		assert_int_equal(err.kind, ERR_SYSTEM);
		assert_non_null(strstr(err.msg, "state database: /"));
	}
	assert_int_equal(add(db, "a", 1, NULL), 0);
}

static void more_values_than_places_are_an_error(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };

	assert_int_equal(
		db_change(db, &err, "DELETE FROM thing WHERE name = ?", "si", "a", (int64_t)1),
		-EIO);
	assert_int_equal(err.kind, ERR_SYSTEM);
}

static int stop_at_second(const struct db_row *row UNUSED, void *arg)
{
	int *n_rows = arg;

	return ++*n_rows == 2 ? 42 : 0;
}

static void a_visit_ends_with_the_first_answer_that_is_not_zero(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	int n_rows = 0;

	for (int i = 0; i < 5; i++)
		assert_int_equal(add(db, (char[]){ (char)('a' + i), '\0' }, i, NULL), 0);
	assert_int_equal(db_each(db, stop_at_second, &n_rows, NULL, "SELECT * FROM thing", ""), 42);
	assert_int_equal(n_rows, 2);
	assert_int_equal(db_each(db, stop_at_second, &n_rows, NULL,
				 "SELECT * FROM thing WHERE name = ?", "s", "nobody"),
		0);
	assert_int_equal(n_rows, 2);
}

static const char by_number[] = "SELECT name FROM thing WHERE number >= ? ORDER BY number";

struct nesting {
	struct db *db;
	int depth, n_rows;
};

static int look_again(const struct db_row *row, void *arg)
{
	struct nesting *nesting = arg;
	char name[] = { (char)('a' + nesting->depth), '\0' };
	int r = 0;

	assert_string_equal(db_row_text(row, 0), name);
	nesting->n_rows++;
	if (++nesting->depth < 3)
		r = db_each(nesting->db, look_again, nesting, NULL, by_number, "i",
			(int64_t)nesting->depth);
	nesting->depth = 99;
	return r ? r : 7;
}

static void a_statement_may_be_run_within_itself(void **state)
{
	AUTO_DB struct db *db = open_db(state);

	for (int i = 0; i < 3; i++)
		assert_int_equal(add(db, (char[]){ (char)('a' + i), '\0' }, i, NULL), 0);
	for (int i = 0; i < 3; i++) {
		struct nesting nesting = { db, 0, 0 };

		assert_int_equal(
			db_each(db, look_again, &nesting, NULL, by_number, "i", (int64_t)0), 7);
		assert_int_equal(nesting.n_rows, 3);
	}
}

/* More than are kept, each twice, and what was given to one is not left for the next. */
static void any_number_of_statements_can_be_run(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	char sql[80], name[8];

	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 100; i++) {
			snprintf(sql, sizeof(sql), "INSERT INTO thing VALUES(?, %d, ?)",
				1000 * round + i);
			snprintf(name, sizeof(name), "%d-%d", round, i);
			assert_int_equal(db_change(db, NULL, sql, "ss", name, "note"), 0);
		}
	assert_int_equal(count(db), 200);
	assert_int_equal(db_change(db, NULL, "INSERT INTO thing VALUES(?, 5000, ?)", "s", "x"), 0);
	assert_int_equal(db_change(db, NULL, "DELETE FROM thing WHERE note IS NULL", ""), 0);
	assert_int_equal(count(db), 200);
}

static void a_visitor_may_be_absent(void **state)
{
	AUTO_DB struct db *db = open_db(state);

	assert_int_equal(db_change(db, NULL, "SELECT 1 UNION SELECT 2", ""), 0);
}

struct step {
	int r;
	const char *second;
};

static int add_two(struct db *db, void *arg, struct err *err)
{
	struct step *step = arg;
	int r = add(db, "a", 1, err);

	if (r == 0)
		r = add(db, step->second, 2, err);
	return r ? r : step->r;
}

static void a_transaction_is_kept_as_a_whole(void **state)
{
	AUTO_DB struct db *db = open_db(state);

	assert_int_equal(db_transaction(db, add_two, &(struct step){ 0, "b" }, NULL), 0);
	assert_int_equal(count(db), 2);
}

static void a_transaction_that_fails_leaves_nothing(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };

	assert_int_equal(db_transaction(db, add_two, &(struct step){ 0, "a" }, &err), -EEXIST);
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_int_equal(count(db), 0);
	assert_int_equal(
		db_transaction(db, add_two, &(struct step){ -ECANCELED, "b" }, &err), -ECANCELED);
	assert_int_equal(count(db), 0);
	assert_int_equal(db_transaction(db, add_two, &(struct step){ 0, "b" }, &err), 0);
	assert_int_equal(count(db), 2);
}

static int add_orphan(struct db *db, void *arg UNUSED, struct err *err)
{
	int r = add(db, "a", 1, err);

	return r ? r : db_change(db, err, "INSERT INTO part VALUES('no such thing')", "");
}

static void a_commit_that_fails_rolls_back(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };

	assert_int_equal(db_transaction(db, add_orphan, NULL, &err), -EIO);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_non_null(strstr(err.msg, "FOREIGN KEY"));
	assert_int_equal(count(db), 0);
	assert_int_equal(db_transaction(db, add_two, &(struct step){ 0, "b" }, &err), 0);
}

static int nest(struct db *db, void *arg, struct err *err)
{
	return db_transaction(db, add_two, arg, err);
}

static void a_transaction_within_another_is_refused(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };

	assert_int_equal(db_transaction(db, nest, &(struct step){ 0, "b" }, &err), -EIO);
	assert_int_equal(count(db), 0);
	assert_int_equal(db_transaction(db, add_two, &(struct step){ 0, "b" }, &err), 0);
}

static void a_full_file_is_no_space(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };

	assert_int_equal(db_change(db, &err, "PRAGMA max_page_count = 8", ""), 0);
	assert_int_equal(
		db_change(db, &err,
			"INSERT INTO thing(name, note) VALUES('a', hex(zeroblob(100000)))", ""),
		-ENOSPC);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_int_equal(add(db, "b", 1, &err), 0);
}

static void a_place_that_cannot_hold_a_file_is_an_error(void **state)
{
	struct db *db = (struct db *)state;
	struct err err = { 0 };

	assert_true(db_open(unit_path(state, "missing/state.db"), schema, &db, &err) < 0);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_ptr_equal(db, state);
	assert_true(db_open(*state, schema, &db, &err) < 0);
	assert_ptr_equal(db, state);
	assert_true(db_open(*state, schema, &db, NULL) < 0);
}

static void a_broken_schema_is_an_error(void **state)
{
	struct db *db = NULL;
	struct err err = { 0 };

	assert_int_equal(db_open(unit_path(state, "x.db"), "CREATE NONSENSE;", &db, &err), -EIO);
	assert_null(db);
	assert_non_null(strstr(err.msg, "syntax error"));
}

static void a_file_that_is_no_database_is_refused_and_left_alone(void **state)
{
	struct db *db = NULL;
	struct err err = { 0 };
	char text[8192];
	AUTO_FREE char *after = NULL;

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	unit_write_file(unit_path(state, "state.db"), text, sizeof(text));
	assert_int_equal(db_open(unit_path(state, "state.db"), schema, &db, &err), -EIO);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_null(db);
	after = unit_read_file(unit_path(state, "state.db"));
	assert_string_equal(after, text);
}

/* Overwrites everything behind the first page, as a bad disk would. */
static void spoil(void **state)
{
	AUTO_FD int fd = open(unit_path(state, "state.db"), O_WRONLY | O_CLOEXEC);
	off_t size = lseek(fd, 0, SEEK_END);

	assert_true(size > 8192);
	for (off_t at = 4096; at < size; at++)
		assert_int_equal(pwrite(fd, "\xa5", 1, at), 1);
	assert_int_equal(unlink(unit_path(state, "state.db-wal")), 0); /* it knows what was there */
}

static void a_damaged_table_is_an_error_and_no_crash(void **state)
{
	struct db *db = open_db(state);
	struct err err = { 0 };
	int n_rows = 0, r;

	for (int i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(add(db, name, i, NULL), 0);
	}
	db_close(db);
	spoil(state);
	db = NULL;
	r = db_open(unit_path(state, "state.db"), schema, &db, &err);
	if (r == 0)
		r = db_each(db, stop_at_second, &n_rows, &err, "SELECT * FROM thing", "");
	assert_int_equal(r, -EIO);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_non_null(strstr(err.msg, "malformed"));
	db_close(db);
}

#define N_THREADS 4
#define N_EACH 50

static int count_up(struct db *db, void *arg UNUSED, struct err *err)
{
	int64_t n = -1;
	int r = db_each(db, take_number, &n, err, "SELECT number FROM thing WHERE name = 'n'", "");

	if (r == 0)
		r = db_change(db, err, "UPDATE thing SET number = ? WHERE name = 'n'", "i", n + 1);
	return r;
}

static void *work(void *arg)
{
	long n_failed = 0;

	for (int i = 0; i < N_EACH; i++)
		n_failed += db_transaction(arg, count_up, NULL, NULL) != 0;
	return (void *)n_failed;
}

static void threads_take_turns(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	pthread_t threads[N_THREADS];
	int64_t n = -1;

	assert_int_equal(add(db, "n", 0, NULL), 0);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, db), 0);
	for (int i = 0; i < N_THREADS; i++) {
		void *n_failed;

		assert_int_equal(pthread_join(threads[i], &n_failed), 0);
		assert_null(n_failed);
	}
	assert_int_equal(db_each(db, take_number, &n, NULL, "SELECT number FROM thing", ""), 0);
	assert_int_equal(n, N_THREADS * N_EACH);
}

static int use(void **state)
{
	AUTO_DB struct db *db = NULL;
	int r = db_open(unit_path(state, "state.db"), schema, &db, NULL);

	if (r == 0)
		r = db_change(db, NULL, "DELETE FROM thing", "");
	if (r == 0)
		r = db_transaction(db, add_two, &(struct step){ 0, "b" }, NULL);
	return r;
}

static void whichever_allocation_fails_the_file_stays_whole(void **state)
{
	long n = 0;
	int failed;

	if (!alloc_can_fail)
		skip();
	do {
		int r;

		alloc_fail_at(++n);
		r = use(state);
		failed = alloc_has_failed();
		assert_true(r <= 0);
		if (r == 0) {
			AUTO_DB struct db *db = open_db(state);

			assert_int_equal(count(db), 2);
		} else {
			assert_true(failed);
		}
	} while (failed);
	assert_true(n > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DIR_TEST(what_was_written_is_there_after_a_new_open),
		DIR_TEST(closing_nothing_is_allowed),
		DIR_TEST(values_come_back_as_they_went_in),
		DIR_TEST(a_taken_name_or_number_is_exists),
		DIR_TEST(other_broken_rules_and_statements_are_system_errors),
		DIR_TEST(more_values_than_places_are_an_error),
		DIR_TEST(a_visit_ends_with_the_first_answer_that_is_not_zero),
		DIR_TEST(a_statement_may_be_run_within_itself),
		DIR_TEST(any_number_of_statements_can_be_run),
		DIR_TEST(a_visitor_may_be_absent),
		DIR_TEST(a_transaction_is_kept_as_a_whole),
		DIR_TEST(a_transaction_that_fails_leaves_nothing),
		DIR_TEST(a_commit_that_fails_rolls_back),
		DIR_TEST(a_transaction_within_another_is_refused),
		DIR_TEST(a_full_file_is_no_space),
		DIR_TEST(a_place_that_cannot_hold_a_file_is_an_error),
		DIR_TEST(a_broken_schema_is_an_error),
		DIR_TEST(a_file_that_is_no_database_is_refused_and_left_alone),
		DIR_TEST(a_damaged_table_is_an_error_and_no_crash),
		DIR_TEST(threads_take_turns),
		DIR_TEST(whichever_allocation_fails_the_file_stays_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

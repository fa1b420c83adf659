/* The log of the database: its room, who empties it, and a disk that does not keep it. */
#include "db_things.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a full disk does to a destroy is a test of the volumes' API. */
static void the_log_keeps_its_room(void **state)
{
	struct stat st;

	for (int i = 0; i < 2; i++) {
		struct db *db = open_db(state);

		assert_int_equal(add(db, i ? "a" : "b", i, NULL), 0);
		db_close(db);
		assert_int_equal(stat(unit_path(state, "state.db-wal"), &st), 0);
		assert_in_range(st.st_size, 131072, 400000);
		assert_int_equal(stat(unit_path(state, "state.db"), &st), 0);
		assert_in_range(st.st_size, 131072, 400000);
	}
}

#define PAGE_BYTES 4096
#define LONG_LOG 1000 /* pages */

/* In changes of fifty. */
static int add_pages(struct db *db, int n_pages)
{
	int r = 0;

	for (int i = 0; i < n_pages && r == 0; i += 50)
		r = db_change(db, NULL,
			"INSERT INTO thing(name, note) VALUES"
			" ((SELECT count(*) FROM thing), hex(zeroblob(25 * 4096)))",
			"");
	return r;
}

static int add_at_once(struct db *db, int n_pages)
{
	return db_change(db, NULL,
		"INSERT INTO thing(name, note) VALUES('a', hex(zeroblob(? * 2048)))", "i",
		(int64_t)n_pages);
}

static int64_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static void await_pages(const char *path, int n_pages)
{
	while (size_of(path) < (int64_t)n_pages * PAGE_BYTES)
		sched_yield();
}

static void a_long_log_is_emptied_while_nobody_waits(void **state)
{
	AUTO_DB struct db *db = open_db(state);

	assert_int_equal(add_pages(db, LONG_LOG / 2), 0);
	assert_true(size_of(unit_path(state, "state.db")) < LONG_LOG / 2 * PAGE_BYTES);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(add_pages(db, LONG_LOG + 200), 0);
		await_pages(unit_path(state, "state.db"), i * LONG_LOG - LONG_LOG / 2);
	}
	assert_true(size_of(unit_path(state, "state.db-wal")) < 5 * LONG_LOG * PAGE_BYTES);
}

static void whoever_makes_the_log_far_too_long_waits(void **state)
{
	AUTO_DB struct db *db = open_db(state);

	assert_int_equal(add_at_once(db, 4 * LONG_LOG + 200), 0);
	assert_true(size_of(unit_path(state, "state.db")) > 4 * LONG_LOG * PAGE_BYTES);
}

static atomic_bool is_disk_broken;

/* In place of the C library's, for sqlite too. */
int fdatasync(int fd)
{
	if (!atomic_load(&is_disk_broken))
		return (int)syscall(SYS_fdatasync, fd);
	errno = EIO;
	return -1;
}

/* n_pages in one change or many: the answer of the last one. */
static int add_on_a_broken_disk(
	struct db *db, int (*change)(struct db *db, int n_pages), int n_pages)
{
	int r;

	atomic_store(&is_disk_broken, true);
	r = change(db, n_pages);
	while (db_check(db, NULL) == 0) /* another thread empties the log */
		sched_yield();
	atomic_store(&is_disk_broken, false);
	return r;
}

static int add_one(struct db *db, void *arg UNUSED, struct err *err)
{
	return add(db, "other", 4, err);
}

static void after_a_sync_that_failed_nothing_is_changed(void **state)
{
	AUTO_DB struct db *db = open_db(state);
	struct err err = { 0 };
	int r;

	assert_int_equal(add(db, "kept", 1, NULL), 0);
	assert_int_equal(db_check(db, &err), 0);
	r = add_on_a_broken_disk(db, add_pages, LONG_LOG + 200);
	assert_true(r == 0 || r == -EROFS);
	assert_int_equal(add(db, "new", 3, &err), -EROFS);
	assert_int_equal(err.kind, ERR_SYSTEM);
	assert_non_null(strstr(err.msg, "the disk has failed to keep /"));
	assert_int_equal(db_transaction(db, add_one, NULL, &err), -EROFS);
	assert_true(count(db) > 1);
}

static void a_sync_that_fails_while_somebody_waits_is_noted(void **state)
{
	AUTO_DB struct db *db = open_db(state);

	assert_int_equal(add(db, "kept", 1, NULL), 0); /* a log that begins is synced */
	assert_int_equal(add_on_a_broken_disk(db, add_at_once, 4 * LONG_LOG + 200), 0);
	assert_int_equal(count(db), 2);
	assert_int_equal(add(db, "new", 3, NULL), -EROFS);
}

static void a_disk_that_keeps_nothing_takes_no_file(void **state)
{
	struct db *db = NULL;
	struct err err = { 0 };

	atomic_store(&is_disk_broken, true);
	assert_int_equal(db_open(unit_path(state, "state.db"), schema, &db, &err), -EIO);
	atomic_store(&is_disk_broken, false);
	assert_null(db);
	assert_non_null(strstr(err.msg, "disk I/O error"));
}

/* In a process of its own: there are no more for somebody who is not root. */
static int open_without_threads(void **state)
{
	struct rlimit none = { 0, 0 };
	struct db *db = NULL;
	struct err err = { 0 };

	if (geteuid() == 0 && (chown(*state, 65534, 65534) < 0 || setuid(65534) < 0))
		return 2;
	if (setrlimit(RLIMIT_NPROC, &none) < 0)
		return 3;
	return db_open(unit_path(state, "state.db"), schema, &db, &err) != -EAGAIN || db ||
		err.kind != ERR_SYSTEM;
}

static void without_a_thread_there_is_no_record(void **state)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(open_without_threads(state));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DIR_TEST(the_log_keeps_its_room),
		DIR_TEST(a_long_log_is_emptied_while_nobody_waits),
		DIR_TEST(whoever_makes_the_log_far_too_long_waits),
		DIR_TEST(after_a_sync_that_failed_nothing_is_changed),
		DIR_TEST(a_sync_that_fails_while_somebody_waits_is_noted),
		DIR_TEST(a_disk_that_keeps_nothing_takes_no_file),
		DIR_TEST(without_a_thread_there_is_no_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

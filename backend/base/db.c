#include "base/db.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"

#define RESERVE_BYTES 131072
#define RESERVE_PAGES 16 /* of 4 KiB, that are free in the database itself */
#define LOG_PAGES 1000 /* then what the log holds is written to the database */
#define LOG_MOST_PAGES (4 * LOG_PAGES) /* then whoever has changed something waits for that */
#define STACK_BYTES (256 * 1024)
#define MAX_KEPT 48 /* statements: compiling one takes longer than most take to run */
#define STRING_OF(number) #number
#define STRING(macro) STRING_OF(macro)

struct db {
	sqlite3 *handle;
	pthread_mutex_t lock; /* recursive: db_transaction calls back into db_change */
	sqlite3_stmt *kept[MAX_KEPT]; /* to be run again */
	int n_kept;
	sqlite3 *emptying; /* the log: the disk is slow, and nobody else needs to wait for it */
	pthread_t emptier;
	pthread_cond_t log_is_long;
	pthread_mutex_t log_lock; /* while that is written; taken after lock */
	bool has_emptier, has_long_log, is_ending;
	atomic_bool is_unsafe; /* a sync has failed */
};

struct db_row {
	sqlite3_stmt *stmt;
};

/* After what has failed on a connection. */
static void note_sync(struct db *db, sqlite3 *handle)
{
	int code = sqlite3_extended_errcode(handle);

	if (code != SQLITE_IOERR_FSYNC && code != SQLITE_IOERR_DIR_FSYNC)
		return;
	if (!atomic_exchange(&db->is_unsafe, true))
		LOG(LOG_ERROR, "record-not-synced",
			KV_STR("path", sqlite3_db_filename(handle, NULL)));
}

int db_check(struct db *db, struct err *err)
{
	return !atomic_load(&db->is_unsafe)
		? 0
		: err_set(err, ERR_SYSTEM, EROFS,
			  "state database: the disk has failed to keep %s: nothing is changed"
			  " any more until a restart",
			  sqlite3_db_filename(db->handle, NULL));
}

/* statement: its beginning will do; NULL: the file itself. */
static int fail(struct db *db, struct err *err, const char *path, const char *statement)
{
	int code = sqlite3_extended_errcode(db->handle);

	note_sync(db, db->handle);
	if (code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY)
		return err_set(
			err, ERR_EXISTS, EEXIST, "state database: %s", sqlite3_errmsg(db->handle));
	return err_set(err, ERR_SYSTEM, (code & 0xff) == SQLITE_FULL ? ENOSPC : EIO,
		"state database: %.200s: %.40s%s%s", path, statement ? statement : "",
		statement ? ": " : "", sqlite3_errmsg(db->handle));
}

static int fail_at(struct db *db, struct err *err, const char *statement)
{
	return fail(db, err, sqlite3_db_filename(db->handle, NULL), statement);
}

static void lock_init(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

static void stop_emptier(struct db *db)
{
	if (!db->has_emptier)
		return;
	pthread_mutex_lock(&db->lock);
	db->is_ending = true;
	pthread_cond_signal(&db->log_is_long);
	pthread_mutex_unlock(&db->lock);
	pthread_join(db->emptier, NULL);
}

void db_close(struct db *db)
{
	if (!db)
		return;
	stop_emptier(db);
	for (int i = 0; i < db->n_kept; i++)
		sqlite3_finalize(db->kept[i]);
	sqlite3_close_v2(db->emptying);
	sqlite3_close_v2(db->handle);
	pthread_cond_destroy(&db->log_is_long);
	pthread_mutex_destroy(&db->log_lock);
	pthread_mutex_destroy(&db->lock);
	free(db);
}

static void auto_db(struct db **db)
{
	db_close(*db);
}

/* On a full disk no file can grow, and still what frees space has to be recorded: the log stays on
 * disk and has room for some changes, and so has the database, which grows in large steps. */
static bool has_room(struct db *db, const char *log_path)
{
	sqlite3_stmt *stmt = NULL;
	int64_t n_free = 0;
	struct stat st;

	if (sqlite3_prepare_v2(db->handle, "PRAGMA freelist_count", -1, &stmt, NULL) == SQLITE_OK &&
		sqlite3_step(stmt) == SQLITE_ROW)
		n_free = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return n_free >= RESERVE_PAGES && stat(log_path, &st) == 0 && st.st_size >= RESERVE_BYTES;
}

static void keep_room(struct db *db, const char *path)
{
	AUTO_FREE char *log_path = NULL;
	int yes = 1, step_bytes = RESERVE_BYTES;

	sqlite3_file_control(db->handle, NULL, SQLITE_FCNTL_PERSIST_WAL, &yes);
	sqlite3_file_control(db->handle, NULL, SQLITE_FCNTL_CHUNK_SIZE, &step_bytes);
	if (asprintf(&log_path, "%s-wal", path) < 0)
		return;
	if (has_room(db, log_path))
		return;
	if (sqlite3_exec(db->handle,
		    "CREATE TABLE IF NOT EXISTS room (bytes BLOB);"
		    "INSERT INTO room VALUES (zeroblob(" STRING(RESERVE_BYTES) "));",
		    NULL, NULL, NULL) == SQLITE_OK)
		sqlite3_exec(db->handle, "DROP TABLE room; PRAGMA wal_checkpoint(RESTART);", NULL,
			NULL, NULL);
	note_sync(db, db->handle);
}

/* What is in the log goes to the database, and the log is written from its start again. */
static bool make_room(struct db *db)
{
	int code;

	pthread_mutex_lock(&db->log_lock);
	code = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
	if (code != SQLITE_OK)
		note_sync(db, db->handle);
	pthread_mutex_unlock(&db->log_lock);
	return code == SQLITE_OK;
}

/* ---- the log --------------------------------------------------------------------------------- */

/* Other errors mean that it gets longer, and that this is done again after the next change. */
static void empty_log(struct db *db, sqlite3 *handle)
{
	if (sqlite3_wal_checkpoint_v2(handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) !=
		SQLITE_OK)
		note_sync(db, handle);
}

/* By a connection of its own: meanwhile the other one goes on, at the end of the log. */
static void empty_log_beside(struct db *db)
{
	pthread_mutex_lock(&db->log_lock);
	empty_log(db, db->emptying);
	pthread_mutex_unlock(&db->log_lock);
}

/* Little is left when it has the lock, and that must go too: the log begins anew only when all of it
 * is written. */
static void *run_emptier(void *arg)
{
	struct db *db = arg;

	pthread_mutex_lock(&db->lock);
	while (!db->is_ending) {
		if (!db->has_long_log) {
			pthread_cond_wait(&db->log_is_long, &db->lock);
			continue;
		}
		db->has_long_log = false;
		pthread_mutex_unlock(&db->lock);
		empty_log_beside(db);
		pthread_mutex_lock(&db->lock);
		empty_log(db, db->handle);
	}
	pthread_mutex_unlock(&db->lock);
	return NULL;
}

/* What it reads makes sqlite open the log as well. */
static int start_emptier(struct db *db, const char *path, struct err *err)
{
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
	pthread_attr_t attr;
	int r;

	if (sqlite3_open_v2(path, &db->emptying, flags, NULL) ||
		sqlite3_exec(db->emptying, "PRAGMA schema_version", NULL, NULL, NULL))
		return err_set(err, ERR_SYSTEM, EIO, "state database: %.200s: %s", path,
			sqlite3_errmsg(db->emptying));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	r = -pthread_create(&db->emptier, &attr, run_emptier, db);
	pthread_attr_destroy(&attr);
	db->has_emptier = r == 0;
	return r < 0 ? err_system(err, r, "state database: thread") : 0;
}

/* Called by sqlite after each commit. Lock held. */
static int on_commit(void *arg, sqlite3 *handle, const char *name, int n_pages)
{
	struct db *db = arg;

	(void)name;
	if (n_pages >= LOG_MOST_PAGES) {
		empty_log(db, handle);
	} else if (n_pages >= LOG_PAGES) {
		db->has_long_log = true;
		pthread_cond_signal(&db->log_is_long);
	}
	return SQLITE_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

int db_open(const char *path, const char *schema, struct db **ret_db, struct err *err)
{
	static const char pragmas[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
				      "PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000;";
	struct db *db AUTO(auto_db) = calloc(1, sizeof(*db));
	int r;

	if (!db)
		return err_system(err, -ENOMEM, "state database");
	lock_init(&db->lock);
	pthread_mutex_init(&db->log_lock, NULL);
	pthread_cond_init(&db->log_is_long, NULL);
	if (sqlite3_open_v2(path, &db->handle,
		    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL))
		return fail(db, err, path, NULL);
	if (sqlite3_exec(db->handle, pragmas, NULL, NULL, NULL) ||
		sqlite3_exec(db->handle, schema, NULL, NULL, NULL))
		return fail(db, err, path, NULL);
	keep_room(db, path);
	sqlite3_db_release_memory(db->handle); /* pages of that room */
	sqlite3_wal_hook(db->handle, on_commit, db);
	r = start_emptier(db, path, err);
	if (r < 0)
		return r;
	*ret_db = TAKE_PTR(db);
	return 0;
}

static int bind_all(sqlite3_stmt *stmt, const char *types, va_list ap)
{
	int r = SQLITE_OK;

	for (int i = 0; types[i] && r == SQLITE_OK; i++)
		if (types[i] == 's')
			r = sqlite3_bind_text(
				stmt, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
		else
			r = sqlite3_bind_int64(stmt, i + 1, va_arg(ap, int64_t));
	return r;
}

static int visit_rows(struct db *db, sqlite3_stmt *stmt, db_visit *visit, void *arg,
	struct err *err, const char *sql)
{
	struct db_row row = { stmt };
	int step, r = 0;

	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		if (step != SQLITE_ROW)
			return fail_at(db, err, sql);
		r = visit ? visit(&row, arg) : 0;
	}
	return r;
}

/* One that is being run (a visit has called back) cannot be run within itself. */
static int prepare(struct db *db, const char *sql, sqlite3_stmt **ret_stmt)
{
	for (int i = 0; i < db->n_kept; i++)
		if (!strcmp(sqlite3_sql(db->kept[i]), sql) && !sqlite3_stmt_busy(db->kept[i])) {
			*ret_stmt = db->kept[i];
			return SQLITE_OK;
		}
	return sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL);
}

static bool is_kept(const struct db *db, const sqlite3_stmt *stmt)
{
	for (int i = 0; i < db->n_kept; i++)
		if (db->kept[i] == stmt)
			return true;
	return false;
}

static void keep(struct db *db, sqlite3_stmt *stmt)
{
	bool has_place = is_kept(db, stmt);

	if (stmt && !has_place && db->n_kept < MAX_KEPT) {
		db->kept[db->n_kept++] = stmt;
		has_place = true;
	}
	if (has_place) {
		sqlite3_reset(stmt);
		sqlite3_clear_bindings(stmt);
	} else {
		sqlite3_finalize(stmt);
	}
}

static int run(struct db *db, db_visit *visit, void *arg, struct err *err, const char *sql,
	const char *types, va_list ap)
{
	sqlite3_stmt *stmt = NULL;
	int r;

	pthread_mutex_lock(&db->lock);
	if (prepare(db, sql, &stmt) || bind_all(stmt, types, ap) != SQLITE_OK)
		r = fail_at(db, err, sql);
	else
		r = visit_rows(db, stmt, visit, arg, err, sql);
	keep(db, stmt);
	pthread_mutex_unlock(&db->lock);
	return r;
}

int db_change(struct db *db, struct err *err, const char *sql, const char *types, ...)
{
	bool is_alone;
	va_list ap;
	int r;

	pthread_mutex_lock(&db->lock);
	is_alone =
		sqlite3_get_autocommit(db->handle); /* a transaction that found no room is over */
	r = is_alone ? db_check(db, err) : 0;
	if (r == 0) {
		va_start(ap, types);
		r = run(db, NULL, NULL, err, sql, types, ap);
		va_end(ap);
	}
	if (r == -ENOSPC && is_alone && make_room(db)) {
		va_start(ap, types);
		r = run(db, NULL, NULL, err, sql, types, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&db->lock);
	return r;
}

int db_each(struct db *db, db_visit *visit, void *arg, struct err *err, const char *sql,
	const char *types, ...)
{
	va_list ap;
	int r;

	va_start(ap, types);
	r = run(db, visit, arg, err, sql, types, ap);
	va_end(ap);
	return r;
}

typedef int db_body(struct db *db, void *arg, struct err *err);

static int try_transaction(struct db *db, db_body *body, void *arg, struct err *err)
{
	int r = db_change(db, err, "BEGIN IMMEDIATE", "");

	if (r < 0)
		return r;
	r = body(db, arg, err);
	if (r == 0)
		r = db_change(db, err, "COMMIT", "");
	if (r < 0)
		db_change(db, NULL, "ROLLBACK", "");
	return r;
}

int db_transaction(struct db *db, int (*body)(struct db *db, void *arg, struct err *err), void *arg,
	struct err *err)
{
	int r;

	pthread_mutex_lock(&db->lock);
	r = try_transaction(db, body, arg, err);
	if (r == -ENOSPC && make_room(db))
		r = try_transaction(db, body, arg, err);
	pthread_mutex_unlock(&db->lock);
	return r;
}

const char *db_row_text(const struct db_row *row, int column)
{
	return (const char *)sqlite3_column_text(row->stmt, column);
}

int64_t db_row_int(const struct db_row *row, int column)
{
	return sqlite3_column_int64(row->stmt, column);
}

/* db.h - one sqlite database: the record of what exists. WAL, synchronous=NORMAL (design.md 11: a
 * power cut ends the containers anyway). Threads: any; one connection behind one mutex, held per
 * call, or for the length of a db_transaction; what the log holds is written to the database by a
 * thread of its own, so that callers do not wait for the disk. Arguments are bound by a type string: s text (NULL
 * allowed), i int64_t. The only user of sqlite. */
#pragma once
#include <stdint.h>

struct db;
struct db_row;
struct err;

/* Opens or makes the file and runs schema (idempotent statements). *ret_db is set on success only.
 */
int db_open(const char *path, const char *schema, struct db **ret_db, struct err *err);
void db_close(struct db *db); /* NULL is allowed */

/* 0, or -EROFS (ERR_SYSTEM) once a sync of the file has failed: what was written may be lost, and that the next sync succeeds
 * means nothing (fsync(2), EIO). Nothing is changed from then on; the next db_open begins anew. */
int db_check(struct db *db, struct err *err);

/* One statement that returns no rows. -EEXIST (ERR_EXISTS) for a broken UNIQUE, else ERR_SYSTEM. */
int db_change(struct db *db, struct err *err, const char *sql, const char *types, ...);

/* Calls visit for each row until it returns other than 0, which is returned. */
typedef int db_visit(const struct db_row *row, void *arg);
int db_each(struct db *db, db_visit *visit, void *arg, struct err *err, const char *sql,
	const char *types, ...);

/* All or nothing: rolled back if body returns a negative errno, which is returned. On a full disk body
 * may be called a second time, after room was made. */
int db_transaction(struct db *db, int (*body)(struct db *db, void *arg, struct err *err), void *arg,
	struct err *err);

const char *db_row_text(const struct db_row *row, int column); /* valid in visit; NULL for NULL */
int64_t db_row_int(const struct db_row *row, int column);

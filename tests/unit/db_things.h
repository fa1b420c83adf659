/* db_things.h - a database of things and their parts, for tests of base/db.h. */
#pragma once
#include "unit.h"

#include "base/auto.h"
#include "base/db.h"
#include "base/err.h"

static const char schema[] = "CREATE TABLE IF NOT EXISTS thing("
			     "name TEXT PRIMARY KEY, number INTEGER UNIQUE, note TEXT) STRICT;"
			     "CREATE TABLE IF NOT EXISTS part(thing TEXT NOT NULL "
			     "REFERENCES thing(name) DEFERRABLE INITIALLY DEFERRED) STRICT;";

static inline void auto_db(struct db **db)
{
	db_close(*db);
}
#define AUTO_DB AUTO(auto_db)

static inline struct db *open_db(void **state)
{
	struct db *db = NULL;
	struct err err = { 0 };

	if (db_open(unit_path(state, "state.db"), schema, &db, &err))
		fail_msg("%s", err.msg);
	return db;
}

static inline int add(struct db *db, const char *name, int64_t number, struct err *err)
{
	return db_change(
		db, err, "INSERT INTO thing(name, number) VALUES(?, ?)", "si", name, number);
}

static inline int take_number(const struct db_row *row, void *arg)
{
	*(int64_t *)arg = db_row_int(row, 0);
	return 0;
}

static inline int64_t count(struct db *db)
{
	int64_t n = -1;
	struct err err = { 0 };

	if (db_each(db, take_number, &n, &err, "SELECT count(*) FROM thing", ""))
		fail_msg("%s", err.msg);
	return n;
}

#define DIR_TEST(name) cmocka_unit_test_setup_teardown(name, unit_make_dir, unit_remove_dir)

/* The record of creations that somebody will ask for later: those that are at work or made, those
 * that failed, and those that were cancelled while they were at work. */
#include <errno.h>

#include "base/db.h"
#include "base/err.h"
#include "volumes/volumes_internal.h"

/* Who is to blame, as far as answers differ by it: the kinds' numbers are not for keeping. */
enum blame { BLAME_US, BLAME_PARENT, BLAME_REQUEST };

static enum blame blame_of(enum err_kind kind)
{
	return kind == ERR_NOT_FOUND      ? BLAME_PARENT
		: kind == ERR_BAD_REQUEST ? BLAME_REQUEST
					  : BLAME_US;
}

static enum err_kind kind_of(int64_t blame)
{
	return blame == BLAME_PARENT     ? ERR_NOT_FOUND
		: blame == BLAME_REQUEST ? ERR_BAD_REQUEST
					 : ERR_SYSTEM;
}

static int copy_id(const struct db_row *row, void *arg)
{
	*(int64_t *)arg = db_row_int(row, 0);
	return 0;
}

int record_add_future(
	struct volumes *volumes, const struct volume_spec *spec, int64_t *ret_id, struct err *err)
{
	return db_each(volumes->db, copy_id, ret_id, err,
		"INSERT INTO futures (handle, state, after, uid, gid, blame, code, text)"
		" VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM volumes),"
		" CASE WHEN ?3 THEN ?4 END, CASE WHEN ?5 THEN ?6 END, 0, 0, '') RETURNING id",
		"siiiii", spec->handle, (int64_t)FUTURE_PENDING, (int64_t)spec->has_uid, spec->uid,
		(int64_t)spec->has_gid, spec->gid);
}

int record_future_failed(
	struct volumes *volumes, int64_t id, const struct err *failure, struct err *err)
{
	return db_change(volumes->db, err,
		"UPDATE futures SET state = ?, blame = ?, code = ?, text = ?"
		" WHERE id = ? AND state = ?",
		"iiisii", (int64_t)FUTURE_FAILED, (int64_t)blame_of(failure->kind),
		(int64_t)failure->code, failure->msg, id, (int64_t)FUTURE_PENDING);
}

int record_future_cancelled(struct volumes *volumes, int64_t id, struct err *err)
{
	return db_change(volumes->db, err, "UPDATE futures SET state = ? WHERE id = ?", "ii",
		(int64_t)FUTURE_CANCELLED, id);
}

int record_remove_future(struct volumes *volumes, int64_t id, struct err *err)
{
	return db_change(volumes->db, err, "DELETE FROM futures WHERE id = ?", "i", id);
}

struct visitor {
	int (*visit)(const struct future_row *row, void *arg);
	void *arg;
};

static int visit_row(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;
	struct future_row future = { .id = db_row_int(row, 0),
		.handle = db_row_text(row, 1),
		.state = (enum future_state)db_row_int(row, 2),
		.after = db_row_int(row, 3),
		.has_uid = db_row_text(row, 4) != NULL,
		.uid = db_row_int(row, 4),
		.has_gid = db_row_text(row, 5) != NULL,
		.gid = db_row_int(row, 5) };
	int64_t code = db_row_int(row, 7);

	if (future.state == FUTURE_FAILED)
		err_set(&future.failure, kind_of(db_row_int(row, 6)),
			code > 0 && code < 4096 ? (int)code : EIO, "%s", db_row_text(row, 8));
	return visitor->visit(&future, visitor->arg);
}

int record_each_future(struct volumes *volumes,
	int (*visit)(const struct future_row *row, void *arg), void *arg, struct err *err)
{
	struct visitor visitor = { visit, arg };

	return db_each(volumes->db, visit_row, &visitor, err,
		"SELECT id, handle, state, after, uid, gid, blame, code, text FROM futures ORDER BY id",
		"");
}

#include "base/db.h"
#include "base/err.h"
#include "base/registry.h"
#include "volumes/volumes_internal.h"

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
	"INSERT OR IGNORE INTO meta VALUES ('schema', '1');"
	"CREATE TABLE IF NOT EXISTS volumes (id INTEGER PRIMARY KEY AUTOINCREMENT, handle TEXT NOT NULL,"
	" state INTEGER NOT NULL, privileged INTEGER NOT NULL, has_properties INTEGER NOT NULL) STRICT;"
	"CREATE INDEX IF NOT EXISTS volumes_by_handle ON volumes (handle);"
	"CREATE TABLE IF NOT EXISTS properties ("
	" volume INTEGER NOT NULL REFERENCES volumes(id) ON DELETE CASCADE,"
	" key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (volume, key)) STRICT;"
	/* moved_from: the volume whose top it was, until the tree is in its place */
	"CREATE TABLE IF NOT EXISTS layers (id INTEGER PRIMARY KEY AUTOINCREMENT,"
	" moved_from INTEGER NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS volume_layers ("
	" volume INTEGER NOT NULL REFERENCES volumes(id) ON DELETE CASCADE,"
	" position INTEGER NOT NULL, layer INTEGER NOT NULL REFERENCES layers(id),"
	" PRIMARY KEY (volume, position)) STRICT;"
	"CREATE INDEX IF NOT EXISTS users_of_layers ON volume_layers (layer);"
	"CREATE TABLE IF NOT EXISTS attachments ("
	" volume INTEGER NOT NULL REFERENCES volumes(id) ON DELETE CASCADE,"
	" container TEXT NOT NULL, flags INTEGER NOT NULL, is_stale INTEGER NOT NULL,"
	" PRIMARY KEY (volume, container)) STRICT;"
	/* after: the last volume there was when it was asked for */
	"CREATE TABLE IF NOT EXISTS futures (id INTEGER PRIMARY KEY AUTOINCREMENT,"
	" handle TEXT NOT NULL, state INTEGER NOT NULL, after INTEGER NOT NULL,"
	" uid INTEGER, gid INTEGER, blame INTEGER NOT NULL, code INTEGER NOT NULL,"
	" text TEXT NOT NULL) STRICT;";

int record_open(const char *path, struct db **ret_db, struct err *err)
{
	return db_open(path, schema, ret_db, err);
}

static int copy_id(const struct db_row *row, void *arg)
{
	*(int64_t *)arg = db_row_int(row, 0);
	return 0;
}

static int new_id(struct db *db, int64_t *ret_id, struct err *err)
{
	return db_each(db, copy_id, ret_id, err, "SELECT last_insert_rowid()", "");
}

struct addition {
	struct db *db;
	struct volume *volume;
	struct err *err;
};

static int add_property(const char *key, void *value, void *arg)
{
	struct addition *add = arg;

	return db_change(add->db, add->err, "INSERT INTO properties VALUES (?, ?, ?)", "iss",
		add->volume->id, key, (const char *)value);
}

static int add_layers(struct db *db, const struct volume *volume, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < volume->n_layers && r == 0; i++)
		r = db_change(db, err, "INSERT INTO volume_layers VALUES (?, ?, ?)", "iii",
			volume->id, (int64_t)i, volume->layers[i]->id);
	return r;
}

static int add_volume(struct db *db, struct volume *volume, struct err *err)
{
	struct addition add = { db, volume, err };
	int r = db_change(db, err, "UPDATE volumes SET state = ? WHERE handle = ? AND state = ?",
		"isi", (int64_t)RECORD_LOST, volume->handle, (int64_t)RECORD_LIVE);

	if (r < 0)
		return r;
	r = db_change(db, err,
		"INSERT INTO volumes (handle, state, privileged, has_properties) VALUES (?, ?, ?, ?)",
		"siii", volume->handle, (int64_t)RECORD_MAKING, (int64_t)volume->privileged,
		(int64_t)(volume->properties != NULL));

	if (r == 0)
		r = new_id(db, &volume->id, err);
	if (r == 0 && volume->properties)
		r = registry_each(volume->properties, add_property, &add);
	return r < 0 ? r : add_layers(db, volume, err);
}

struct volume_addition {
	struct volume *volume;
	const struct volume_client *client;
};

/* What the client has to say comes first: it is older than the volume. */
static int add_for_client(struct db *db, void *arg, struct err *err)
{
	const struct volume_addition *add = arg;
	int r = add->client && add->client->record ? add->client->record(add->client->arg, err) : 0;

	return r < 0 ? r : add_volume(db, add->volume, err);
}

int record_add(struct volumes *volumes, struct volume *volume, struct volume_client *client,
	struct err *err)
{
	struct volume_addition add = { volume, client };
	int r = db_transaction(volumes->db, add_for_client, &add, err);

	if (r < 0)
		volume->id = 0; /* somebody else may get it now */
	else if (client)
		client->is_recorded = true;
	return r;
}

struct all_notes {
	const struct notes *made, *moved;
};

static int write_notes(struct db *db, void *arg, struct err *err)
{
	const struct all_notes *all = arg;
	int r = 0;

	for (size_t i = 0; i < all->made->n && r == 0; i++)
		r = db_change(db, err, "UPDATE volumes SET state = ? WHERE id = ? AND state = ?",
			"iii", (int64_t)RECORD_LIVE, all->made->ids[i], (int64_t)RECORD_MAKING);
	for (size_t i = 0; i < all->moved->n && r == 0; i++)
		r = db_change(db, err, "UPDATE layers SET moved_from = 0 WHERE id = ?", "i",
			all->moved->ids[i]);
	return r;
}

int record_notes(struct volumes *volumes, const struct notes *made, const struct notes *moved,
	struct err *err)
{
	struct all_notes all = { made, moved };

	return db_transaction(volumes->db, write_notes, &all, err);
}

int record_set_state(struct volume *volume, enum record_state state, struct err *err)
{
	return db_change(volume->owner->db, err, "UPDATE volumes SET state = ? WHERE id = ?", "ii",
		(int64_t)state, volume->id);
}

int record_set_privileged(struct volume *volume, bool privileged, struct err *err)
{
	return db_change(volume->owner->db, err, "UPDATE volumes SET privileged = ? WHERE id = ?",
		"ii", (int64_t)privileged, volume->id);
}

struct property_change {
	const struct volume *volume;
	const char *key, *value;
};

static int change_property(struct db *db, void *arg, struct err *err)
{
	const struct property_change *change = arg;
	int r = db_change(db, err, "UPDATE volumes SET has_properties = 1 WHERE id = ?", "i",
		change->volume->id);

	return r < 0 ? r
		     : db_change(db, err, "INSERT OR REPLACE INTO properties VALUES (?, ?, ?)",
			       "iss", change->volume->id, change->key, change->value);
}

int record_set_property(struct volume *volume, const char *key, const char *value, struct err *err)
{
	struct property_change change = { volume, key, value };

	return db_transaction(volume->owner->db, change_property, &change, err);
}

struct batch {
	struct volume *const *volumes;
	size_t n;
};

static int set_dead(struct db *db, void *arg, struct err *err)
{
	const struct batch *batch = arg;
	int r = 0;

	for (size_t i = 0; i < batch->n && r == 0; i++)
		r = db_change(db, err, "UPDATE volumes SET state = ? WHERE id = ?", "ii",
			(int64_t)RECORD_DEAD, batch->volumes[i]->id);
	return r;
}

int record_set_dead(struct volumes *volumes, struct volume *const list[], size_t n, struct err *err)
{
	struct batch batch = { list, n };

	return db_transaction(volumes->db, set_dead, &batch, err);
}

static int remove_all(struct db *db, void *arg, struct err *err)
{
	const struct batch *batch = arg;
	int r = 0;

	for (size_t i = 0; i < batch->n && r == 0; i++)
		if (batch->volumes[i]->id)
			r = db_change(db, err, "DELETE FROM volumes WHERE id = ?", "i",
				batch->volumes[i]->id);
	return r;
}

int record_remove(struct volumes *volumes, struct volume *const list[], size_t n, struct err *err)
{
	struct batch batch = { list, n };

	return db_transaction(volumes->db, remove_all, &batch, err);
}

/* ---- layers ---------------------------------------------------------------------------------- */

struct layer_addition {
	struct volume *volume;
	int64_t id;
};

/* The new one is the uppermost: the others move down, from the lowest on, so that no two have one
 * position. */
static int add_layer(struct db *db, void *arg, struct err *err)
{
	struct layer_addition *add = arg;
	int r = db_change(
		db, err, "INSERT INTO layers (moved_from) VALUES (?)", "i", add->volume->id);

	if (r == 0)
		r = new_id(db, &add->id, err);
	for (int64_t i = add->volume->n_layers; i > 0 && r == 0; i--)
		r = db_change(db, err,
			"UPDATE volume_layers SET position = ? WHERE volume = ? AND position = ?",
			"iii", i, add->volume->id, i - 1);
	return r < 0 ? r
		     : db_change(db, err, "INSERT INTO volume_layers VALUES (?, 0, ?)", "ii",
			       add->volume->id, add->id);
}

int record_add_layer(struct volume *volume, int64_t *ret_layer, struct err *err)
{
	struct layer_addition add = { .volume = volume };
	int r = db_transaction(volume->owner->db, add_layer, &add, err);

	*ret_layer = add.id;
	return r;
}

/* Its volume does not count it any more. */
static int take_layer(struct db *db, void *arg, struct err *err)
{
	struct layer_addition *taken = arg;
	int r = db_change(db, err, "DELETE FROM volume_layers WHERE layer = ?", "i", taken->id);

	for (int64_t i = 0; i < taken->volume->n_layers && r == 0; i++)
		r = db_change(db, err,
			"UPDATE volume_layers SET position = ? WHERE volume = ? AND position = ?",
			"iii", i, taken->volume->id, i + 1);
	return r < 0 ? r : db_change(db, err, "DELETE FROM layers WHERE id = ?", "i", taken->id);
}

int record_take_layer(struct volume *volume, int64_t layer, struct err *err)
{
	struct layer_addition taken = { volume, layer };

	return db_transaction(volume->owner->db, take_layer, &taken, err);
}

int record_add_found_layer(struct volumes *volumes, int64_t layer, struct err *err)
{
	return db_change(volumes->db, err, "INSERT OR IGNORE INTO layers VALUES (?, ?)", "ii",
		layer, (int64_t)LAYER_FOUND);
}

int record_remove_layer(struct volumes *volumes, int64_t layer, struct err *err)
{
	return db_change(volumes->db, err, "DELETE FROM layers WHERE id = ?", "i", layer);
}

/* ---- attachments ----------------------------------------------------------------------------- */

int record_attach(struct volumes *volumes, int64_t volume, const char *container, unsigned flags,
	struct err *err)
{
	return db_change(volumes->db, err,
		"INSERT INTO attachments VALUES (?, ?, ?, 0)"
		" ON CONFLICT (volume, container) DO UPDATE SET flags = excluded.flags",
		"isi", volume, container, (int64_t)flags);
}

int record_set_stale(struct volumes *volumes, int64_t volume, struct err *err)
{
	return db_change(volumes->db, err, "UPDATE attachments SET is_stale = 1 WHERE volume = ?",
		"i", volume);
}

int record_set_fresh(struct volumes *volumes, const char *container, struct err *err)
{
	return db_change(volumes->db, err,
		"UPDATE attachments SET is_stale = 0 WHERE container = ?", "s", container);
}

int record_detach(struct volumes *volumes, const char *container, struct err *err)
{
	return db_change(
		volumes->db, err, "DELETE FROM attachments WHERE container = ?", "s", container);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct visitor {
	union {
		int (*volume)(const struct volume_row *row, void *arg);
		int (*property)(const char *key, const char *value, void *arg);
		int (*number)(int64_t layer, void *arg);
		int (*layer)(int64_t layer, int64_t from, int64_t n_users, void *arg);
		int (*attachment)(int64_t volume, const char *container, unsigned flags,
			bool is_stale, void *arg);
	} visit;
	void *arg;
};

static int visit_volume(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;
	struct volume_row volume = { .id = db_row_int(row, 0),
		.handle = db_row_text(row, 1),
		.state = (enum record_state)db_row_int(row, 2),
		.privileged = db_row_int(row, 3),
		.has_properties = db_row_int(row, 4) };

	return visitor->visit.volume(&volume, visitor->arg);
}

int record_each_volume(struct volumes *volumes,
	int (*visit)(const struct volume_row *row, void *arg), void *arg, struct err *err)
{
	struct visitor visitor = { .visit.volume = visit, .arg = arg };

	return db_each(volumes->db, visit_volume, &visitor, err,
		"SELECT id, handle, state, privileged, has_properties FROM volumes WHERE state != 3 ORDER BY id",
		"");
}

static int visit_property(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;

	return visitor->visit.property(db_row_text(row, 0), db_row_text(row, 1), visitor->arg);
}

int record_each_property(struct volumes *volumes, int64_t volume,
	int (*visit)(const char *key, const char *value, void *arg), void *arg, struct err *err)
{
	struct visitor visitor = { .visit.property = visit, .arg = arg };

	return db_each(volumes->db, visit_property, &visitor, err,
		"SELECT key, value FROM properties WHERE volume = ? ORDER BY key", "i", volume);
}

static int visit_number(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;

	return visitor->visit.number(db_row_int(row, 0), visitor->arg);
}

int record_each_layer_of(struct volumes *volumes, int64_t volume,
	int (*visit)(int64_t layer, void *arg), void *arg, struct err *err)
{
	struct visitor visitor = { .visit.number = visit, .arg = arg };

	return db_each(volumes->db, visit_number, &visitor, err,
		"SELECT layer FROM volume_layers WHERE volume = ? ORDER BY position", "i", volume);
}

static int visit_layer(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;

	return visitor->visit.layer(
		db_row_int(row, 0), db_row_int(row, 1), db_row_int(row, 2), visitor->arg);
}

int record_each_layer(struct volumes *volumes,
	int (*visit)(int64_t layer, int64_t from, int64_t n_users, void *arg), void *arg,
	struct err *err)
{
	struct visitor visitor = { .visit.layer = visit, .arg = arg };

	return db_each(volumes->db, visit_layer, &visitor, err,
		"SELECT id, moved_from, (SELECT count(*) FROM volume_layers WHERE layer = layers.id)"
		" FROM layers ORDER BY id",
		"");
}

static int visit_attachment(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;

	return visitor->visit.attachment(db_row_int(row, 0), db_row_text(row, 1),
		(unsigned)db_row_int(row, 2), db_row_int(row, 3), visitor->arg);
}

int record_each_attachment(struct volumes *volumes,
	int (*visit)(
		int64_t volume, const char *container, unsigned flags, bool is_stale, void *arg),
	void *arg, struct err *err)
{
	struct visitor visitor = { .visit.attachment = visit, .arg = arg };

	return db_each(volumes->db, visit_attachment, &visitor, err,
		"SELECT volume, container, flags, is_stale FROM attachments", "");
}

#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/strv.h"
#include "resource_limits.h"
#include "spec.h"

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS containers ("
	" id TEXT PRIMARY KEY, handle TEXT NOT NULL UNIQUE, nonce TEXT NOT NULL, boot_id TEXT NOT NULL,"
	" id_base INTEGER NOT NULL, state INTEGER NOT NULL, privileged INTEGER NOT NULL,"
	" grace_ns INTEGER NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS cgroups (path TEXT PRIMARY KEY) STRICT;"
	"CREATE TABLE IF NOT EXISTS env ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" position INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (container, position)) STRICT;"
	"CREATE TABLE IF NOT EXISTS binds ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" position INTEGER NOT NULL, src TEXT NOT NULL, dst TEXT NOT NULL,"
	" read_write INTEGER NOT NULL, PRIMARY KEY (container, position)) STRICT;"
	"CREATE TABLE IF NOT EXISTS properties ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (container, key)) STRICT;"
	"CREATE TABLE IF NOT EXISTS births ("
	" container TEXT PRIMARY KEY REFERENCES containers(id) ON DELETE CASCADE,"
	" clock_ms INTEGER NOT NULL, root TEXT) STRICT;"
	"CREATE TABLE IF NOT EXISTS limits ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (container, name)) STRICT;"
	/* before there is a container of the id: no reference */
	"CREATE TABLE IF NOT EXISTS addresses ("
	" container TEXT PRIMARY KEY, address INTEGER NOT NULL, gateway INTEGER NOT NULL,"
	" prefix INTEGER NOT NULL, shared INTEGER NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS ports ("
	" container TEXT NOT NULL, position INTEGER NOT NULL, host_port INTEGER NOT NULL,"
	" container_port INTEGER NOT NULL, PRIMARY KEY (container, position)) STRICT;"
	"CREATE TABLE IF NOT EXISTS rules ("
	" container TEXT NOT NULL, position INTEGER NOT NULL, rule TEXT NOT NULL,"
	" PRIMARY KEY (container, position)) STRICT;"
	"CREATE TABLE IF NOT EXISTS images ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" name TEXT NOT NULL, PRIMARY KEY (container, name)) STRICT;"
	"CREATE TABLE IF NOT EXISTS image_env ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" position INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (container, position)) STRICT;"
	"CREATE TABLE IF NOT EXISTS peas ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" token INTEGER NOT NULL, PRIMARY KEY (container, token)) STRICT;"
	"CREATE TABLE IF NOT EXISTS lowers ("
	" container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,"
	" token INTEGER NOT NULL, path TEXT NOT NULL, PRIMARY KEY (container, token)) STRICT;"
	/* nobody has written down what containers of earlier versions use */
	"INSERT OR IGNORE INTO images SELECT id, '" STORE_ANY_IMAGE "' FROM containers"
	" WHERE NOT EXISTS (SELECT 1 FROM meta WHERE key = 'images');"
	"INSERT OR IGNORE INTO meta VALUES ('images', '1');";

#define SCHEMA_VERSION 1
#define BIND_READ_WRITE 1 /* in the column of that name */
#define BIND_OF_ROOT 2

static int copy_version(const struct db_row *row, void *arg)
{
	*(int64_t *)arg = db_row_int(row, 0);
	return 0;
}

/* A database of another version is left as it is: its containers may be running. */
static int check_version(struct db *db, struct err *err)
{
	int64_t version = 0;
	int r = db_change(db, err, "INSERT OR IGNORE INTO meta VALUES ('schema', ?)", "i",
		(int64_t)SCHEMA_VERSION);

	if (r == 0)
		r = db_each(db, copy_version, &version, err,
			"SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'schema'", "");
	if (r == 0 && version != SCHEMA_VERSION)
		return err_set(err, ERR_SYSTEM, EPROTO,
			"state database: written by another version (schema %lld, this is %d)",
			(long long)version, SCHEMA_VERSION);
	return r;
}

int store_open(const char *path, struct db **ret_db, struct err *err)
{
	struct db *db;
	int r = db_open(path, schema, &db, err);

	if (r < 0)
		return r;
	r = check_version(db, err);
	if (r < 0)
		db_close(db);
	else
		*ret_db = db;
	return r;
}

static int copy_instance(const struct db_row *row, void *arg)
{
	snprintf(arg, 9, "%s", db_row_text(row, 0));
	return 0;
}

int store_instance(struct db *db, char ret_instance[9], struct err *err)
{
	int r;

	if (random_hex(ret_instance, 4) < 0)
		return err_set(err, ERR_SYSTEM, 0, "no random bytes");
	r = db_change(
		db, err, "INSERT OR IGNORE INTO meta VALUES ('instance', ?)", "s", ret_instance);
	return r < 0 ? r
		     : db_each(db, copy_instance, ret_instance, err,
			       "SELECT value FROM meta WHERE key = 'instance'", "");
}

struct addition {
	const struct record *record;
	const struct strv *env;
	const struct property *properties;
	size_t n_properties;
};

static int add(struct db *db, void *arg, struct err *err)
{
	const struct addition *add = arg;
	const struct record *record = add->record;
	int r = db_change(db, err,
		"INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO"
		" UPDATE SET handle = excluded.handle, state = excluded.state,"
		" grace_ns = excluded.grace_ns",
		"ssssiiii", record->id, record->handle, record->nonce, record->boot_id,
		record->id_base, (int64_t)record->state, (int64_t)record->privileged,
		record->grace_ns);

	for (size_t i = 0; i < add->env->n_items && r == 0; i++)
		r = db_change(db, err, "INSERT INTO env VALUES (?, ?, ?)", "sis", record->id,
			(int64_t)i, add->env->items[i]);
	for (size_t i = 0; i < record->n_binds && r == 0; i++)
		r = db_change(db, err, "INSERT INTO binds VALUES (?, ?, ?, ?, ?)", "sissi",
			record->id, (int64_t)i, record->binds[i].src, record->binds[i].dst,
			(int64_t)(record->binds[i].read_write ? BIND_READ_WRITE : 0) |
				(record->binds[i].from_container ? BIND_OF_ROOT : 0));
	if (r == 0 && record->created_ms)
		r = db_change(db, err, "INSERT INTO births VALUES (?, ?, ?)", "sis", record->id,
			record->created_ms, record->root);
	if (r == 0 && record->limits)
		r = limits_store(db, record->id, record->limits, err);
	for (size_t i = 0; i < add->n_properties && r == 0; i++)
		r = store_set_property(
			db, record->id, add->properties[i].key, add->properties[i].value, err);
	return r;
}

int store_add(struct db *db, const struct record *record, const struct strv *env,
	const struct property *properties, size_t n_properties, struct err *err)
{
	struct addition addition = { record, env, properties, n_properties };

	return db_transaction(db, add, &addition, err);
}

int store_set_state(struct db *db, const char *id, int state, struct err *err)
{
	return db_change(
		db, err, "UPDATE containers SET state = ? WHERE id = ?", "is", (int64_t)state, id);
}

int store_set_grace(struct db *db, const char *id, int64_t grace_ns, struct err *err)
{
	return db_change(
		db, err, "UPDATE containers SET grace_ns = ? WHERE id = ?", "is", grace_ns, id);
}

int store_set_property(
	struct db *db, const char *id, const char *key, const char *value, struct err *err)
{
	return db_change(db, err, "INSERT OR REPLACE INTO properties VALUES (?, ?, ?)", "sss", id,
		key, value);
}

int store_remove_property(struct db *db, const char *id, const char *key, struct err *err)
{
	return db_change(
		db, err, "DELETE FROM properties WHERE container = ? AND key = ?", "ss", id, key);
}

int store_remove(struct db *db, const char *id, struct err *err)
{
	return db_change(db, err, "DELETE FROM containers WHERE id = ?", "s", id);
}

struct addition_of_image {
	const char *id;
	uint32_t token;
	const struct store_image *image;
};

static int add_image(struct db *db, void *arg, struct err *err)
{
	const struct addition_of_image *add = arg;
	const struct store_image *image = add->image;
	int r = *image->name ? db_change(db, err, "INSERT OR IGNORE INTO images VALUES (?, ?)",
				       "ss", add->id, image->name)
			     : 0;

	if (image->lower && r == 0)
		r = db_change(db, err, "INSERT OR REPLACE INTO lowers VALUES (?, ?, ?)", "sis",
			add->id, (int64_t)add->token, image->lower);
	for (size_t i = 0; image->env && i < image->env->n_items && r == 0; i++)
		r = db_change(db, err, "INSERT INTO image_env VALUES (?, ?, ?)", "sis", add->id,
			(int64_t)i, image->env->items[i]);
	return r;
}

int store_add_image(struct db *db, const char *id, uint32_t token, const struct store_image *image,
	struct err *err)
{
	struct addition_of_image add = { id, token, image };

	return *image->name || image->lower || (image->env && image->env->n_items)
		? db_transaction(db, add_image, &add, err)
		: 0;
}

struct visitor {
	int (*record)(const struct record *record, void *arg);
	int (*detail)(const struct detail *detail, void *arg);
	int (*token)(uint32_t token, void *arg);
	void *arg;
};

static int visit_record(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;
	struct record record = { .id = db_row_text(row, 0),
		.handle = db_row_text(row, 1),
		.nonce = db_row_text(row, 2),
		.boot_id = db_row_text(row, 3),
		.id_base = db_row_int(row, 4),
		.state = (int)db_row_int(row, 5),
		.privileged = (int)db_row_int(row, 6),
		.grace_ns = db_row_int(row, 7),
		.created_ms = db_row_int(row, 8),
		.root = db_row_text(row, 9) };

	return visitor->record(&record, visitor->arg);
}

int store_each(struct db *db, int (*visit)(const struct record *record, void *arg), void *arg,
	struct err *err)
{
	struct visitor visitor = { .record = visit, .arg = arg };

	return db_each(db, visit_record, &visitor, err,
		"SELECT id, handle, nonce, boot_id, id_base, state, privileged, grace_ns, clock_ms, root"
		" FROM containers LEFT JOIN births ON container = id ORDER BY containers.rowid",
		"");
}

static int visit_env(const struct db_row *row, void *arg)
{
	return strv_add(arg, db_row_text(row, 0));
}

int store_images(struct db *db, struct strv *ret_names, struct err *err)
{
	return db_each(db, visit_env, ret_names, err, "SELECT DISTINCT name FROM images", "");
}

int store_add_pea(struct db *db, const char *id, uint32_t token, struct err *err)
{
	return db_change(db, err, "INSERT INTO peas VALUES (?, ?)", "si", id, (int64_t)token);
}

int store_remove_pea(struct db *db, const char *id, uint32_t token, struct err *err)
{
	int r = db_change(db, err, "DELETE FROM lowers WHERE container = ? AND token = ?", "si", id,
		(int64_t)token);

	return r < 0 ? r
		     : db_change(db, err, "DELETE FROM peas WHERE container = ? AND token = ?",
			       "si", id, (int64_t)token);
}

static int copy_path(const struct db_row *row, void *arg)
{
	char **path = arg;

	*path = strdup(db_row_text(row, 0));
	return *path ? 1 : -ENOMEM;
}

int store_lower(struct db *db, const char *id, uint32_t token, char **ret_path, struct err *err)
{
	int r;

	*ret_path = NULL;
	r = db_each(db, copy_path, ret_path, err,
		"SELECT path FROM lowers WHERE container = ? AND token = ?", "si", id,
		(int64_t)token);
	return r < 0 ? r : 0;
}

static int visit_token(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;

	return visitor->token((uint32_t)db_row_int(row, 0), visitor->arg);
}

int store_peas(struct db *db, const char *id, int (*visit)(uint32_t token, void *arg), void *arg,
	struct err *err)
{
	struct visitor visitor = { .token = visit, .arg = arg };

	return db_each(db, visit_token, &visitor, err, "SELECT token FROM peas WHERE container = ?",
		"s", id);
}

static int visit_detail(const struct db_row *row, void *arg)
{
	struct visitor *visitor = arg;
	struct detail detail = { .id = db_row_text(row, 0),
		.key = db_row_text(row, 1),
		.text = db_row_text(row, 2),
		.number = db_row_int(row, 3) };

	return visitor->detail(&detail, visitor->arg);
}

int store_each_detail(struct db *db, enum store_detail which,
	int (*visit)(const struct detail *detail, void *arg), void *arg, struct err *err)
{
	static const char *const queries[N_STORE_DETAILS] = {
		[STORE_ENV] = "SELECT container, '', value, position FROM env"
			      " ORDER BY container, position",
		[STORE_IMAGE_ENV] = "SELECT container, '', value, position FROM image_env"
				    " ORDER BY container, position",
		[STORE_PROPERTIES] = "SELECT container, key, value, 0 FROM properties"
				     " ORDER BY container, key",
		[STORE_LIMITS] = "SELECT container, name, '', value FROM limits",
		[STORE_BINDS] = "SELECT container, src, dst, read_write FROM binds"
				" ORDER BY container, position",
		[STORE_LOWERS] = "SELECT container, '', path, token FROM lowers WHERE token = 0",
		[STORE_PEAS] = "SELECT container, '', '', token FROM peas",
	};
	struct visitor visitor = { .detail = visit, .arg = arg };

	return db_each(db, visit_detail, &visitor, err, queries[which], "");
}

struct bind_mount store_bind(const struct detail *detail)
{
	return (struct bind_mount){ .src = (char *)detail->key,
		.dst = (char *)detail->text,
		.read_write = detail->number & BIND_READ_WRITE,
		.from_container = detail->number & BIND_OF_ROOT };
}

int store_cgroups(struct db *db, struct strv *ret_paths, struct err *err)
{
	return db_each(db, visit_env, ret_paths, err, "SELECT path FROM cgroups ORDER BY path", "");
}

static int replace_cgroups(struct db *db, void *arg, struct err *err)
{
	const struct strv *paths = arg;
	int r = db_change(db, err, "DELETE FROM cgroups", "");

	for (size_t i = 0; i < paths->n_items && r == 0; i++)
		r = db_change(
			db, err, "INSERT OR IGNORE INTO cgroups VALUES (?)", "s", paths->items[i]);
	return r;
}

int store_set_cgroups(struct db *db, const struct strv *paths, struct err *err)
{
	return db_transaction(db, replace_cgroups, (void *)paths, err);
}

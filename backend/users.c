#include "users.h"

#include <errno.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/parse.h"
#include "linux/sys.h"

#define FILE_CAP_BYTES (1 << 20)
#define USUAL_BYTES (16 << 10) /* nearly all files: the heap need not grow */
#define LINE_CAP_BYTES 65536

/* One line of passwd or group, cut at its colons. Fields that are absent are "". */
struct line {
	char *fields[7];
	char space[LINE_CAP_BYTES];
};

static const char *next_line(const char *text, struct line *line, int n_fields)
{
	size_t n = strcspn(text, "\n");
	char *rest = line->space;
	static char nothing[1];

	if (n >= sizeof(line->space)) {
		line->space[0] = '\0'; /* too long to be sensible: matches nobody */
	} else {
		memcpy(line->space, text, n);
		line->space[n] = '\0';
	}
	for (int i = 0; i < n_fields; i++) {
		line->fields[i] = rest ? rest : nothing;
		if (rest && (rest = strchr(rest, ':')))
			*rest++ = '\0';
	}
	return text[n] ? text[n + 1] ? text + n + 1 : NULL : NULL;
}

static bool is_number(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == '\0';
}

/* "-1" and "+0" are nobody's names: some tool has taken them for numbers once. */
static bool looks_numeric(const char *text)
{
	return text[0] == '-' || text[0] == '+';
}

/* Digits are an id whatever the files say; what only looks like one is nothing. */
static int parse_id(
	const char *text, const char *what, uint32_t n_ids, uint32_t *ret_id, struct err *err)
{
	uint64_t id;

	if (parse_u64(text, n_ids - 1, &id) < 0)
		return err_set(err, ERR_INVALID, EINVAL, "%s %s: ids of this container are 0 to %u",
			what, text, n_ids - 1);
	*ret_id = (uint32_t)id;
	return 0;
}

static bool field_id(const char *text, uint32_t *ret_id)
{
	uint64_t id;

	if (parse_u64(text, UINT32_MAX - 1, &id) < 0)
		return false;
	*ret_id = (uint32_t)id;
	return true;
}

/* name, or uid if by_uid. True if found: user gets uid, gid, home; name_of gets the name. */
static bool find_passwd(const char *passwd, const char *name, bool by_uid, uint32_t uid,
	struct line *line, struct user *user, char *name_of, size_t name_bytes)
{
	for (const char *at = passwd; at && *at;) {
		uint32_t entry_uid, entry_gid;

		at = next_line(at, line, 7);
		if (!field_id(line->fields[2], &entry_uid) ||
			!field_id(line->fields[3], &entry_gid))
			continue;
		if (by_uid ? entry_uid != uid : strcmp(line->fields[0], name) != 0)
			continue;
		user->uid = entry_uid;
		user->gid = entry_gid;
		if (line->fields[5][0] == '/' && strlen(line->fields[5]) < sizeof(user->home))
			snprintf(user->home, sizeof(user->home), "%s", line->fields[5]);
		snprintf(name_of, name_bytes, "%s", line->fields[0]);
		return true;
	}
	return false;
}

static bool lists_member(const char *members, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = members; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
		if (strcspn(p, ",") == len && !memcmp(p, name, len))
			return true;
	return false;
}

static int add_supplementary(const char *group, const char *name, uint32_t n_ids, struct line *line,
	struct user *user, struct err *err)
{
	for (const char *at = group; at && *at;) {
		uint32_t gid;

		at = next_line(at, line, 4);
		if (!field_id(line->fields[2], &gid) || gid >= n_ids ||
			!lists_member(line->fields[3], name))
			continue;
		if (user->n_groups == USERS_MAX_GROUPS)
			return err_set(err, ERR_INVALID, E2BIG,
				"user %.100s: in more than %d groups", name, USERS_MAX_GROUPS);
		user->groups[user->n_groups++] = gid;
	}
	return 0;
}

static int resolve_group(const char *text, const char *group, uint32_t n_ids, struct line *line,
	uint32_t *ret_gid, struct err *err)
{
	if (is_number(text))
		return parse_id(text, "group", n_ids, ret_gid, err);
	for (const char *at = looks_numeric(text) ? NULL : group; at && *at;) {
		at = next_line(at, line, 4);
		if (!strcmp(line->fields[0], text) && field_id(line->fields[2], ret_gid))
			return 0;
	}
	return err_set(err, ERR_NOT_FOUND, ENOENT,
		"unable to find group %s: no matching entries in group file", text);
}

static int resolve_user(const char *name, const char *passwd, uint32_t n_ids, struct line *line,
	struct user *user, char *name_of, size_t name_bytes, struct err *err)
{
	bool by_uid = !*name || is_number(name);
	uint32_t uid = 0;
	int r = *name && by_uid ? parse_id(name, "user", n_ids, &uid, err) : 0;

	if (r < 0)
		return r;
	if (!looks_numeric(name) &&
		find_passwd(passwd, name, by_uid, uid, line, user, name_of, name_bytes))
		return 0;
	if (!by_uid && strcmp(name, "root"))
		return err_set(err, ERR_NOT_FOUND, ENOENT,
			"unable to find user %s: no matching entries in passwd file", name);
	user->uid = uid;
	return 0;
}

int user_resolve(const char *text, const char *passwd, const char *group, uint32_t n_ids,
	struct user *ret_user, struct err *err)
{
	AUTO_FREE struct line *line = malloc(sizeof(*line));
	char name[512], name_of[512] = "", *colon;
	int r;

	*ret_user = (struct user){ .home = "/" };
	if (!line)
		return err_system(err, -ENOMEM, "user %.100s", text);
	if (strlen(text) >= sizeof(name))
		return err_set(err, ERR_INVALID, ENAMETOOLONG, "user: longer than 511 bytes");
	snprintf(name, sizeof(name), "%s", text);
	colon = strchr(name, ':');
	if (colon)
		*colon++ = '\0';
	if (colon && (!*name || !*colon))
		return err_set(
			err, ERR_INVALID, EINVAL, "user '%.100s': half of it is missing", text);
	r = resolve_user(name, passwd, n_ids, line, ret_user, name_of, sizeof(name_of), err);
	if (r < 0)
		return r;
	if (colon)
		r = resolve_group(colon, group, n_ids, line, &ret_user->gid, err);
	else if (*name_of)
		r = add_supplementary(group, name_of, n_ids, line, ret_user, err);
	if (r == 0 && (ret_user->uid >= n_ids || ret_user->gid >= n_ids))
		return err_set(err, ERR_INVALID, EINVAL,
			"user %.100s: ids of this container are 0 to %u", text, n_ids - 1);
	return r;
}

/* NULL and 0 if there is no such file. */
static int read_file(
	int root_fd, const char *path, size_t cap_bytes, char **ret_text, struct err *err)
{
	AUTO_FREE char *space = malloc(cap_bytes);
	ssize_t n;

	*ret_text = NULL;
	if (!space)
		return err_system(err, -ENOMEM, "read %s", path);
	n = sys_read_small(root_fd, GUARD(RESOLVE) ? path : path + 1,
		GUARD(RESOLVE) ? RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS : 0, space, cap_bytes);
	if (n == -EFBIG && cap_bytes < FILE_CAP_BYTES)
		return read_file(root_fd, path, FILE_CAP_BYTES, ret_text, err);
	if (n == -ENOENT || n == -ENOTDIR)
		return 0;
	if (n < 0)
		return err_system(err, n, "read %s of the container", path);
	*ret_text = TAKE_PTR(space);
	return 0;
}

int user_lookup(
	int root_fd, const char *text, uint32_t n_ids, struct user *ret_user, struct err *err)
{
	AUTO_FREE char *passwd = NULL, *group = NULL;
	int r = read_file(root_fd, "/etc/passwd", USUAL_BYTES, &passwd, err);

	if (r == 0)
		r = read_file(root_fd, "/etc/group", USUAL_BYTES, &group, err);
	return r < 0 ? r : user_resolve(text, passwd, group, n_ids, ret_user, err);
}

#include "server/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"

/* What becomes of a value. Of aliases, offset is that of the option; of ignored and refused ones help
 * is the remark or the reason. */
enum role { OURS, ALIAS, IGNORED, REFUSED };

static const struct option_row {
	const char *name, *environment, *value, *metavar, *help;
	enum option_kind kind;
	enum role role;
	size_t offset;
} rows[] = {
#define OPT(field, option_kind, option, env, text, meta, words)                                    \
	{ .name = option,                                                                          \
		.environment = env,                                                                \
		.value = text,                                                                     \
		.metavar = meta,                                                                   \
		.help = words,                                                                     \
		.kind = OPTION_##option_kind,                                                      \
		.offset = offsetof(struct options, field) },
#include "server/options.def"
#undef OPT
#define IN_WORKER(option, text)
#define OTHER(option_kind, option, env, words, what, place)                                        \
	{ .name = option,                                                                          \
		.environment = env,                                                                \
		.value = "",                                                                       \
		.metavar = OPTION_##option_kind == OPTION_FLAG ? "" : "VALUE",                     \
		.help = words,                                                                     \
		.kind = OPTION_##option_kind,                                                      \
		.role = what,                                                                      \
		.offset = place },
#define ALIAS(field, kind, option, env)                                                            \
	OTHER(kind, option, env, "", ALIAS, offsetof(struct options, field))
#define IGNORED(kind, option, env, remark) OTHER(kind, option, env, remark, IGNORED, 0)
#define REFUSED(kind, option, env, reason) OTHER(kind, option, env, reason, REFUSED, 0)
#include "server/concourse.def"
#undef IN_WORKER
#undef ALIAS
#undef IGNORED
#undef REFUSED
};

static const struct {
	const char *name, *value;
} worker_values[] = {
#define IN_WORKER(option, text) { option, text },
#define ALIAS(field, kind, option, env)
#define IGNORED(kind, option, env, remark)
#define REFUSED(kind, option, env, reason)
#include "server/concourse.def"
};

/* The option that an alias stands for. */
static const struct option_row *option_of(const struct option_row *alias)
{
	const struct option_row *row = rows;

	while (row->role != OURS || row->offset != alias->offset)
		row++;
	return row;
}

/* ---- values ---------------------------------------------------------------------------------- */

static int64_t unit_ns(const char *unit, size_t len)
{
	static const struct {
		const char *unit;
		int64_t ns;
	} units[] = { { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 },
		{ "m", 60000000000 }, { "h", 3600000000000 } };

	for (size_t i = 0; i < N_ELEMENTS(units); i++)
		if (strlen(units[i].unit) == len && !memcmp(units[i].unit, unit, len))
			return units[i].ns;
	return 0;
}

int duration_parse(const char *text, int64_t *ret_ns)
{
	int64_t total = 0;

	if (!strcmp(text, "0")) {
		*ret_ns = 0;
		return 0;
	}
	if (!*text)
		return -EINVAL;
	while (*text) {
		size_t n_digits = strspn(text, "0123456789"), n_unit;
		char digits[20];
		uint64_t number;
		int64_t part;

		n_unit = strspn(text + n_digits, "nusmh");
		if (n_digits == 0 || n_digits >= sizeof(digits) || n_unit == 0)
			return -EINVAL;
		memcpy(digits, text, n_digits);
		digits[n_digits] = '\0';
		if (parse_u64(digits, INT64_MAX, &number) < 0 ||
			!unit_ns(text + n_digits, n_unit) ||
			__builtin_mul_overflow(
				(int64_t)number, unit_ns(text + n_digits, n_unit), &part) ||
			__builtin_add_overflow(total, part, &total))
			return -EINVAL;
		text += n_digits + n_unit;
	}
	*ret_ns = total;
	return 0;
}

static int parse_octal(const char *text, uint64_t *ret)
{
	*ret = 0;
	if (!*text || strlen(text) > 5 || text[strspn(text, "01234567")])
		return -EINVAL;
	for (; *text; text++)
		*ret = *ret << 3 | (uint64_t)(*text - '0');
	return *ret <= 0777 ? 0 : -EINVAL;
}

static int add_items(struct strv *list, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, ",");

		if (len && strv_addf(list, "%.*s", (int)len, text) < 0)
			return -ENOMEM;
		text += len + (text[len] == ',');
	}
	return 0;
}

static int set_text(char **slot, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*slot);
	*slot = copy;
	return 0;
}

static int parse_flag(const char *text, bool *ret)
{
	*ret = !strcmp(text, "true") || !strcmp(text, "1");
	return *ret || !*text || !strcmp(text, "false") || !strcmp(text, "0") ? 0 : -EINVAL;
}

static int set_value(struct options *options, const struct option_row *row, const char *text)
{
	void *slot = (char *)options + row->offset;

	switch (row->kind) {
	case OPTION_TEXT:
		return set_text(slot, text);
	case OPTION_LIST:
		return add_items(slot, text);
	case OPTION_NUMBER:
		return parse_u64(text, INT64_MAX, slot);
	case OPTION_DURATION:
		return duration_parse(text, slot);
	case OPTION_FLAG:
		return parse_flag(text, slot);
	case OPTION_OCTAL:
		return parse_octal(text, slot);
	}
	return -EINVAL;
}

/* Of an option that has no value here: whether it was meant, "" and false being as good as nothing. */
static bool is_meant(const struct option_row *row, const char *text)
{
	bool is_on = true;

	return *text && (row->kind != OPTION_FLAG || parse_flag(text, &is_on) < 0 || is_on);
}

/* from: where text stood, "--name" or the name of a variable. */
static int set(struct options *options, const struct option_row *row, const char *from,
	const char *text, struct err *err)
{
	if (row->role == REFUSED && is_meant(row, text))
		return err_set(err, ERR_INVALID, EINVAL, "%s: %s", from, row->help);
	if (row->role == IGNORED && is_meant(row, text))
		return strv_addf(&options->remarks, "%s has no effect: %s", from, row->help);
	if (row->role == IGNORED || row->role == REFUSED || set_value(options, row, text) >= 0)
		return 0;
	if (row->role == ALIAS)
		row = option_of(row);
	return err_set(err, ERR_INVALID, EINVAL, "%s '%s': expected %s", from, text,
		*row->metavar ? row->metavar : "true or false");
}

/* ---- sources --------------------------------------------------------------------------------- */

static const char *lookup(char **env, const char *name)
{
	size_t len = strlen(name);

	for (; *env; env++)
		if (!strncmp(*env, name, len) && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}

static const char *default_of(const struct options *options, const struct option_row *row)
{
	for (size_t i = 0; options->is_worker && i < N_ELEMENTS(worker_values); i++)
		if (!strcmp(worker_values[i].name, row->name))
			return worker_values[i].value;
	return row->value;
}

/* Other names first: an option's own is over them. */
static int set_defaults(struct options *options, char **env, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(rows) && r == 0; i++)
		if (rows[i].role == OURS)
			r = set(options, &rows[i], rows[i].name, default_of(options, &rows[i]),
				err);
	for (size_t i = N_ELEMENTS(rows); i-- > 0 && r == 0;) {
		const char *text = *rows[i].environment ? lookup(env, rows[i].environment) : NULL;

		if (text)
			r = set(options, &rows[i], rows[i].environment, text, err);
	}
	return r;
}

static bool is_known(const char *variable, size_t len)
{
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (strlen(rows[i].environment) == len &&
			!strncmp(rows[i].environment, variable, len))
			return true;
	return false;
}

/* A variable that nobody reads is a misspelt one, or a setting of a worker that is gone: it is named.
 * No reason to stop: those that would be missed are refused by name, and a file of variables is often
 * shared with web. */
static int note_unknown(struct options *options, char **env)
{
	static const char *const families[] = { "CONCOURSE_GARDEN_", "CONCOURSE_CONTAINERD_",
		"CONCOURSE_BAGGAGECLAIM_", "CONCOURSE_HEALTHCHECK_" };
	int r = 0;

	for (; *env && r == 0; env++) {
		size_t len = strcspn(*env, "=");

		for (size_t i = 0; i < N_ELEMENTS(families) && r == 0; i++)
			if (!strncmp(*env, families[i], strlen(families[i])) &&
				!is_known(*env, len))
				r = strv_addf(&options->remarks,
					"%.*s has no effect: it is not known (cloche --help lists what is)",
					(int)len, *env);
	}
	return r;
}

static int parse_command_line(struct options *options, int argc, char **argv, struct err *err)
{
	struct option table[N_ELEMENTS(rows) + 2] = { 0 };
	char from[80];
	int i, c, r = 0;

	for (i = 0; i < (int)N_ELEMENTS(rows); i++)
		table[i] = (struct option){ .name = rows[i].name,
			.val = 256 + i,
			.has_arg = rows[i].kind == OPTION_FLAG ? optional_argument
							       : required_argument };
	table[i] = (struct option){ .name = "help", .val = 'h' };
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, ":h", table, NULL)) != -1) {
		if (c == 'h')
			return 1;
		if (c == ':')
			return err_set(err, ERR_INVALID, EINVAL, "%s: a value is missing",
				argv[optind - 1]);
		if (c < 256)
			return err_set(
				err, ERR_INVALID, EINVAL, "%s: no such option", argv[optind - 1]);
		snprintf(from, sizeof(from), "--%s", rows[c - 256].name);
		r = set(options, &rows[c - 256], from, optarg ? optarg : "true", err);
	}
	if (r == 0 && optind < argc)
		return err_set(err, ERR_INVALID, EINVAL, "%s: no such command", argv[optind]);
	return r;
}

int options_parse(struct options *ret_options, int argc, char **argv, char **env, struct err *err)
{
	int r;

	*ret_options = (struct options){ .is_worker = argc > 1 && !strcmp(argv[1], "worker") };
	r = set_defaults(ret_options, env, err);
	if (r == 0)
		r = note_unknown(ret_options, env);
	if (r == 0)
		r = parse_command_line(ret_options, argc - ret_options->is_worker,
			argv + ret_options->is_worker, err);
	return r == -ENOMEM ? err_system(err, r, "options") : r;
}

void options_done(struct options *options)
{
	strv_done(&options->remarks);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		void *slot = (char *)options + rows[i].offset;

		if (rows[i].role != OURS)
			continue;
		if (rows[i].kind == OPTION_TEXT)
			auto_free(slot);
		else if (rows[i].kind == OPTION_LIST)
			strv_done(slot);
	}
}

/* ---- words ----------------------------------------------------------------------------------- */

static void write_other_help(FILE *to, const struct option_row *row)
{
	fprintf(to, "  --%s%s%s\n      ", row->name, *row->environment ? ", " : "",
		row->environment);
	if (row->role == ALIAS)
		fprintf(to, "--%s\n", option_of(row)->name);
	else
		fprintf(to, "%s: %s\n", row->role == IGNORED ? "No effect" : "Refused", row->help);
}

void options_help(FILE *to)
{
	fputs("usage: cloche [OPTION...]\n       cloche worker [OPTION...]\n       cloche doctor [OPTION...]\n"
	      "Serves the Garden API: containers and their processes over HTTP, and the volume API. worker: joins a "
	      "Concourse cluster. doctor: says what this host lacks.\n\n",
		to);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (rows[i].role == OURS)
			fprintf(to, "  --%s%s%s\n      %s\n      %s%s%s\n", rows[i].name,
				*rows[i].metavar ? " " : "", rows[i].metavar, rows[i].help,
				rows[i].environment, *rows[i].value ? "; default " : "",
				rows[i].value);
	fputs("\n"
	      "In cloche worker other values are the default:",
		to);
	for (size_t i = 0; i < N_ELEMENTS(worker_values); i++)
		fprintf(to, " --%s=%s", worker_values[i].name, worker_values[i].value);
	fputs("\n\nOther names, from Concourse's worker and guardian:\n\n", to);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (rows[i].role != OURS)
			write_other_help(to, &rows[i]);
}

static void write_other_manual(FILE *to, const struct option_row *row)
{
	fprintf(to, "*--%s*", row->name);
	if (*row->environment)
		fprintf(to, ", _%s_", row->environment);
	if (row->role == ALIAS)
		fprintf(to, "\n\t*--%s*\n\n", option_of(row)->name);
	else
		fprintf(to, "\n\t%s: %s.\n\n", row->role == IGNORED ? "No effect" : "Refused",
			row->help);
}

void options_manual(FILE *to)
{
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (rows[i].role == OURS)
			fprintf(to, "*--%s*%s%s%s\n\t%s\n\n\tEnvironment: _%s_.%s%s%s\n\n",
				rows[i].name, *rows[i].metavar ? " _" : "", rows[i].metavar,
				*rows[i].metavar ? "_" : "", rows[i].help, rows[i].environment,
				*rows[i].value ? " Default: " : "", rows[i].value,
				*rows[i].value ? "." : "");
	fputs("In *cloche worker* other values are the default:", to);
	for (size_t i = 0; i < N_ELEMENTS(worker_values); i++)
		fprintf(to, " *--%s=%s*", worker_values[i].name, worker_values[i].value);
	fputs("\n\n# OPTIONS OF OTHER WORKERS\n\nNames that Concourse's worker and guardian have. A variable of theirs "
	      "that is not in here, or above, is named in the log, and has no effect.\n\n",
		to);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (rows[i].role != OURS)
			write_other_manual(to, &rows[i]);
}

static void write_flag(FILE *to, const struct option_row *row)
{
	const struct option_row *ours = row->role == ALIAS ? option_of(row) : row;

	fprintf(to, "| `--%s` | `%s` | ", row->name,
		*row->environment ? row->environment : ours->environment);
	if (row->role == OURS)
		fputs("the same |\n", to);
	else if (row->role == ALIAS)
		fprintf(to, "`--%s` |\n", ours->name);
	else
		fprintf(to, "%s: %s |\n", row->role == IGNORED ? "no effect" : "**refused**",
			row->help);
}

/* Of our own options: Concourse knows the variable by another name of the option. */
static bool is_ours_alone(const struct option_row *row)
{
	bool has_alias = false;

	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		has_alias |= rows[i].role == ALIAS && rows[i].offset == row->offset &&
			!*rows[i].environment;
	return row->role == OURS && (has_alias || !strncmp(row->environment, "CLOCHE_", 7));
}

void options_flags(FILE *to)
{
	fputs("| there | variable | here |\n|---|---|---|\n", to);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		if (!is_ours_alone(&rows[i]))
			write_flag(to, &rows[i]);
}

#include "server/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/parse.h"

static const struct option_row {
	const char *name, *environment, *value, *metavar, *help;
	enum option_kind kind;
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
};

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

static int set(
	struct options *options, const struct option_row *row, const char *text, struct err *err)
{
	void *slot = (char *)options + row->offset;
	int r = 0;

	switch (row->kind) {
	case OPTION_TEXT:
		r = set_text(slot, text);
		break;
	case OPTION_LIST:
		r = add_items(slot, text);
		break;
	case OPTION_NUMBER:
		r = parse_u64(text, INT64_MAX, slot);
		break;
	case OPTION_DURATION:
		r = duration_parse(text, slot);
		break;
	case OPTION_FLAG:
		r = parse_flag(text, slot);
		break;
	case OPTION_OCTAL:
		r = parse_octal(text, slot);
		break;
	}
	return r < 0 ? err_set(err, ERR_INVALID, EINVAL, "--%s '%s': expected %s", row->name, text,
			       *row->metavar ? row->metavar : "true or false")
		     : 0;
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

static int set_defaults(struct options *options, char **env, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(rows) && r == 0; i++) {
		const char *text = lookup(env, rows[i].environment);

		r = set(options, &rows[i], text ? text : rows[i].value, err);
	}
	return r;
}

static int parse_command_line(struct options *options, int argc, char **argv, struct err *err)
{
	struct option table[N_ELEMENTS(rows) + 2] = { 0 };
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
		r = set(options, &rows[c - 256], optarg ? optarg : "true", err);
	}
	if (r == 0 && optind < argc)
		return err_set(err, ERR_INVALID, EINVAL, "%s: no such command", argv[optind]);
	return r;
}

int options_parse(struct options *ret_options, int argc, char **argv, char **env, struct err *err)
{
	int r;

	*ret_options = (struct options){ 0 };
	r = set_defaults(ret_options, env, err);
	return r < 0 ? r : parse_command_line(ret_options, argc, argv, err);
}

void options_done(struct options *options)
{
	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		void *slot = (char *)options + rows[i].offset;

		if (rows[i].kind == OPTION_TEXT)
			auto_free(slot);
		else if (rows[i].kind == OPTION_LIST)
			strv_done(slot);
	}
}

/* ---- words ----------------------------------------------------------------------------------- */

void options_help(FILE *to)
{
	fputs("usage: cloche [OPTION...]\n       cloche doctor [OPTION...]\nServes the Garden API: containers and their processes over HTTP. "
	      "doctor: says what this host lacks.\n\n",
		to);
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		fprintf(to, "  --%s%s%s\n      %s\n      %s%s%s%s\n", rows[i].name,
			*rows[i].metavar ? " " : "", rows[i].metavar, rows[i].help,
			rows[i].environment, *rows[i].value ? "; default " : "", rows[i].value, "");
}

void options_manual(FILE *to)
{
	for (size_t i = 0; i < N_ELEMENTS(rows); i++)
		fprintf(to, "*--%s*%s%s%s\n\t%s\n\n\tEnvironment: _%s_.%s%s%s\n\n", rows[i].name,
			*rows[i].metavar ? " _" : "", rows[i].metavar, *rows[i].metavar ? "_" : "",
			rows[i].help, rows[i].environment, *rows[i].value ? " Default: " : "",
			rows[i].value, *rows[i].value ? "." : "");
}

/* options.h - server/options.def and concourse.def as a parser: command line over environment over
 * defaults. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/strv.h"

struct err;

enum option_kind {
	OPTION_TEXT,
	OPTION_LIST,
	OPTION_NUMBER,
	OPTION_DURATION,
	OPTION_FLAG,
	OPTION_OCTAL
};

#define OPTION_TYPE_TEXT char *
#define OPTION_TYPE_LIST struct strv
#define OPTION_TYPE_NUMBER uint64_t
#define OPTION_TYPE_DURATION int64_t /* nanoseconds */
#define OPTION_TYPE_FLAG bool
#define OPTION_TYPE_OCTAL uint64_t

struct options {
	bool is_worker; /* the first argument was "worker" */
	struct strv remarks; /* of options that have no effect: lines for the log */
#define OPT(field, kind, name, environment, value, metavar, help) OPTION_TYPE_##kind field;
#include "server/options.def"
#undef OPT
};

/* env is the process's environment. -EINVAL names the option and what is wrong; 1: help was asked
 * for. */
int options_parse(struct options *ret_options, int argc, char **argv, char **env, struct err *err);
void options_done(struct options *options);

void options_help(FILE *to);
/* The options' part of cloche(8), as scdoc source. */
void options_manual(FILE *to);
/* What becomes of each option of Concourse's worker, as a table in Markdown: packaging/flags.md. */
void options_flags(FILE *to);

/* "300ms", "10s", "5m", "1h30m", "0". 0 or -EINVAL. */
int duration_parse(const char *text, int64_t *ret_ns);

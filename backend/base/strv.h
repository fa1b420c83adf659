/* strv.h - a growing list of owned strings, NULL-terminated like argv. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct strv {
	char **items; /* NULL while empty, else n_items pointers and a NULL */
	size_t n_items;
};

void strv_done(struct strv *list);
int strv_add(struct strv *list, const char *text); /* copies; 0 or -ENOMEM */
int strv_take(struct strv *list, char *take_text); /* consumed even on failure */
int strv_addf(struct strv *list, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int strv_copy(struct strv *list, const struct strv *from); /* appends all of from */
#define AUTO_STRV AUTO(strv_done)

#include "base/strv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void strv_done(struct strv *list)
{
	for (size_t i = 0; i < list->n_items; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct strv){ 0 };
}

int strv_take(struct strv *list, char *take_text)
{
	size_t n = list->n_items;
	char **items = list->items;

	/* room for n + 1 strings and the NULL, grown whenever n is zero or a power of two */
	if (take_text && (n & (n - 1)) == 0) {
		items = realloc(items, (2 * n + 2) * sizeof(*items));
		if (items)
			list->items = items;
	}
	if (!items || !take_text) {
		free(take_text);
		return -ENOMEM;
	}
	items[n] = take_text;
	items[n + 1] = NULL;
	list->n_items = n + 1;
	return 0;
}

int strv_add(struct strv *list, const char *text)
{
	return strv_take(list, strdup(text));
}

int strv_addf(struct strv *list, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? -ENOMEM : strv_take(list, text);
}

int strv_copy(struct strv *list, const struct strv *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n_items && r == 0; i++)
		r = strv_add(list, from->items[i]);
	return r;
}

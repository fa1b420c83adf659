/* registry.h - a table of named things: text key to pointer. Not locked: the owner's lock guards
 * it. Iteration order is the order of insertion. The table owns the keys, never the values. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct registry;

struct registry *registry_new(void); /* NULL when out of memory */
void registry_free(struct registry *reg);

/* -EEXIST if the key is taken, -ENOMEM. */
int registry_add(struct registry *reg, const char *key, void *value);
/* In the place of what the key had, which is *ret_old (NULL: nothing) and needs no memory. -ENOMEM. */
int registry_set(struct registry *reg, const char *key, void *value, void **ret_old);
/* Undoes that; returns the value that was set. */
void *registry_reset(struct registry *reg, const char *key, void *old);
void *registry_find(const struct registry *reg, const char *key); /* NULL if absent */
void *registry_remove(struct registry *reg, const char *key); /* the value, NULL if absent */
size_t registry_count(const struct registry *reg);

/* Calls visit for each entry until it returns something other than 0, which is returned.
 * visit may not change the table. */
int registry_each(const struct registry *reg, int (*visit)(const char *key, void *value, void *arg),
	void *arg);

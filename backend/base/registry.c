#include "base/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(entry) ((entry)->value = NULL)
#include <uthash.h>

struct entry {
	UT_hash_handle hh;
	void *value;
	char key[];
};

struct registry {
	struct entry *entries;
};

struct registry *registry_new(void)
{
	return calloc(1, sizeof(struct registry));
}

void registry_free(struct registry *reg)
{
	struct entry *entry, *next;

	if (!reg)
		return;
	HASH_ITER(hh, reg->entries, entry, next)
	{
		HASH_DEL(reg->entries, entry);
		free(entry);
	}
	free(reg);
}

static struct entry *find(const struct registry *reg, const char *key)
{
	struct entry *entry;

	HASH_FIND_STR(reg->entries, key, entry);
	return entry;
}

int registry_add(struct registry *reg, const char *key, void *value)
{
	size_t len = strlen(key);
	struct entry *entry;

	if (find(reg, key))
		return -EEXIST;
	entry = malloc(sizeof(*entry) + len + 1);
	if (!entry)
		return -ENOMEM;
	memcpy(entry->key, key, len + 1);
	entry->value = value;
	HASH_ADD_KEYPTR(hh, reg->entries, entry->key, len, entry);
	if (!find(reg, key)) {
		free(entry);
		return -ENOMEM;
	}
	return 0;
}

int registry_set(struct registry *reg, const char *key, void *value, void **ret_old)
{
	struct entry *entry = find(reg, key);

	*ret_old = entry ? entry->value : NULL;
	if (!entry)
		return registry_add(reg, key, value);
	entry->value = value;
	return 0;
}

void *registry_reset(struct registry *reg, const char *key, void *old)
{
	void *value;

	if (!old)
		return registry_remove(reg, key);
	registry_set(reg, key, old, &value);
	return value;
}

void *registry_find(const struct registry *reg, const char *key)
{
	struct entry *entry = find(reg, key);

	return entry ? entry->value : NULL;
}

void *registry_remove(struct registry *reg, const char *key)
{
	struct entry *entry = find(reg, key);
	void *value;

	if (!entry)
		return NULL;
	value = entry->value;
	HASH_DEL(reg->entries, entry);
	free(entry);
	return value;
}

size_t registry_count(const struct registry *reg)
{
	return HASH_COUNT(reg->entries);
}

int registry_each(const struct registry *reg, int (*visit)(const char *key, void *value, void *arg),
	void *arg)
{
	struct entry *entry, *next;
	int r;

	HASH_ITER(hh, reg->entries, entry, next)
	{
		r = visit(entry->key, entry->value, arg);
		if (r)
			return r;
	}
	return 0;
}

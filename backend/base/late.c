#include "base/late.h"

#include <dlfcn.h>

#include "base/log.h"

void late_load(const char *file, const struct late_function *functions, size_t n)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

	for (size_t i = 0; library && i < n; i++) {
		*functions[i].where = dlsym(library, functions[i].name);
		if (*functions[i].where)
			continue;
		for (size_t j = 0; j < i; j++)
			*functions[j].where = NULL;
		library = NULL; /* what is loaded stays: nobody knows what its start has done */
	}
	if (!library)
		LOG(LOG_ERROR, "library-not-loaded", KV_STR("library", file),
			KV_STR("error", dlerror()));
}

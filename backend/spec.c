#include "spec.h"

#include <stdlib.h>

void container_spec_done(struct container_spec *spec)
{
	free(spec->handle);
	free(spec->rootfs);
	for (size_t i = 0; i < spec->n_binds; i++) {
		free(spec->binds[i].src);
		free(spec->binds[i].dst);
	}
	free(spec->binds);
	for (size_t i = 0; i < spec->n_properties; i++) {
		free(spec->properties[i].key);
		free(spec->properties[i].value);
	}
	free(spec->properties);
	strv_done(&spec->env);
	*spec = (struct container_spec){ 0 };
}

void process_spec_done(struct process_spec *spec)
{
	free(spec->id);
	free(spec->path);
	free(spec->dir);
	free(spec->user);
	strv_done(&spec->args);
	strv_done(&spec->env);
	*spec = (struct process_spec){ 0 };
}

#include "spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void binds_free(struct bind_mount *take_binds, size_t n_binds)
{
	for (size_t i = 0; i < n_binds; i++) {
		free(take_binds[i].src);
		free(take_binds[i].dst);
	}
	free(take_binds);
}

int bind_add(struct bind_mount **binds, size_t *n_binds, const struct bind_mount *bind)
{
	struct bind_mount *more = reallocarray(*binds, *n_binds + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	*binds = more;
	more += (*n_binds)++;
	*more = *bind;
	more->src = strdup(bind->src);
	more->dst = strdup(bind->dst);
	return more->src && more->dst ? 0 : -ENOMEM;
}

void container_spec_done(struct container_spec *spec)
{
	free(spec->handle);
	free(spec->rootfs);
	free(spec->network);
	free(spec->net_in);
	net_rules_free(spec->net_out, spec->n_net_out);
	binds_free(spec->binds, spec->n_binds);
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
	free(spec->image);
	binds_free(spec->binds, spec->n_binds);
	strv_done(&spec->args);
	strv_done(&spec->env);
	*spec = (struct process_spec){ 0 };
}

/* worker_json.h - the document that a worker registers with: who it is, and the base resource types that
 * it brings along. */
#pragma once

struct err;
struct worker_config;

/* Reads the directory of resource types anew each time. -EINVAL and the like name the file, and the field in
 * it. The document ends in a newline; the caller frees it. */
int worker_json(const struct worker_config *config, char **ret_json, struct err *err);

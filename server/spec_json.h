/* spec_json.h - Garden's big request documents become specs (backend/spec.h). What is not built yet
 * is refused by its name, never passed over. */
#pragma once
#include <jansson.h>

struct container_spec;
struct err;
struct process_spec;

/* *ret_spec is freed by its *_done also after a failure. */
int container_spec_parse(const json_t *json, struct container_spec *ret_spec, struct err *err);
int process_spec_parse(const json_t *json, struct process_spec *ret_spec, struct err *err);

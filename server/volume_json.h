/* volume_json.h - documents of the volume API. Bodies are read as baggageclaim reads them: one
 * document, whatever stands behind it; null is absent. ERR_BAD_REQUEST (400): no such document;
 * ERR_INVALID (422): a document that cannot be done. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct buf;
struct err;
struct request;
struct strv;
struct volume_spec;
struct volume_view;

json_t *volume_json(const struct volume_view *view); /* NULL: no memory */
/* The same as text behind what is in out, for long lists: a tenth of the time. -ENOMEM, -E2BIG. */
int volume_json_add(struct buf *out, const struct volume_view *view);

/* *ret_spec is freed by volume_spec_done also after a failure. */
int volume_spec_parse(
	const char *text, size_t n_bytes, struct volume_spec *ret_spec, struct err *err);
/* {"value": ...}: the caller's string, NULL if absent; or a flag, left alone if absent. */
int volume_value_parse(const char *text, size_t n_bytes, char **ret_value, struct err *err);
int volume_flag_parse(const char *text, size_t n_bytes, bool *ret_value, struct err *err);
/* An array of strings, or null. */
int volume_handles_parse(
	const char *text, size_t n_bytes, struct strv *ret_handles, struct err *err);

/* server/volumes.c: {"error": "<what>: <cause>"} */
void volume_fail(struct request *request, unsigned status, const char *what, const struct err *err);

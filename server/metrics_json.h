/* metrics_json.h - what a container uses, in the words of the API. */
#pragma once
#include <jansson.h>

struct metrics;

json_t *metrics_json(const struct metrics *metrics);

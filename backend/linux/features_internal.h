/* features_internal.h - what the probes share. */
#pragma once
#include <stdbool.h>

#include "linux/features.h"

struct trial {
	const struct features_input *input;
	int work_fd; /* -1: it cannot be opened */
	int userns_fd; /* -1: none could be made */
	char v1[512], v2[512]; /* controllers, each between spaces */
	char mount[256]; /* of v2, else of some v1 hierarchy; "": none */
	bool has_v2;
	struct feature *feature;
};

/* The reason, with the error's text behind it if code is one. Returns what a probe returns. */
int feature_lacks(struct trial *trial, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* What body(fd) returns, 0 or a negative errno, in a child. */
int feature_run_in_child(int (*body)(int), int fd);

#define FEATURE(probe, need, name, loss) int probe_##probe(struct trial *trial);
#include "linux/features.def"
#undef FEATURE

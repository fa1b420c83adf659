/* features.h - what the kernel and the environment lack: each probe tries the thing itself, none asks
 * for a version. Only for a short-lived process with one thread: probes make children and mounts of
 * their own, all of which are gone when features_probe returns or the process is killed. */
#pragma once
#include <stdint.h>

enum feature_need { FEATURE_REQUIRED, FEATURE_WANTED };

struct feature {
	const char *name, *loss;
	enum feature_need need;
	int code; /* 0: it works, or a negative errno */
	char reason[256]; /* why it does not; "" */
};

struct features_input {
	const char *work_dir; /* need not exist yet: what lies above it is tried then */
	uint32_t id_base; /* first host id of a range of 65,536 */
};

/* Calls visit with each feature, in the order of features.def; the feature is valid in the call. */
void features_probe(const struct features_input *input,
	void (*visit)(const struct feature *feature, void *arg), void *arg);

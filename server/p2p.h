/* p2p.h - who may be sent a volume by another worker, or by this one to others. */
#pragma once

struct err;
struct strv;

struct p2p_config {
	const char
		*interface_pattern; /* POSIX extended, not anchored; "": there is no such thing */
	int family; /* 4 or 6 */
	const struct strv *targets; /* networks beside the interface's own */
};

/* What an option has that cannot be. */
int p2p_check(const struct p2p_config *config, struct err *err);

#include "profile.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

static const char *const names[N_PROFILE_PHASES] = { [PROFILE_DATABASE] = "database_us",
	[PROFILE_NETWORK] = "network_us",
	[PROFILE_ROOT] = "root_us",
	[PROFILE_SHIM] = "shim_us",
	[PROFILE_NAMESPACES] = "namespaces_us",
	[PROFILE_MOUNTS] = "mounts_us",
	[PROFILE_INIT] = "init_us",
	[PROFILE_REST] = "rest_us" };

void profile_begin(struct profile *profile)
{
	if (!profile)
		return;
	memset(profile, 0, sizeof(*profile));
	profile->last_us = clock_us();
}

void profile_mark_at(struct profile *profile, enum profile_phase phase, int64_t at_us)
{
	if (!profile || at_us <= profile->last_us)
		return;
	profile->us[phase] += at_us - profile->last_us;
	profile->last_us = at_us;
}

void profile_mark(struct profile *profile, enum profile_phase phase)
{
	if (profile)
		profile_mark_at(profile, phase, clock_us());
}

void profile_log(const struct profile *profile, const char *handle, bool from_pool)
{
	struct kv facts[N_PROFILE_PHASES + 3] = { KV_STR("handle", handle),
		KV_STR("pool", from_pool ? "warm" : "empty") };
	int64_t total = 0;

	if (!profile)
		return;
	for (int i = 0; i < N_PROFILE_PHASES; i++) {
		facts[i + 2] = KV_INT(names[i], profile->us[i]);
		total += profile->us[i];
	}
	facts[N_PROFILE_PHASES + 2] = KV_INT("total_us", total);
	log_event(LOG_INFO, "container-profile", facts, N_PROFILE_PHASES + 3);
}

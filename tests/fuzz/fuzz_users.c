/* Who a process is to be. Input: user text, passwd and group, with a NUL between them. */
#include "fuzz.h"

#include <string.h>

#include "base/err.h"
#include "users.h"

#define N_IDS 65536u

static void check_user(const char *text, const struct user *user)
{
	size_t n_digits = strspn(text, "0123456789");

	FUZZ_CHECK(user->uid < N_IDS && user->gid < N_IDS);
	FUZZ_CHECK(user->home[0] == '/');
	FUZZ_CHECK(user->n_groups <= USERS_MAX_GROUPS);
	for (size_t i = 0; i < user->n_groups; i++)
		FUZZ_CHECK(user->groups[i] < N_IDS);
	FUZZ_CHECK(*text != '-' && *text != '+');
	/* digits are that id, whatever the files say */
	if (n_digits && (text[n_digits] == '\0' || text[n_digits] == ':'))
		FUZZ_CHECK(user->uid == strtoull(text, NULL, 10));
	if (strchr(text, ':') && strchr(text, ':')[1])
		FUZZ_CHECK(user->n_groups == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *all = malloc(size + 3);
	const char *text = all, *passwd, *group;
	struct user user;
	struct err err = { 0 };

	FUZZ_CHECK(all);
	memcpy(all, data, size);
	memset(all + size, '\0', 3);
	passwd = text + strlen(text) + 1;
	group = passwd < all + size ? passwd + strlen(passwd) + 1 : passwd;
	if (user_resolve(text, passwd, group, N_IDS, &user, &err) == 0)
		check_user(text, &user);
	else
		FUZZ_CHECK(err.kind != ERR_NONE && err.code > 0 && err.msg[0]);
	if (user_resolve(text, NULL, NULL, N_IDS, &user, NULL) == 0)
		check_user(text, &user);
	free(all);
	return 0;
}

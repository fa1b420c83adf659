/* users.h - who a process is to be: "", name, uid, each with ":group" or ":gid", looked up in the
 * container's own /etc/passwd and /etc/group (passwd(5), group(5)); rules of garden.md 1.2.
 * A text of digits is always an id, never a name. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct err;

#define USERS_MAX_GROUPS 256

struct user {
	uint32_t uid, gid;
	uint32_t groups[USERS_MAX_GROUPS];
	size_t n_groups;
	char home[1024];
};

/* Pure: passwd and group are the files' texts (NULL: there is none). Ids are below n_ids. */
int user_resolve(const char *text, const char *passwd, const char *group, uint32_t n_ids,
	struct user *ret_user, struct err *err);

/* Reads the files below root_fd without trusting them (no link out, no FIFO, 1 MiB at most). */
int user_lookup(
	int root_fd, const char *text, uint32_t n_ids, struct user *ret_user, struct err *err);

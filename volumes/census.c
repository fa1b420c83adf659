#include "volumes/census.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/sys.h"
#include "volumes/links.h"
#include "volumes/walk.h"

#define CAPABILITY "security.capability"
#define MODE_BITS 07777

struct census {
	uid_t uid;
	gid_t gid;
	struct links links;
	uint64_t n_bytes, n_names;
	struct err *err;
};

static int walk(struct census *census, int dir_fd,
	int (*visit)(void *context, const struct walk_item *item))
{
	struct walk how = { .enter = visit, .file = visit, .context = census };
	int r = walk_tree(&how, dir_fd, -1);

	return r < 0 && !census->err->code ? err_system(census->err, r, "walk the tree") : r;
}

/* ---- owners ---------------------------------------------------------------------------------- */

static int give_regular(const struct census *census, const struct walk_item *item)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	AUTO_FD int fd = sys_open_at(item->dir_fd, item->name, flags, 0, 0);
	char value[XATTR_CAPS_SZ];
	ssize_t n;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	n = fgetxattr(fd, CAPABILITY, value, sizeof(value));
	if (fchown(fd, census->uid, census->gid) < 0)
		return -errno;
	if (n >= 0 && fsetxattr(fd, CAPABILITY, value, n, 0) < 0)
		return -errno;
	if (item->st.st_mode & (S_ISUID | S_ISGID) && fchmod(fd, item->st.st_mode & MODE_BITS) < 0)
		return -errno;
	return 0;
}

static int give_node(const struct census *census, const struct walk_item *item)
{
	mode_t mode = item->st.st_mode;

	if (fchownat(item->dir_fd, item->name, census->uid, census->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISLNK(mode) || S_ISDIR(mode) || !(mode & (S_ISUID | S_ISGID)))
		return 0;
	return fchmodat(item->dir_fd, item->name, mode & MODE_BITS, 0) < 0 ? -errno : 0;
}

static int visit_to_give(void *context, const struct walk_item *item)
{
	struct census *census = context;
	int r;

	/* on an overlay each change copies a file */
	if (item->st.st_uid == census->uid && item->st.st_gid == census->gid)
		return 0;
	r = S_ISREG(item->st.st_mode) ? give_regular(census, item) : give_node(census, item);
	return r < 0 ? err_system(census->err, r, "chown %.300s", item->path) : 0;
}

int census_chown(int dir_fd, uid_t uid, gid_t gid, struct err *err)
{
	struct census census = { .uid = uid, .gid = gid, .err = err };

	return walk(&census, dir_fd, visit_to_give);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int visit_to_count(void *context, const struct walk_item *item)
{
	struct census *census = context;
	const char *first = NULL;

	if (!S_ISDIR(item->st.st_mode) && item->st.st_nlink > 1) {
		int r = links_meet(&census->links, &item->st, "", &first);

		if (r < 0)
			return err_system(census->err, r, "count");
	}
	census->n_names++;
	if (!first)
		census->n_bytes += (uint64_t)item->st.st_blocks * 512;
	return 0;
}

int census_size(int dir_fd, uint64_t *ret_bytes, uint64_t *ret_names, struct err *err)
{
	struct census census = { .err = err };
	int r;

	links_init(&census.links);
	r = walk(&census, dir_fd, visit_to_count);
	links_done(&census.links);
	*ret_bytes = census.n_bytes;
	*ret_names = census.n_names;
	return r;
}

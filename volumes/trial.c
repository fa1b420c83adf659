#include "volumes/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "linux/sys.h"

/* Takes a whiteout, and an attribute that says: nothing below shines through. */
static int replace_dir(int root_fd)
{
	if (unlinkat(root_fd, TRIAL_DIR "/" TRIAL_FILE, 0) < 0 ||
		unlinkat(root_fd, TRIAL_DIR, AT_REMOVEDIR) < 0 ||
		mkdirat(root_fd, TRIAL_DIR, 0755) < 0)
		return -errno;
	if (faccessat(root_fd, TRIAL_DIR "/" TRIAL_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return 0;
}

static int give_away(int root_fd)
{
	AUTO_FD int fd = sys_open_beneath(root_fd, TRIAL_DIR "/new", O_WRONLY | O_CREAT, 0644);

	if (fd < 0)
		return fd;
	return fchown(fd, 1, 1) < 0 || write(fd, "x", 1) != 1 ? -errno : 0;
}

int trial(int root_fd, struct err *err)
{
	int r = replace_dir(root_fd);

	if (r < 0)
		return err_system(err, r, "replace a directory in an overlay");
	r = give_away(root_fd);
	return r < 0 ? err_system(err, r, "write to an overlay") : 0;
}

/* unpack: archives, in a tree with links that lead out of it if they are not taken as the tree's. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "linux/tree.h"
#include "volumes/codec.h"
#include "volumes/unpack.h"

static char top[] = "/dev/shm/cloche-fuzz-XXXXXX";
static int top_fd = -1, root_fd, outside_fd;

static void remove_top(void)
{
	tree_empty(top_fd, -1);
	rmdir(top);
}

static void make_top(void)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

	FUZZ_CHECK(mkdtemp(top));
	top_fd = open(top, flags);
	FUZZ_CHECK(top_fd >= 0);
	atexit(remove_top);
	FUZZ_CHECK(mkdirat(top_fd, "root", 0755) == 0 && mkdirat(top_fd, "outside", 0755) == 0);
	root_fd = openat(top_fd, "root", flags);
	outside_fd = openat(top_fd, "outside", flags);
	FUZZ_CHECK(root_fd >= 0 && outside_fd >= 0);
}

static int n_entries(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *dir = fdopendir(fd);

	FUZZ_CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("archive", MFD_CLOEXEC), r;
	struct unpack_spec spec = { CODEC_RAW, fd, root_fd, "d", UNPACK_ALL, NULL };
	unsigned long n_skipped;
	struct err err = { 0 };

	if (top_fd < 0)
		make_top();
	spec.root_fd = root_fd;
	FUZZ_CHECK(write(fd, data, size) == (ssize_t)size && lseek(fd, 0, SEEK_SET) == 0);
	FUZZ_CHECK(symlinkat("../outside", root_fd, "up") == 0);
	FUZZ_CHECK(mkdirat(root_fd, "d", 0755) == 0);
	FUZZ_CHECK(symlinkat("../../outside", root_fd, "d/up") == 0);
	r = unpack(&spec, &n_skipped, &err);
	FUZZ_CHECK(r <= 0 && (r < 0) == (err.msg[0] != '\0'));
	FUZZ_CHECK(n_entries(outside_fd) == 0 && n_entries(top_fd) == 2);
	FUZZ_CHECK(fchmod(root_fd, 0755) == 0 && tree_empty(root_fd, -1) == 0);
	close(fd);
	return 0;
}

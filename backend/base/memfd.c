#include "base/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/auto.h"

int memfd_of(const char *name, const void *data, size_t n_bytes)
{
	AUTO_FD int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < n_bytes;) {
		ssize_t n = write(fd, (const char *)data + done, n_bytes - done);

		if (n < 0)
			return -errno;
		done += n;
	}
	return TAKE_FD(fd);
}

int memfd_seal(int fd)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

	return fcntl(fd, F_ADD_SEALS, all) < 0 ? -errno : 0;
}

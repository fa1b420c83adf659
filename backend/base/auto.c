#include "base/auto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void auto_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void auto_free(void *slot)
{
	int saved = errno;
	void *p;

	memcpy(&p, slot, sizeof(p));
	free(p);
	errno = saved;
}

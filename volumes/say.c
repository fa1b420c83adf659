#include "volumes/say.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

int say(int fd, const char *fmt, ...)
{
	char text[PIPE_BUF];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(text))
		return -EMSGSIZE;
	return TEMP_FAILURE_RETRY(write(fd, text, (size_t)n)) == n ? 0 : -EIO;
}

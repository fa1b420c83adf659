#include "server/worker/tied.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/parse.h"

int tied_command(int argc, char **argv)
{
	uint64_t parent;

	if (argc < 4 || parse_u64(argv[2], INT32_MAX, &parent) < 0) {
		fprintf(stderr, "usage: cloche tied PARENT PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != (pid_t)parent) /* it was faster */
		return 0;
	execve(argv[3], argv + 3, environ);
	fprintf(stderr, "%s: %s\n", argv[3], strerrordesc_np(errno));
	return 127;
}

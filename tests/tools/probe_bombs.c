/* probe_bombs.c - the commands that take as much as they get: they say how much that was, and hold it until
 * their standard input ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

#define MIB (1 << 20)

static int take_inotify(void)
{
	return inotify_init1(IN_CLOEXEC);
}

static int take_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int take_timerfd(void)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

/* As much of the user's share of pipe pages as one pipe may have, filled. */
static int take_pipe(void)
{
	static char block[MIB];
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	if (fcntl(ends[1], F_SETPIPE_SZ, MIB) < 0)
		return -1;
	return write(ends[1], block, sizeof(block)) < 0 ? -1 : 0;
}

static int take_memory(void)
{
	char *page = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -1;
	memset(page, 1, MIB);
	return 0;
}

static int take_shared(void)
{
	char *page = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -1;
	memset(page, 1, MIB);
	return 0;
}

static int take_process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	return pid < 0 ? -1 : 0;
}

static const struct {
	const char *name;
	int (*take)(void);
} things[] = { { "inotify", take_inotify }, { "eventfd", take_eventfd },
	{ "timerfd", take_timerfd }, { "pipe", take_pipe }, { "memory", take_memory },
	{ "shared", take_shared }, { "process", take_process } };

/* bomb WHAT [MOST]: "WHAT count errno" */
int cmd_bomb(int argc, char **argv)
{
	long most = argc > 2 ? atol(argv[2]) : 100000, count = 0;
	char byte;

	for (size_t i = 0; argc > 1 && i < sizeof(things) / sizeof(things[0]); i++) {
		if (strcmp(argv[1], things[i].name))
			continue;
		errno = 0;
		while (count < most && things[i].take() >= 0)
			count++;
		printf("%s %ld %s\n", argv[1], count, result_name(-errno));
		fflush(stdout);
		while (read(0, &byte, 1) > 0)
			continue;
		return 0;
	}
	return 2;
}

/* probe_streams.c - the commands whose streams are checked byte by byte from outside. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

#define LINE_BYTES 64
#define N_LINES 4096

static int write_all(const char *data, size_t n_bytes)
{
	while (n_bytes) {
		ssize_t n = write(1, data, n_bytes);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			data += n;
			n_bytes -= (size_t)n;
		}
	}
	return 0;
}

/* lines N: N numbered lines of LINE_BYTES each, as fast as they are taken. */
int cmd_lines(int argc, char **argv)
{
	static char block[N_LINES * LINE_BYTES + 1];
	unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;

	for (unsigned long i = 0; i < n;) {
		size_t in_block = 0;

		for (; in_block < N_LINES && i < n; in_block++, i++)
			snprintf(block + in_block * LINE_BYTES, LINE_BYTES + 1, "%0*lu\n",
				LINE_BYTES - 1, i);
		if (write_all(block, in_block * LINE_BYTES) < 0)
			return 1;
	}
	return 0;
}

/* True if the line is "chunk N PADDING end\n", whole. */
static int is_chunk(const char *line, unsigned long *ret_number)
{
	size_t n = strlen(line);

	return n > 5 && !strcmp(line + n - 5, " end\n") &&
		sscanf(line, "chunk %lu ", ret_number) == 1;
}

/* acknowledge: says what it has read, line by line: "ack N" for the chunk that was due, "again N" for
 * another, "sync ..." as it is, "bad" for anything else but an empty line; "end N" at the end. */
int cmd_acknowledge(int argc, char **argv)
{
	static char line[1 << 20];
	unsigned long due = 0, number;

	(void)argc, (void)argv;
	while (fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "sync ", 5) && strchr(line, '\n'))
			fputs(line, stdout);
		else if (is_chunk(line, &number) && number == due)
			printf("ack %lu\n", due++);
		else if (is_chunk(line, &number))
			printf("again %lu\n", number);
		else if (strcmp(line, "\n") != 0)
			printf("bad\n");
		fflush(stdout);
	}
	printf("end %lu\n", due);
	return 0;
}

/* unit.h - what every unit test needs: cmocka, a directory of its own, a count of open descriptors.
 * A test's name is a sentence. See also alloc.h: allocations that fail on demand. */
#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))

/* How long a test waits for something that ought to happen at once: a guard against hanging. */
#define GUARD_SECONDS 60

UNUSED static int unit_remove_entry(
	const char *path, const struct stat *st UNUSED, int type UNUSED, struct FTW *ftw UNUSED)
{
	return remove(path);
}

/* cmocka setup and teardown: *state is the path of a new directory, removed with all it holds. */
UNUSED static int unit_make_dir(void **state)
{
	const char *parent = getenv("TMPDIR");
	char *path = NULL;

	if (asprintf(&path, "%s/cloche-unit-XXXXXX", parent ? parent : "/tmp") < 0)
		return -1;
	*state = mkdtemp(path);
	return *state ? 0 : -1;
}

UNUSED static int unit_remove_dir(void **state)
{
	int r = nftw(*state, unit_remove_entry, 16, FTW_DEPTH | FTW_PHYS);

	free(*state);
	return r;
}

/* A path below the test's directory; valid until the next call. */
UNUSED static const char *unit_path(void **state, const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", (const char *)*state, name);
	return path;
}

/* What try returns, a small number, in a child of its own: what it gives up does not come back. */
UNUSED static int unit_in_child(int (*try)(void **state), void **state)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(try(state));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

UNUSED static int unit_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

UNUSED static void unit_write_file(const char *path, const void *data, size_t n_bytes)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, n_bytes, file), n_bytes);
	assert_int_equal(fclose(file), 0);
}

/* The whole file with a NUL behind it; the caller frees. NULL if there is none. */
UNUSED static char *unit_read_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	ssize_t n;

	if (!file)
		return NULL;
	n = getdelim(&text, &size, '\0', file);
	fclose(file);
	if (n >= 0)
		return text;
	free(text);
	return strdup("");
}

/* Runs a fuzz target over files and directories of files, and over every beginning of each file.
 * usage: fuzz_TARGET tests/fuzz/corpus/TARGET... */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_BYTES (1 << 20)
#define MAX_PREFIX_BYTES 4096

static unsigned n_inputs;

/* From a block of exactly this size, so that a sanitizer sees each byte too far. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);

	FUZZ_CHECK(exact);
	memcpy(exact, data, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

static void replay_file(const char *path)
{
	static uint8_t data[MAX_BYTES];
	FILE *file = fopen(path, "rbe");
	size_t size;

	FUZZ_CHECK(file);
	size = fread(data, 1, sizeof(data), file);
	FUZZ_CHECK(!ferror(file));
	fclose(file);
	run(data, size);
	for (size_t n = 0; n < size && n < MAX_PREFIX_BYTES; n++)
		run(data, n);
	n_inputs++;
}

static void replay(const char *path)
{
	struct stat st;
	struct dirent *entry;
	char name[4096];
	DIR *dir;

	FUZZ_CHECK(stat(path, &st) == 0);
	if (!S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	dir = opendir(path);
	FUZZ_CHECK(dir);
	while ((entry = readdir(dir))) {
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_name[0] != '.')
			replay_file(name);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	printf("%s: %u inputs and their beginnings\n", argv[0], n_inputs);
	return n_inputs ? 0 : 1;
}

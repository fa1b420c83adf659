#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/guard.h"
#include "linux/sys.h"

#define CHUNK_BYTES (256u * 1024)

void layout_done(struct layout *layout)
{
	strv_done(&layout->env);
}

bool layout_is_one(int dir_fd)
{
	AUTO_FD int fd = sys_open_in_root(dir_fd, "oci-layout", O_PATH, 0);

	return fd >= 0;
}

int layout_parse_digest(const char *text, char ret_hex[SHA256_HEX_SIZE])
{
	static const char front[] = "sha256:";
	const char *hex = text + strlen(front);

	if (strncmp(text, front, strlen(front)) || strlen(hex) != SHA256_HEX_SIZE - 1 ||
		strspn(hex, "0123456789abcdef") != SHA256_HEX_SIZE - 1)
		return -EINVAL;
	memcpy(ret_hex, hex, SHA256_HEX_SIZE);
	return 0;
}

static int sum_up(int fd, char ret_hex[SHA256_HEX_SIZE])
{
	AUTO_FREE char *chunk = malloc(CHUNK_BYTES);
	struct sha256 sum;
	ssize_t n;

	if (!chunk)
		return -ENOMEM;
	sha256_init(&sum);
	while ((n = TEMP_FAILURE_RETRY(read(fd, chunk, CHUNK_BYTES))) > 0)
		sha256_add(&sum, chunk, n);
	if (n < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	sha256_end(&sum, ret_hex);
	return 0;
}

int layout_open_blob(int dir_fd, const struct layout_blob *blob, struct err *err)
{
	char path[32 + SHA256_HEX_SIZE], hex[SHA256_HEX_SIZE] = "";
	AUTO_FD int fd = -1;
	struct stat st;
	int r;

	snprintf(path, sizeof(path), "blobs/sha256/%s", blob->hex);
	r = fd = sys_open_in_root(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (r >= 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r < 0)
		return err_system(err, r, "%s", path);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != blob->n_bytes)
		return err_set(err, ERR_INVALID, EBADMSG,
			"%s: not a file of the %llu bytes that it is said to have", path,
			(unsigned long long)blob->n_bytes);
	r = sum_up(fd, hex);
	if (r < 0)
		return err_system(err, r, "%s", path);
	if (strcmp(hex, blob->hex) && GUARD(DIGESTS))
		return err_set(err, ERR_INVALID, EBADMSG,
			"%s: damaged, its content has the digest sha256:%s", path, hex);
	return TAKE_FD(fd);
}

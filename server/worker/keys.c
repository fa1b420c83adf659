#include "server/worker/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "linux/sys.h"

#define MAX_KEY_BYTES 65536
#define BEGIN "-----BEGIN "
#define DASHES "-----"

/* ---- the private key ------------------------------------------------------------------------- */

static int digit_of(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* The first bytes of what base64 stands for. Returns how many there are. */
static size_t decode(const char *text, uint8_t *bytes, size_t n_bytes)
{
	uint32_t bits = 0;
	unsigned n_bits = 0;
	size_t n = 0;

	for (; *text && n < n_bytes; text++) {
		int digit = digit_of(*text);

		if (digit < 0) {
			if (*text == '\n' || *text == '\r' || *text == ' ')
				continue;
			break;
		}
		bits = bits << 6 | (uint32_t)digit;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			bytes[n++] = (uint8_t)(bits >> n_bits);
		}
	}
	return n;
}

/* PKCS#1 is SEQUENCE { INTEGER 0, INTEGER modulus, ...}, PKCS#8 is SEQUENCE { INTEGER 0, SEQUENCE ...}. */
static bool is_pkcs1(const char *base64)
{
	static const uint8_t version[] = { 2, 1, 0 };
	uint8_t head[16] = { 0 };
	size_t n = decode(base64, head, sizeof(head)), at = 2;

	if (n < sizeof(head) || head[0] != 0x30)
		return false;
	if (head[1] & 0x80)
		at += head[1] & 0x7f;
	return at + 4 <= n && !memcmp(head + at, version, sizeof(version)) && head[at + 3] == 2;
}

/* A line without what surrounds it; none if there is nothing else. */
static void add_line(struct buf *out, const char *line, size_t len)
{
	while (len && strchr(" \t\r", line[len - 1]))
		len--;
	while (len && strchr(" \t", *line)) {
		line++;
		len--;
	}
	if (len)
		buf_addf(out, "%.*s\n", (int)len, line);
}

static void add_lines(struct buf *out, const char *text, size_t n_bytes)
{
	while (n_bytes) {
		const char *end = memchr(text, '\n', n_bytes);
		size_t len = end ? (size_t)(end - text) : n_bytes;

		add_line(out, text, len);
		len += end != NULL;
		text += len;
		n_bytes -= len;
	}
}

static int check_label(const char *label, size_t len, const char *body, struct err *err)
{
	static const char private[] = "PRIVATE KEY";
	const size_t n = sizeof(private) - 1;

	if (len < n || memcmp(label + len - n, private, n))
		return err_set(err, ERR_INVALID, EINVAL,
			"holds a %.*s: a private key is needed, such as `concourse generate-key -t ssh` makes",
			(int)(len > 40 ? 40 : len), label);
	if (!strncmp(label, "ENCRYPTED ", 10) || strstr(body, "Proc-Type: 4,ENCRYPTED"))
		return err_set(err, ERR_INVALID, EINVAL,
			"the key has a passphrase: take it off (ssh-keygen -p -N '' -f FILE)");
	return 0;
}

int private_key_tidy(const char *pem, struct buf *ret, struct err *err)
{
	const char *label = strstr(pem, BEGIN), *body = label ? strstr(label + 11, DASHES) : NULL;
	const char *end = body ? strstr(body, "-----END ") : NULL;
	const char *kind = "";
	size_t len;
	int r;

	if (!end)
		return err_set(err, ERR_INVALID, EINVAL,
			"holds no key in PEM form (-----BEGIN ... PRIVATE KEY----- to -----END ...)");
	label += strlen(BEGIN);
	len = (size_t)(body - label);
	body += strlen(DASHES);
	r = check_label(label, len, body, err);
	if (r < 0)
		return r;
	if (len == strlen("PRIVATE KEY") && is_pkcs1(body))
		kind = "RSA ";
	while (*body == '\r' || *body == ' ' || *body == '\n')
		body++;
	buf_addf(ret, BEGIN "%s%.*s" DASHES "\n", kind, (int)len, label);
	add_lines(ret, body, (size_t)(end - body));
	buf_addf(ret, "-----END %s%.*s" DASHES "\n", kind, (int)len, label);
	return buf_failed(ret) ? err_system(err, buf_failed(ret), "private key") : 0;
}

/* ---- host keys ------------------------------------------------------------------------------- */

static bool is_key_type(const char *word, size_t len)
{
	return (len > 4 && !memcmp(word, "ssh-", 4)) || (len > 6 && !memcmp(word, "ecdsa-", 6)) ||
		(len > 3 && !memcmp(word, "sk-", 3));
}

/* "[options or hosts] TYPE BASE64 [comment]": the two words in the middle. Whether there was a key. */
static bool add_host_key(struct buf *out, const char *line, size_t n_bytes)
{
	static const char blank[] = " \t\r";
	const char *end = line + n_bytes;

	while (line < end) {
		size_t gap = strspn(line, blank), len, key_gap, key_len;

		line += gap;
		len = strcspn(line, " \t\r\n");
		if (line + len >= end)
			return false;
		key_gap = strspn(line + len, blank);
		key_len = strcspn(line + len + key_gap, " \t\r\n");
		if (is_key_type(line, len) && key_len > 20) {
			buf_addf(out, "* %.*s %.*s\n", (int)len, line, (int)key_len,
				line + len + key_gap);
			return true;
		}
		line += len;
	}
	return false;
}

int host_keys_list(const char *text, struct buf *ret, struct err *err)
{
	unsigned line = 0, n_keys = 0;

	while (*text) {
		size_t len = strcspn(text, "\n"), blank = strspn(text, " \t\r");

		line++;
		if (blank < len && text[blank] != '#') {
			if (!add_host_key(ret, text, len))
				return err_set(err, ERR_INVALID, EINVAL,
					"line %u: no public key (as in \"ssh-rsa AAAA...\")", line);
			n_keys++;
		}
		text += len + (text[len] == '\n');
	}
	if (!n_keys)
		return err_set(err, ERR_INVALID, EINVAL,
			"holds no public key, so that every gateway would be refused");
	return buf_failed(ret) ? err_system(err, buf_failed(ret), "host keys") : 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int read_file(const char *path, char **ret_text, struct err *err)
{
	AUTO_FREE char *text = malloc(MAX_KEY_BYTES + 1);
	ssize_t n;

	if (!text)
		return err_system(err, -ENOMEM, "read");
	n = sys_read_small(AT_FDCWD, path, 0, text, MAX_KEY_BYTES);
	if (n == -EFBIG)
		return err_set(
			err, ERR_INVALID, EFBIG, "longer than %d bytes: not a key", MAX_KEY_BYTES);
	if (n == -EINVAL)
		return err_set(err, ERR_INVALID, EINVAL, "not a file");
	if (n < 0)
		return err_system(err, (int)n, "cannot be read");
	*ret_text = TAKE_PTR(text);
	return 0;
}

static int write_file(int dir_fd, const char *name, const struct buf *content, struct err *err)
{
	AUTO_FD int fd = -1;

	unlinkat(dir_fd, name, 0);
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_system(err, -errno, "copy to the run directory");
	if (write(fd, content->data, content->len) != (ssize_t)content->len)
		return err_system(err, errno ? -errno : -EIO, "copy to the run directory");
	return 0;
}

typedef int rewrite(const char *text, struct buf *ret, struct err *err);

static int copy(int dir_fd, const char *name, const char *path, rewrite *as, struct err *err)
{
	AUTO_FREE char *text = NULL;
	AUTO_BUF struct buf out;
	int r = read_file(path, &text, err);

	buf_init(&out, 2 * MAX_KEY_BYTES);
	if (r == 0)
		r = as(text, &out, err);
	return r < 0 ? r : write_file(dir_fd, name, &out, err);
}

int keys_copy(int dir_fd, const struct key_names *names, const char *private_key_file,
	const char *public_key_file, struct err *err)
{
	int r;

	if (!*private_key_file)
		return err_set(err, ERR_INVALID, EINVAL,
			"--tsa-worker-private-key (CONCOURSE_TSA_WORKER_PRIVATE_KEY) is missing: the file with the worker's private key");
	if (!*public_key_file)
		return err_set(err, ERR_INVALID, EINVAL,
			"--tsa-public-key (CONCOURSE_TSA_PUBLIC_KEY) is missing: the file with the gateways' public host keys");
	r = copy(dir_fd, names->private_key, private_key_file, private_key_tidy, err);
	if (r < 0)
		return err_context(err, r, "--tsa-worker-private-key '%.200s'", private_key_file);
	r = copy(dir_fd, names->host_keys, public_key_file, host_keys_list, err);
	return r < 0 ? err_context(err, r, "--tsa-public-key '%.200s'", public_key_file) : 0;
}

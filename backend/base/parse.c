#include "base/parse.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int parse_u64(const char *text, uint64_t max, uint64_t *ret)
{
	uint64_t value = 0;

	if (!*text || text[strspn(text, "0123456789")])
		return -EINVAL;
	for (const char *p = text; *p; p++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	}
	if (value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

int parse_double(const char *text, double *ret)
{
	char *end;

	if (strspn(text, "0123456789+-.eE") != strlen(text) || !*text)
		return -EINVAL;
	*ret = strtod(text, &end);
	if (*end)
		return -EINVAL;
	return isfinite(*ret) ? 0 : -ERANGE;
}

bool handle_is_valid(const char *handle)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789_.~:@+-";
	static const char *const reserved[] = { ".", "..", "bulk_info", "bulk_metrics" };
	size_t len = strlen(handle);

	if (len < 1 || len > 255 || handle[0] == '-' || strspn(handle, allowed) != len)
		return false;
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		if (!strcmp(handle, reserved[i]))
			return false;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int percent_decode(char *text, bool plus_is_space)
{
	char *out = text;

	for (const char *in = text; *in; in++) {
		int high, low;

		if (*in == '+' && plus_is_space) {
			*out++ = ' ';
			continue;
		}
		if (*in != '%') {
			*out++ = *in;
			continue;
		}
		high = hex_digit(in[1]);
		low = high < 0 ? -1 : hex_digit(in[2]);
		if (low < 0 || (high == 0 && low == 0))
			return -EINVAL;
		*out++ = (char)(high << 4 | low);
		in += 2;
	}
	*out = '\0';
	return 0;
}

/* The length of the sequence that first begins, 0 if none does; *ret_lowest is the least second
 * byte, *ret_highest the greatest. */
static int sequence_length(
	unsigned char first, unsigned char *ret_lowest, unsigned char *ret_highest)
{
	*ret_lowest = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	*ret_highest = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first < 0xe0)
		return 2;
	if (first >= 0xe0 && first < 0xf0)
		return 3;
	return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

bool utf8_is_valid(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		unsigned char lowest, highest;
		int len = sequence_length(*p, &lowest, &highest);

		if (len == 0 || (len > 1 && (p[1] < lowest || p[1] > highest)))
			return false;
		for (int i = 2; i < len; i++)
			if (p[i] < 0x80 || p[i] > 0xbf)
				return false;
		p += len;
	}
	return true;
}

int random_hex(char *text, size_t n_bytes)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char bytes[32];

	if (n_bytes > sizeof(bytes))
		return -EINVAL;
	if (getrandom(bytes, n_bytes, 0) != (ssize_t)n_bytes)
		return -EIO;
	for (size_t i = 0; i < n_bytes; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	text[2 * n_bytes] = '\0';
	return 0;
}

int random_uuid(char text[UUID_SIZE])
{
	char hex[33];
	int r = random_hex(hex, 16);

	if (r < 0)
		return r;
	hex[12] = '4';
	hex[16] = "89ab"[hex[16] & 3];
	snprintf(text, UUID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
		hex + 20);
	return 0;
}

/* parse.h - text from outside becomes values, exactly or not at all. No function looks at a locale.
 * All return 0, -EINVAL (not of the form) or -ERANGE (of the form, out of range). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits only: no sign, no space, nothing behind. Result 0..max. */
int parse_u64(const char *text, uint64_t max, uint64_t *ret);

/* A decimal number, perhaps with a fraction or an exponent: "1", "0.5", "-1e3"; no "inf" or "nan". */
int parse_double(const char *text, double *ret);

/* A handle as users may choose it: 1 to 255 bytes of [A-Za-z0-9_.~:@+-], no leading '-', not "." or
 * "..", not a word that the API uses in its place ("bulk_info", "bulk_metrics"). */
bool handle_is_valid(const char *handle);

/* Decodes %XX in place, once; plus_is_space for query strings. -EINVAL for a broken escape or %00.
 */
int percent_decode(char *text, bool plus_is_space);

/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates. */
bool utf8_is_valid(const char *text);

/* Fills text with 2 * n_bytes lower case hex digits of random bytes and a NUL. */
int random_hex(char *text, size_t n_bytes);

/* A version 4 UUID in text form: 36 characters and a NUL. */
#define UUID_SIZE 37
int random_uuid(char text[UUID_SIZE]);

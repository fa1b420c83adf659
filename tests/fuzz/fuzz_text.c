/* Texts of URLs and options: percent_decode, handle_is_valid, parse_u64. */
#include "fuzz.h"

#include <stdbool.h>
#include <string.h>

#include "base/parse.h"

/* The text decoded, written out with every byte escaped, is the same text again. */
static void check_round_trip(const char *decoded)
{
	size_t len = strlen(decoded);
	char *escaped = malloc(3 * len + 1);

	FUZZ_CHECK(escaped);
	for (size_t i = 0; i < len; i++)
		snprintf(escaped + 3 * i, 4, "%%%02x", (unsigned char)decoded[i]);
	escaped[3 * len] = '\0';
	FUZZ_CHECK(percent_decode(escaped, false) == 0);
	FUZZ_CHECK(!strcmp(escaped, decoded));
	free(escaped);
}

static void check_decode(const char *text, bool plus_is_space)
{
	char *copy = strdup(text);

	FUZZ_CHECK(copy);
	if (percent_decode(copy, plus_is_space) == 0) {
		FUZZ_CHECK(strlen(copy) <= strlen(text));
		FUZZ_CHECK(strchr(text, '%') || plus_is_space || !strcmp(copy, text));
		check_round_trip(copy);
	}
	free(copy);
}

static void check_handle(const char *text)
{
	char *copy = strdup(text);

	FUZZ_CHECK(copy);
	if (handle_is_valid(text)) {
		FUZZ_CHECK(
			*text && strlen(text) <= 255 && !strpbrk(text, "/%\\ \"") && *text != '-');
		FUZZ_CHECK(strcmp(text, ".") && strcmp(text, ".."));
		/* it means the same in a path, decoded or not */
		FUZZ_CHECK(percent_decode(copy, false) == 0 && !strcmp(copy, text));
	}
	free(copy);
}

static void check_number(const char *text)
{
	const char *digits = text + strspn(text, "0");
	char back[32];
	uint64_t value = 0;

	if (parse_u64(text, UINT64_MAX, &value) < 0)
		return;
	snprintf(back, sizeof(back), "%ju", (uintmax_t)value);
	FUZZ_CHECK(!strcmp(*digits ? digits : "0", back));
	FUZZ_CHECK(value == 0 || parse_u64(text, value - 1, &value) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	FUZZ_CHECK(text);
	memcpy(text, data, size);
	text[size] = '\0';
	check_decode(text, false);
	check_decode(text, true);
	check_handle(text);
	check_number(text);
	free(text);
	return 0;
}

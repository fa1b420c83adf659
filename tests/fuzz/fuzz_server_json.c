/* Request documents: json_parse is jansson, only stricter, but for integers that jansson cannot hold. */
#include "fuzz.h"

#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "server/json.h"

static int longest_run_of_digits(const char *text, size_t size)
{
	int run = 0, longest = 0;

	for (size_t i = 0; i < size; i++) {
		run = text[i] >= '0' && text[i] <= '9' ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	return longest;
}

/* Every question that a handler could ask. */
static void use(const json_t *json)
{
	static const char *const names[] = { "handle", "a", "env", "limits" };
	char *text = NULL;
	uint64_t number;
	int64_t signed_number;
	bool flag;
	json_t *found;

	json_is_nothing(json);
	if (json_u64(json, 1000, &number) == 0)
		FUZZ_CHECK(number <= 1000);
	if (!json_is_object(json))
		return;
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		struct err err = { 0 };

		json_string_field(json, "x", names[i], &text, &err);
		json_bool_field(json, "x", names[i], &flag, &err);
		json_u64_field(json, "x", names[i], UINT64_MAX, &number, &err);
		json_i64_field(json, "x", names[i], &signed_number, &err);
		json_array_field(json, "x", names[i], &found, &err);
		if (json_field(json, "x", names[i], &found, &err) == 0 && found)
			use(found);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	json_t *ours = NULL, *plain;
	json_error_t error;
	struct err err = { 0 };
	int r = json_parse(text, size, &ours, &err);

	plain = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	FUZZ_CHECK((r == 0) == (ours != NULL));
	if (r < 0)
		FUZZ_CHECK(err.kind == ERR_INVALID || err.kind == ERR_BAD_REQUEST);
	if (r == 0 && longest_run_of_digits(text, size) < 19)
		FUZZ_CHECK(plain && json_equal(ours, plain));
	if (r == 0)
		use(ours);
	json_decref(ours);
	json_decref(plain);
	return 0;
}

#include "base/size_text.h"

#include <stdio.h>

#include "base/auto.h"

void size_text(char text[SIZE_TEXT_BYTES], uint64_t n_bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	uint64_t whole = n_bytes, rest = 0;
	size_t unit = 0;

	if (n_bytes < 1024) {
		snprintf(text, SIZE_TEXT_BYTES, "%llu bytes", (unsigned long long)n_bytes);
		return;
	}
	for (; whole >= 1024; unit++) {
		rest = whole % 1024;
		whole /= 1024;
	}
	snprintf(text, SIZE_TEXT_BYTES, "%llu.%llu %s", (unsigned long long)whole,
		(unsigned long long)(rest * 10 / 1024), units[unit - 1]);
}

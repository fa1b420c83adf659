/* size_text.h - amounts of memory for people: "64.0 MiB". No heap: also for the shim. */
#pragma once
#include <stdint.h>

#define SIZE_TEXT_BYTES 32

void size_text(char text[SIZE_TEXT_BYTES], uint64_t n_bytes);

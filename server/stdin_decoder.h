/* stdin_decoder.h - what a Garden client sends on a hijacked connection: JSON objects one after the
 * other, cut anywhere, of any length. Stdin bytes are passed on as they come: no message is ever
 * held in memory. Bytes that are no UTF-8 go through as they are; "\u" escapes become UTF-8. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stdin_events {
	void (*data)(void *arg, const char *bytes, size_t n_bytes);
	void (*end)(void *arg); /* end of stdin, or an object of no known kind */
	void (*signal)(void *arg, int64_t number); /* Garden's: 0 TERM, 1 KILL */
	void (*resize)(void *arg, uint32_t columns, uint32_t rows);
};

#define DECODER_DEPTH 16

struct stdin_decoder {
	const struct stdin_events *events;
	void *arg;
	int state, depth;
	unsigned char is_array[DECODER_DEPTH], field[DECODER_DEPTH];
	char token[40]; /* a key, number or literal; longer ones are nothing we know */
	size_t n_token;
	bool is_key;
	uint32_t unicode, high_surrogate;
	int n_unicode;
	char out[1024];
	size_t n_out;
	bool has_source, has_data, has_signal, has_size, has_tty;
	int64_t signal;
	uint32_t columns, rows;
};

void stdin_decoder_init(
	struct stdin_decoder *decoder, const struct stdin_events *events, void *arg);
/* 0, or -EINVAL: this is not JSON, or no object; nothing more is read then. */
int stdin_decoder_feed(struct stdin_decoder *decoder, const char *bytes, size_t n_bytes);

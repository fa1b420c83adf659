#include "server/stdin_decoder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"

enum state {
	BETWEEN,
	VALUE,
	FIRST_KEY,
	KEY,
	COLON,
	AFTER,
	FIRST_ITEM,
	STRING,
	ESCAPE,
	UNICODE,
	BARE
};
enum field { F_OTHER, F_SOURCE, F_DATA, F_SIGNAL, F_TTY, F_WINDOW_SIZE, F_COLUMNS, F_ROWS };

/* A key means something only in its place. */
static const struct {
	const char *name;
	int depth;
	enum field within, field;
} fields[] = {
	{ "source", 1, F_OTHER, F_SOURCE },
	{ "data", 1, F_OTHER, F_DATA },
	{ "signal", 1, F_OTHER, F_SIGNAL },
	{ "tty", 1, F_OTHER, F_TTY },
	{ "window_size", 2, F_TTY, F_WINDOW_SIZE },
	{ "columns", 3, F_WINDOW_SIZE, F_COLUMNS },
	{ "rows", 3, F_WINDOW_SIZE, F_ROWS },
};

void stdin_decoder_init(struct stdin_decoder *decoder, const struct stdin_events *events, void *arg)
{
	*decoder = (struct stdin_decoder){ .events = events, .arg = arg, .state = BETWEEN };
}

static void flush(struct stdin_decoder *d)
{
	if (d->n_out)
		d->events->data(d->arg, d->out, d->n_out);
	d->n_out = 0;
}

static bool is_data(const struct stdin_decoder *d)
{
	return !d->is_key && d->depth == 1 && d->field[1] == F_DATA;
}

static void add_byte(struct stdin_decoder *d, char c)
{
	if (is_data(d)) {
		if (d->n_out == sizeof(d->out))
			flush(d);
		d->out[d->n_out++] = c;
	} else if (d->n_token < sizeof(d->token)) {
		d->token[d->n_token++] = c;
	}
}

static void add_code_point(struct stdin_decoder *d, uint32_t c)
{
	if (c < 0x80) {
		add_byte(d, (char)c);
		return;
	}
	if (c < 0x800) {
		add_byte(d, (char)(0xc0 | c >> 6));
	} else {
		if (c < 0x10000) {
			add_byte(d, (char)(0xe0 | c >> 12));
		} else {
			add_byte(d, (char)(0xf0 | c >> 18));
			add_byte(d, (char)(0x80 | (c >> 12 & 0x3f)));
		}
		add_byte(d, (char)(0x80 | (c >> 6 & 0x3f)));
	}
	add_byte(d, (char)(0x80 | (c & 0x3f)));
}

/* A high surrogate waits for its low one; alone, either is the replacement character. */
static void end_lone_surrogate(struct stdin_decoder *d)
{
	if (d->high_surrogate)
		add_code_point(d, 0xfffd);
	d->high_surrogate = 0;
}

static void add_unicode(struct stdin_decoder *d, uint32_t c)
{
	if (c >= 0xdc00 && c < 0xe000 && d->high_surrogate) {
		c = 0x10000 + ((d->high_surrogate - 0xd800) << 10) + (c - 0xdc00);
		d->high_surrogate = 0;
		add_code_point(d, c);
		return;
	}
	end_lone_surrogate(d);
	if (c >= 0xd800 && c < 0xdc00)
		d->high_surrogate = c;
	else
		add_code_point(d, c >= 0xdc00 && c < 0xe000 ? 0xfffd : c);
}

/* ---- meaning --------------------------------------------------------------------------------- */

static void end_key(struct stdin_decoder *d)
{
	enum field within = d->depth > 1 ? d->field[d->depth - 1] : F_OTHER;

	d->field[d->depth] = F_OTHER;
	for (size_t i = 0; i < N_ELEMENTS(fields); i++)
		if (fields[i].depth == d->depth && fields[i].within == within &&
			strlen(fields[i].name) == d->n_token &&
			!strncasecmp(fields[i].name, d->token, d->n_token))
			d->field[d->depth] = fields[i].field;
}

static void end_string(struct stdin_decoder *d)
{
	end_lone_surrogate(d);
	if (d->is_key) {
		end_key(d);
		d->state = COLON;
		return;
	}
	if (is_data(d)) {
		d->has_data = true;
		flush(d);
	}
	d->state = AFTER;
}

/* -1: no number that anybody here could mean */
static int64_t token_number(const struct stdin_decoder *d)
{
	int64_t value = 0;

	if (d->n_token == 0 || d->n_token > 15)
		return -1;
	for (size_t i = 0; i < d->n_token; i++) {
		if (d->token[i] < '0' || d->token[i] > '9')
			return -1;
		value = value * 10 + (d->token[i] - '0');
	}
	return value;
}

static bool token_is_sane(const struct stdin_decoder *d)
{
	static const char *const words[] = { "null", "true", "false" };

	for (size_t i = 0; i < N_ELEMENTS(words); i++)
		if (strlen(words[i]) == d->n_token && !memcmp(words[i], d->token, d->n_token))
			return true;
	for (size_t i = 0; i < d->n_token; i++)
		if (!memchr("0123456789+-.eE", d->token[i], 15))
			return false;
	return d->token[0] == '-' || (d->token[0] >= '0' && d->token[0] <= '9');
}

static uint32_t clamp(int64_t value)
{
	return value < 0 ? 0 : value > 65535 ? 65535 : (uint32_t)value;
}

static int end_bare(struct stdin_decoder *d)
{
	int64_t number = token_number(d);

	if (!token_is_sane(d))
		return -EINVAL;
	d->state = AFTER;
	if (d->is_array[d->depth] || d->token[0] == 'n')
		return 0;
	switch (d->field[d->depth]) {
	case F_SOURCE:
		d->has_source = true;
		break;
	case F_SIGNAL:
		d->has_signal = true;
		d->signal = number;
		break;
	case F_COLUMNS:
		d->has_size = true;
		d->columns = clamp(number);
		break;
	case F_ROWS:
		d->has_size = true;
		d->rows = clamp(number);
		break;
	default:
		break;
	}
	return 0;
}

static void end_message(struct stdin_decoder *d)
{
	if (d->has_signal)
		d->events->signal(d->arg, d->signal);
	else if (d->has_size)
		d->events->resize(d->arg, d->columns, d->rows);
	else if (!d->has_data && !d->has_tty)
		d->events->end(d->arg);
	d->has_source = d->has_data = d->has_signal = d->has_size = d->has_tty = false;
	d->columns = d->rows = 0;
	d->state = BETWEEN;
}

/* ---- grammar --------------------------------------------------------------------------------- */

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int open_container(struct stdin_decoder *d, bool is_array)
{
	if (d->depth + 1 == DECODER_DEPTH)
		return -EINVAL;
	if (d->depth == 1 && d->field[1] == F_TTY)
		d->has_tty = true;
	d->depth++;
	d->is_array[d->depth] = is_array;
	d->field[d->depth] = F_OTHER;
	d->state = is_array ? FIRST_ITEM : FIRST_KEY;
	return 0;
}

static int close_container(struct stdin_decoder *d, bool is_array)
{
	if (d->is_array[d->depth] != is_array)
		return -EINVAL;
	d->depth--;
	d->state = AFTER;
	if (d->depth == 0)
		end_message(d);
	return 0;
}

static void open_string(struct stdin_decoder *d, bool is_key)
{
	d->is_key = is_key;
	d->n_token = 0;
	d->state = STRING;
}

static int on_value(struct stdin_decoder *d, char c)
{
	if (c == '{' || c == '[')
		return open_container(d, c == '[');
	if (c == '"') {
		open_string(d, false);
		return 0;
	}
	if (c == ',' || c == ':' || c == '}' || c == ']')
		return -EINVAL;
	d->is_key = true; /* its bytes go into the token */
	d->n_token = 0;
	add_byte(d, c);
	d->state = BARE;
	return 0;
}

static int on_after(struct stdin_decoder *d, char c)
{
	if (c == ',') {
		d->state = d->is_array[d->depth] ? VALUE : KEY;
		return 0;
	}
	return c == '}' || c == ']' ? close_container(d, c == ']') : -EINVAL;
}

static int on_key(struct stdin_decoder *d, char c)
{
	if (c != '"')
		return -EINVAL;
	open_string(d, true);
	return 0;
}

static int on_structure(struct stdin_decoder *d, char c)
{
	if (is_space(c))
		return 0;
	switch ((enum state)d->state) {
	case BETWEEN:
		return c == '{' ? open_container(d, false) : -EINVAL;
	case FIRST_KEY:
		return c == '}' ? close_container(d, false) : on_key(d, c);
	case KEY:
		return on_key(d, c);
	case COLON:
		d->state = VALUE;
		return c == ':' ? 0 : -EINVAL;
	case FIRST_ITEM:
		return c == ']' ? close_container(d, true) : on_value(d, c);
	case VALUE:
		return on_value(d, c);
	case AFTER:
		return on_after(d, c);
	default:
		return -EINVAL; /* within a token, which has its own function */
	}
}

static int on_escape(struct stdin_decoder *d, char c)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *there;

	if (c == 'u') {
		d->unicode = 0;
		d->n_unicode = 0;
		d->state = UNICODE;
		return 0;
	}
	there = memchr(from, c, sizeof(from) - 1);
	if (!there)
		return -EINVAL;
	end_lone_surrogate(d);
	add_byte(d, to[there - from]);
	d->state = STRING;
	return 0;
}

static int on_unicode(struct stdin_decoder *d, char c)
{
	uint32_t digit;

	if (c >= '0' && c <= '9')
		digit = (uint32_t)(c - '0');
	else if ((c | 32) >= 'a' && (c | 32) <= 'f')
		digit = (uint32_t)((c | 32) - 'a' + 10);
	else
		return -EINVAL;
	d->unicode = d->unicode << 4 | digit;
	if (++d->n_unicode == 4) {
		add_unicode(d, d->unicode);
		d->state = STRING;
	}
	return 0;
}

static int on_string(struct stdin_decoder *d, char c)
{
	if (c == '\\') {
		d->state = ESCAPE;
		return 0;
	}
	if (c == '"') {
		end_string(d);
		return 0;
	}
	if ((unsigned char)c < 0x20)
		return -EINVAL;
	end_lone_surrogate(d);
	add_byte(d, c);
	return 0;
}

static int on_bare(struct stdin_decoder *d, char c)
{
	int r;

	if (!is_space(c) && c != ',' && c != '}' && c != ']') {
		add_byte(d, c);
		return 0;
	}
	r = end_bare(d);
	return r < 0 ? r : on_structure(d, c);
}

int stdin_decoder_feed(struct stdin_decoder *d, const char *bytes, size_t n_bytes)
{
	int r = 0;

	for (size_t i = 0; i < n_bytes && r == 0; i++) {
		if (d->state == STRING)
			r = on_string(d, bytes[i]);
		else if (d->state == ESCAPE)
			r = on_escape(d, bytes[i]);
		else if (d->state == UNICODE)
			r = on_unicode(d, bytes[i]);
		else if (d->state == BARE)
			r = on_bare(d, bytes[i]);
		else
			r = on_structure(d, bytes[i]);
	}
	if (d->depth == 1 && d->field[1] == F_DATA)
		flush(d);
	return r;
}

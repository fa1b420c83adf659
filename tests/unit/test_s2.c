#include "codec_streams.h"

#include "volumes/crc32c.h"

#define S2_MAGIC "\xff\x06\x00\x00S2sTwO"
#define SNAPPY_MAGIC "\xff\x06\x00\x00sNaPpY"
#define MAGIC_BYTES 10
#define MAX_BLOCK_BYTES (4 << 20)

static struct crc32c crc;
static struct buf stream;

static void begin(const char *magic)
{
	buf_done(&stream);
	buf_init(&stream, STREAM_CAP_BYTES);
	assert_int_equal(buf_add(&stream, magic, magic ? MAGIC_BYTES : 0), 0);
}

static void add_head(unsigned type, size_t n_bytes)
{
	const char head[] = { (char)type, (char)n_bytes, (char)(n_bytes >> 8),
		(char)(n_bytes >> 16) };

	assert_int_equal(buf_add(&stream, head, 4), 0);
}

static void add_chunk(unsigned type, const void *body, size_t n_bytes)
{
	add_head(type, n_bytes);
	assert_int_equal(buf_add(&stream, body, n_bytes), 0);
}

/* A chunk of type 0 or 1 with the checksum of what it means. */
static void add_block(
	unsigned type, const void *body, size_t n_bytes, const void *meaning, size_t n_meaning)
{
	uint32_t sum = crc32c_of(&crc, meaning, n_meaning);
	char bytes[4];

	sum = (sum >> 15 | sum << 17) + 0xa282ead8;
	for (int i = 0; i < 4; i++)
		bytes[i] = (char)(sum >> (8 * i));
	add_head(type, n_bytes + 4);
	assert_int_equal(buf_add(&stream, bytes, 4), 0);
	assert_int_equal(buf_add(&stream, body, n_bytes), 0);
}

#define ADD_BLOCK(body, meaning) add_block(0, body, sizeof(body) - 1, meaning, sizeof(meaning) - 1)
#define ASSERT_MEANS(text) assert_decodes(CODEC_S2, stream.data, stream.len, text, sizeof(text) - 1)
#define ASSERT_BAD() assert_is_bad(CODEC_S2, stream.data, stream.len)

/* By hand, the checksum by another program. */
static void a_known_stream_is_decoded(void **state UNUSED)
{
	static const char known[] = SNAPPY_MAGIC "\x01\x0b\x00\x00\xc1\x61\x73\x27xyzuvwt";

	assert_decodes(CODEC_S2, known, sizeof(known) - 1, "xyzuvwt", 7);
	assert_decodes(CODEC_AUTO, known, sizeof(known) - 1, "xyzuvwt", 7);
}

/* Recorded: what s2.NewWriter of github.com/klauspost/compress v1.17 makes of this text. */
static void what_go_writes_is_read(void **state UNUSED)
{
	static const char recorded[] = S2_MAGIC
		"\x00\x24\x00\x00\xf7\x2d\x70\x91\xfd\x25\x38\x67\x61\x72\x64"
		"\x65\x6e\x2c\x20\x67\x6c\x61\x73\x73\x2c\x20\xb2\x0f\x00\x00\x21\x3e\x36\x00\x11\x10\x19\x00\xa4\x11";
	char text[60 + 1 + 300 * 16 + 1] =
		"garden, glass, garden, glass, garden, glass, garden, glass, !";

	for (size_t at = 61; at < sizeof(text) - 1; at += 16)
		memcpy(text + at, " glass, garden, ", 16);
	assert_decodes(CODEC_S2, recorded, sizeof(recorded) - 1, text, sizeof(text) - 1);
}

static void blocks_come_one_after_the_other(void **state UNUSED)
{
	begin(S2_MAGIC);
	ASSERT_MEANS("");
	ADD_BLOCK("\x05\x10hello", "hello");
	ADD_BLOCK("\x09\x10hello\x01\x05", "hellohell");
	add_block(1, " stored", 7, " stored", 7);
	ASSERT_MEANS("hellohellohell stored");
	ADD_BLOCK("\x00", "");
	add_block(1, "", 0, "", 0);
	ASSERT_MEANS("hellohellohell stored");
	assert_int_equal(buf_add(&stream, SNAPPY_MAGIC, MAGIC_BYTES), 0);
	add_block(1, "!", 1, "!", 1);
	ASSERT_MEANS("hellohellohell stored!");
}

static void only_s2_repeats_offsets(void **state UNUSED)
{
	begin(S2_MAGIC);
	ADD_BLOCK("\x0d\x10hello\x01\x05\x01\x00", "hellohellohel");
	ASSERT_MEANS("hellohellohel");
	begin(SNAPPY_MAGIC);
	ADD_BLOCK("\x0d\x10hello\x01\x05\x01\x00", "hellohellohel");
	ASSERT_BAD();
}

static void the_last_offset_ends_with_its_block(void **state UNUSED)
{
	begin(S2_MAGIC);
	ADD_BLOCK("\x09\x10hello\x01\x05", "hellohell");
	ADD_BLOCK("\x09\x10hello\x01\x00", "hellohell");
	ASSERT_BAD();
}

static void a_wrong_checksum_is_found(void **state UNUSED)
{
	begin(S2_MAGIC);
	ADD_BLOCK("\x05\x10hello", "hallo");
	ASSERT_BAD();
	begin(S2_MAGIC);
	add_block(1, "hello", 5, "hallo", 5);
	ASSERT_BAD();
}

static void unknown_chunks_are_skipped_or_refused(void **state UNUSED)
{
	static uint8_t body[(1 << 24) - 1];

	for (unsigned type = 0x80; type < 0xff; type++) {
		begin(S2_MAGIC);
		add_chunk(type, body, type == 0xfe ? sizeof(body) : type - 0x80);
		add_block(1, "x", 1, "x", 1);
		ASSERT_MEANS("x");
	}
	for (unsigned type = 2; type < 0x80; type++) {
		begin(S2_MAGIC);
		add_chunk(type, "", 0);
		ASSERT_BAD();
	}
	begin(S2_MAGIC);
	add_head(0xfe, 1);
	ASSERT_BAD();
}

static void a_stream_says_first_what_it_is(void **state UNUSED)
{
	begin(NULL);
	add_block(1, "x", 1, "x", 1);
	ASSERT_BAD();
	begin(NULL);
	add_chunk(0xfe, "", 0);
	ASSERT_BAD();
	begin("\xff\x06\x00\x00s2StWo");
	ASSERT_BAD();
	begin("\xff\x05\x00\x00S2sTwO");
	ASSERT_BAD();
	begin(S2_MAGIC);
	assert_int_equal(buf_add(&stream, "\xff\x06\x00\x00sNAPPY", MAGIC_BYTES), 0);
	ASSERT_BAD();
}

/* One block of zeros; compressed: a zero, 4 copies of it, and a repeat for all others. */
static void add_zeros(unsigned type, size_t n_bytes)
{
	AUTO_FREE uint8_t *zeros = make_material(ZEROS, n_bytes);
	size_t n = n_bytes, n_repeats = n_bytes - 5 - 65540;
	char block[16], *at = block;

	if (type == 1) {
		add_block(1, zeros, n_bytes, zeros, n_bytes);
		return;
	}
	for (; n >= 0x80; n >>= 7)
		*at++ = (char)(n | 0x80);
	*at++ = (char)n;
	memcpy(at, "\x00\x00\x01\x01\x1d\x00", 6);
	at += 6;
	for (int i = 0; i < 3; i++)
		*at++ = (char)(n_repeats >> (8 * i));
	add_block(0, block, (size_t)(at - block), zeros, n_bytes);
}

static void blocks_are_bounded(void **state UNUSED)
{
	AUTO_FREE uint8_t *zeros = make_material(ZEROS, MAX_BLOCK_BYTES);

	for (unsigned type = 0; type <= 1; type++) {
		begin(S2_MAGIC);
		add_zeros(type, MAX_BLOCK_BYTES);
		assert_decodes(CODEC_S2, stream.data, stream.len, zeros, MAX_BLOCK_BYTES);
		begin(S2_MAGIC);
		add_zeros(type, MAX_BLOCK_BYTES + 1);
		ASSERT_BAD();
	}
	begin(SNAPPY_MAGIC);
	add_zeros(1, 65536);
	assert_decodes(CODEC_S2, stream.data, stream.len, zeros, 65536);
	begin(SNAPPY_MAGIC);
	add_zeros(1, 65537);
	ASSERT_BAD();
}

static void impossible_lengths_are_refused_at_once(void **state UNUSED)
{
	for (unsigned type = 0; type <= 1; type++) {
		for (size_t n = 0; n < 4; n++) {
			begin(S2_MAGIC);
			add_chunk(type, "abc", n);
			ASSERT_BAD();
		}
		begin(S2_MAGIC);
		add_head(type, 0xffffff);
		ASSERT_BAD();
	}
	begin(S2_MAGIC);
	add_chunk(0, "abcd", 4); /* a block without a length */
	ASSERT_BAD();
	begin(S2_MAGIC);
	ADD_BLOCK("\xff\xff\xff\xff\x0f\x10hello", "hello");
	ASSERT_BAD();
}

static void what_goes_out_is_snappy(void **state UNUSED)
{
	AUTO_BUF struct buf out;

	encode(CODEC_S2, 0, "", 0, 1, &out);
	assert_int_equal(out.len, MAGIC_BYTES);
	assert_memory_equal(out.data, SNAPPY_MAGIC, MAGIC_BYTES);
	buf_done(&out);
	encode(CODEC_S2, 0, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 40, 40, &out);
	assert_memory_equal(out.data, SNAPPY_MAGIC, MAGIC_BYTES);
	assert_int_equal(out.data[MAGIC_BYTES], 0);
	assert_true(out.len < MAGIC_BYTES + 8 + 10);
}

static int done(void **state UNUSED)
{
	buf_done(&stream);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_known_stream_is_decoded),
		cmocka_unit_test(what_go_writes_is_read),
		cmocka_unit_test(blocks_come_one_after_the_other),
		cmocka_unit_test(only_s2_repeats_offsets),
		cmocka_unit_test(the_last_offset_ends_with_its_block),
		cmocka_unit_test(a_wrong_checksum_is_found),
		cmocka_unit_test(unknown_chunks_are_skipped_or_refused),
		cmocka_unit_test(a_stream_says_first_what_it_is),
		cmocka_unit_test(blocks_are_bounded),
		cmocka_unit_test(impossible_lengths_are_refused_at_once),
		cmocka_unit_test(what_goes_out_is_snappy),
	};

	crc32c_init(&crc);
	buf_init(&stream, STREAM_CAP_BYTES);
	return cmocka_run_group_tests(tests, NULL, done);
}

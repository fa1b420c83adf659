#include "unit.h"

#include "base/auto.h"
#include "base/size_text.h"
#include "exit_report.h"
#include "resource_limits.h"
#include "shim/protocol.h"

#define MIB (UINT64_C(1) << 20)

static void sizes_read_well(void **state UNUSED)
{
	static const struct {
		uint64_t n_bytes;
		const char *text;
	} rows[] = { { 0, "0 bytes" }, { 1023, "1023 bytes" }, { 1024, "1.0 KiB" },
		{ 1536, "1.5 KiB" }, { 64 * MIB, "64.0 MiB" }, { 1024 * MIB - 1, "1023.9 MiB" },
		{ 2048 * MIB, "2.0 GiB" }, { UINT64_MAX, "15.9 EiB" } };
	char text[SIZE_TEXT_BYTES];

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		size_text(text, rows[i].n_bytes);
		assert_string_equal(text, rows[i].text);
	}
}

static void reasons_say_what_happened(void **state UNUSED)
{
	static const struct {
		struct msg_end end;
		struct limits limits;
		const char *text;
	} rows[] = {
		{ { .exited = { .exit_status = 3, .wait_status = 3 << 8 } }, { 0 },
			"exited with status 3" },
		{ { .exited = { .exit_status = 143, .wait_status = 15, .reason = EXIT_SIGNAL } },
			{ 0 }, "killed by signal 15 (TERM)" },
		{ { .exited = { .exit_status = 164, .wait_status = 36, .reason = EXIT_SIGNAL } },
			{ 0 }, "killed by signal 36 (real time)" },
		{ { .exited = { .exit_status = 137,
			    .wait_status = 9,
			    .reason = EXIT_CONTAINER_DEAD } },
			{ 0 }, "ended with its container" },
		{ { .exited = { .exit_status = 137, .wait_status = 9, .reason = EXIT_OOM },
			  .usage = { .oom_kills = 1,
				  .group_memory_peak_bytes = 64 * MIB,
				  .name = "java",
				  .pid = 7 } },
			{ .memory_bytes = 64 * MIB },
			"killed by OOM: limit 64.0 MiB, peak 64.0 MiB, process java(7)" },
		{ { .exited = { .exit_status = 137, .wait_status = 9, .reason = EXIT_OOM },
			  .usage = { .oom_kills = 1, .name = "java", .pid = 7 } },
			{ 0 }, "killed by OOM: no memory left on the host, process java(7)" },
		{ { .exited = { .exit_status = 1, .wait_status = 1 << 8 },
			  .usage = { .oom_kills = 2, .name = "sh", .pid = 5, .pids_hits = 3 } },
			{ .memory_bytes = MIB, .n_pids = 20 },
			"exited with status 1; out of memory: limit 1.0 MiB, a process started by "
			"sh(5) was killed; the limit of 20 processes stopped 3 more" },
	};
	char text[EXIT_TEXT_BYTES];

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		exit_reason_text(text, &rows[i].end, &rows[i].limits);
		assert_string_equal(text, rows[i].text);
	}
}

static void usage_is_an_object_of_numbers(void **state UNUSED)
{
	const struct msg_end end = { .exited = { .exit_status = 4,
					     .user_us = 1500007,
					     .system_us = 12,
					     .max_rss_kb = 3 },
		.usage = { .elapsed_ms = 61005,
			.read_bytes = 1,
			.written_bytes = 2,
			.group_memory_peak_bytes = 5,
			.group_pids_peak = 6 } };
	char text[EXIT_TEXT_BYTES];

	exit_usage_text(text, &end, "task");
	assert_string_equal(text,
		"{\"process\":\"task\",\"exit_status\":4,\"seconds\":61.005,\"user_seconds\":1.500007,"
		"\"system_seconds\":0.000012,\"memory_peak_bytes\":5,\"max_rss_bytes\":3072,"
		"\"read_bytes\":1,\"written_bytes\":2,\"pids_peak\":6}");
}

static void the_longest_texts_fit(void **state UNUSED)
{
	struct msg_end end;
	struct limits limits;
	char text[EXIT_TEXT_BYTES], id[PROCESS_ID_SIZE];

	memset(&end, 0xff, sizeof(end));
	memset(&limits, 0xff, sizeof(limits));
	end.exited.reason = EXIT_OOM;
	memset(id, 'x', sizeof(id));
	id[sizeof(id) - 1] = '\0';
	exit_reason_text(text, &end, &limits);
	assert_non_null(strstr(text, " more"));
	exit_usage_text(text, &end, id);
	assert_int_equal(text[strlen(text) - 1], '}');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_read_well),
		cmocka_unit_test(reasons_say_what_happened),
		cmocka_unit_test(usage_is_an_object_of_numbers),
		cmocka_unit_test(the_longest_texts_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

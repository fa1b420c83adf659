/* From the document of a client to the blob that the child walks: what is accepted on the way must pass
 * the check at the end. Input: a JSON document, read as both kinds of spec. */
#include "fuzz.h"

#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/strv.h"
#include "program.h"
#include "server/json.h"
#include "server/spec_json.h"
#include "shim/protocol.h"
#include "spec.h"
#include "users.h"

static void check_container(const json_t *json)
{
	struct container_spec spec = { 0 };
	struct err err = { 0 };

	if (container_spec_parse(json, &spec, &err) == 0) {
		FUZZ_CHECK(!spec.handle || *spec.handle);
		FUZZ_CHECK(spec.grace_ns >= 0);
		for (size_t i = 0; i < spec.n_binds; i++)
			FUZZ_CHECK(*spec.binds[i].src && *spec.binds[i].dst);
		for (size_t i = 0; i < spec.n_properties; i++)
			FUZZ_CHECK(spec.properties[i].key && spec.properties[i].value);
	} else {
		FUZZ_CHECK(err.kind != ERR_NONE && err.msg[0]);
	}
	container_spec_done(&spec);
}

static void check_process(const json_t *json)
{
	struct process_spec spec = { 0 };
	struct strv env = { 0 };
	struct user user = {
		.uid = 1000, .gid = 1000, .groups = { 7 }, .n_groups = 1, .home = "/home"
	};
	struct program_input input = { .spec = &spec, .container_env = &env, .user = &user };
	struct err err = { 0 };
	void *blob = NULL;
	size_t n_bytes;

	if (process_spec_parse(json, &spec, &err) == 0) {
		FUZZ_CHECK(spec.columns <= 65535 && spec.rows <= 65535);
		if (program_build(&input, &blob, &n_bytes, &err) == 0)
			FUZZ_CHECK(program_check(blob, n_bytes) == 0);
	} else {
		FUZZ_CHECK(err.kind != ERR_NONE && err.msg[0]);
	}
	free(blob);
	process_spec_done(&spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = NULL;
	struct err err = { 0 };

	if (json_parse((const char *)data, size, &json, &err) == 0 && json_is_object(json)) {
		check_container(json);
		check_process(json);
	}
	json_decref(json);
	return 0;
}

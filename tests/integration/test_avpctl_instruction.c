/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl instruction, run as a script would, on every recorded case. */
#include <string.h>

#include "tests/tool.h"

static int run(struct avp_str json)
{
	return TOOL("instruction", tool_save("in", json.data, json.len));
}

static void recorded(void)
{
	struct avp_buf json = {0};

	for (const struct avp_json *c = vectors_first("compact_instruction"); c;
	     c = avp_json_next(c)) {
		struct avp_str want = case_str(c, "output");
		struct bytes out;
		int status;

		if (case_bool(c, "surrogates_escaped"))
			continue;
		avp_buf_clear(&json);
		avp_json_write(&json, c, AVP_JSON_PYTHON);
		status = run(avp_buf_str(&json));
		out = tool_load("tool.out");
		if (avp_json_get(c, "error")) {
			CASE(c, status == 1 && !out.len);
		} else if (CASE(c, status == 0 && out.len == want.len + 1)) {
			CASE(c, !memcmp(out.data, want.data, want.len));
			CASE(c, out.data[want.len] == '\n');
		}
		bytes_free(&out);
	}
	avp_buf_fini(&json);
}

static void refused(const char *json, int status, const char *complaint)
{
	CU_ASSERT_EQUAL(run(avp_str_of(json)), status);
	CU_ASSERT(tool_complained("tool", complaint));
}

static void refusals(void)
{
	refused("{", 1, "avpctl: instruction: BAD_JSON: byte 1: expected");
	refused("[]", 1, "avpctl: instruction: INVALID_MESSAGE: an instr");
	refused("{\"task\":{}}", 1,
		"avpctl: instruction: INVALID_MESSAGE: \"user_profile\" is");
	refused("{\"user_profile\":{},\"task\":{},\"max_tokens\":1.5}", 1,
		"avpctl: instruction: INVALID_MESSAGE: \"max_tokens\" is");
	refused("{\"user_profile\":{},\"task\":{\"category\":\"\\ud800\"}}", 1,
		"avpctl: instruction: SERIALIZATION_ERROR: byte 6");
	CU_ASSERT_EQUAL(run(avp_str_of("{\"user_profile\":{},\"task\":{},"
				       "\"context\":null}")),
			0);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(recorded),
		TEST(refusals),
		{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	return test_main("avpctl_instruction", tests);
}

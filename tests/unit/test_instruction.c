/* SPDX-License-Identifier: Apache-2.0 */
/* The compact instruction, and how Python shows values. */
#include <stdio.h>
#include <string.h>

#include <avp/message.h>

#include "tests/vectors.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static struct avp_reason why;

static void recorded(void)
{
	VECTORS("compact_instruction", 50);
	for (const struct avp_json *c = vectors_first("compact_instruction"); c;
	     c = avp_json_next(c)) {
		struct bytes context =
			vectors_string(c, case_str(c, "context"));
		struct bytes want = vectors_string(c, case_str(c, "output"));
		struct ahp_instruction in = {
			.user_profile = avp_json_get(c, "user_profile"),
			.task = avp_json_get(c, "task"),
			.context = {(char *)context.data, context.len},
			.max_tokens = case_int(c, "max_tokens"),
			.default_limit = case_int(c, "default_limit"),
		};
		struct avp_buf buf = {0};
		int code = ahp_instruction_write(&buf, &in, &why);

		if (avp_json_get(c, "error")) {
			CASE(c, code == AVP_INVALID_MESSAGE);
			CASE(c, buf.len == 0);
		} else if (CASE(c, code == 0)) {
			CASE(c, buf.len == want.len &&
					!memcmp(buf.data, want.data, want.len));
		}
		avp_buf_fini(&buf);
		bytes_free(&context);
		bytes_free(&want);
	}
}

/* The instruction of a profile whose only key is a trait. */
static void shows(struct avp_str profile, const char *text)
{
	struct avp_json_doc *doc = NULL;
	struct ahp_instruction in = {.default_limit = 500};
	struct avp_buf buf = {0};

	if (avp_json_parse(&doc, profile.data, profile.len, NULL, &why))
		printf("  %s\n", why.text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(doc);
	in.user_profile = avp_json_root(doc);
	if (ahp_instruction_write(&buf, &in, &why))
		avp_buf_append(&buf, "refused", 7);
	if (strcmp(buf.data, text) != 0) {
		printf("  %s\n  not %s\n", buf.data, text);
		CU_FAIL("shown otherwise");
	}
	avp_buf_fini(&buf);
	avp_json_free(doc);
}

/* Expected texts from Python 3.11's str(). */
static void python_values(void)
{
	shows(S("{\"age\":[1,-0.5,null,true,\"a\",{\"k\":[]}]}"),
	      "Task: unknown\nTarget: User\n"
	      "User Info: Age: [1, -0.5, None, True, 'a', {'k': []}]");
	shows(S("{\"age\":Infinity,\"mood\":[NaN,-Infinity]}"),
	      "Task: unknown\nTarget: User\n"
	      "User Info: Age: inf; Mood: [nan, -inf]");
	shows(S("{\"age\":NaN}"),
	      "Task: unknown\nTarget: User\nUser Info: Age: nan");
	shows(S("{\"mood\":[\"it's\",\"\\\"\",\"'\\\"\",\"\\\\\",\"\\n\\t\\r\"]"
		"}"),
	      "Task: unknown\nTarget: User\nUser Info: Mood: "
	      "[\"it's\", '\"', '\\'\"', '\\\\', '\\n\\t\\r']");
	shows(S("{\"mood\":[\"\\u0000\\u007f\\u00a0\\u00e9\\u200b\\ud800\","
		"\"\\ud83d\\ude00\\udb40\\udc01\"]}"),
	      "Task: unknown\nTarget: User\nUser Info: Mood: "
	      "['\\x00\\x7f\\xa0\xc3\xa9\\u200b\\ud800', "
	      "'\xf0\x9f\x98\x80\\U000e0001']");
	shows(S("{\"name\":false,\"age\":0.0,\"mood\":{},\"gender\":[]}"),
	      "Task: unknown\nTarget: False");
	shows(S("{\"age\":12345678901234567890123,\"mood\":1e16}"),
	      "Task: unknown\nTarget: User\n"
	      "User Info: Age: 12345678901234567890123; Mood: 1e+16");
	shows(S("{\"hobbies\":{\"a\":1,\"b\":2}}"),
	      "Task: unknown\nTarget: User\nUser Info: Hobbies: a,b");
	shows(S("{\"hobbies\":\"a\\u00e9\\ud83d\\ude00\"}"),
	      "Task: unknown\nTarget: User\n"
	      "User Info: Hobbies: a,\xc3\xa9,\xf0\x9f\x98\x80");
	shows(S("{\"hobbies\":[\"\",\"\"]}"),
	      "Task: unknown\nTarget: User\nUser Info: Hobbies: ,");
	shows(S("{\"hobbies\":5}"), "refused");
	shows(S("{\"hobbies\":true}"), "refused");
	shows(S("{\"hobbies\":0}"), "Task: unknown\nTarget: User");
	shows(S("[]"), "refused");
}

/* What the recorded sender makes of a TASK's payload. */
static void task_payloads(void)
{
	uint32_t done = 0;

	for (const struct avp_json *c = vectors_first("ahp_sender"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *call =
			avp_json_get(avp_json_get(c, "call"), "send_task");
		const struct avp_json *payload = avp_json_get(call, "payload");
		const struct avp_json *want =
			avp_json_get(avp_json_get(c, "message"), "payload");
		struct avp_buf got = {0}, text = {0};

		if (!payload)
			continue;
		done++;
		CASE(c, !ahp_task_payload_write(&got, payload,
						case_str(call, "context"),
						case_int(call, "token_limit"),
						500, AVP_JSON_PYTHON, &why));
		CASE(c, !avp_json_write(&text, want, AVP_JSON_PYTHON));
		CASE(c, avp_str_equal(avp_buf_str(&got), avp_buf_str(&text)));
		avp_buf_fini(&got);
		avp_buf_fini(&text);
	}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

static void task_payload_by_hand(void)
{
	static const struct avp_str text =
		S("{\"compact_instruction\":\"old\",\"category\":\"c\","
		  "\"user_info\":null}");
	struct avp_json_doc *doc = NULL;
	struct avp_buf buf = {0};

	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, text.data, text.len, NULL, &why), 0);
	CU_ASSERT_EQUAL(ahp_task_payload_write(&buf, avp_json_root(doc), S(""),
					       0, 500, AVP_JSON_COMPACT, &why),
			0);
	CU_ASSERT_STRING_EQUAL(
		buf.data, "{\"compact_instruction\":\"Task: c\\nTarget: User\","
			  "\"category\":\"c\",\"user_info\":null}");
	avp_buf_clear(&buf);
	CU_ASSERT_EQUAL(ahp_task_payload_write(&buf, NULL, S(""), 0, 500,
					       AVP_JSON_COMPACT, &why),
			0);
	CU_ASSERT_STRING_EQUAL(
		buf.data,
		"{\"compact_instruction\":\"Task: None\\nTarget: User\"}");
	CU_ASSERT_EQUAL(ahp_task_payload_write(
				&buf,
				avp_json_get(avp_json_root(doc), "category"),
				S(""), 0, 500, AVP_JSON_COMPACT, &why),
			AVP_INVALID_MESSAGE);
	avp_buf_fini(&buf);
	avp_json_free(doc);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(recorded),
		TEST(python_values),
		TEST(task_payloads),
		TEST(task_payload_by_hand),
		{0},
	};

	return test_main("instruction", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <avp/error.h>

#include "tests/harness.h"

static void names(void)
{
	CU_ASSERT_STRING_EQUAL(avp_error_name(AVP_BAD_MAGIC), "BAD_MAGIC");
	CU_ASSERT_STRING_EQUAL(avp_error_name(AVP_QUEUE_FULL), "QUEUE_FULL");
	CU_ASSERT_STRING_EQUAL(avp_error_name(AVP_OK), "OK");
	CU_ASSERT_STRING_EQUAL(avp_error_name(12345), "UNKNOWN");
	CU_ASSERT(strlen(avp_error_text(AVP_TIMEOUT)) > 0);
}

static void reason_is_cut_not_overrun(void)
{
	struct avp_reason why;
	char text[1000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	CU_ASSERT_EQUAL(avp__fail(&why, AVP_IO, "%s", text), AVP_IO);
	CU_ASSERT_EQUAL(why.code, AVP_IO);
	CU_ASSERT_EQUAL(strlen(why.text), sizeof(why.text) - 1);
	CU_ASSERT_EQUAL(avp__fail(NULL, AVP_IO, "%s", text), AVP_IO);
}

/* A reason goes into JSON: whatever is cut or named, it is UTF-8. */
static void reason_is_utf8(void)
{
	static const struct {
		const char *given, *text;
	} all[] = {
		{"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
		 "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
		{"a\xff\xc3", "a??"},
		{"\xe2\x82", "??"},
		{"\xed\xa0\x80", "???"},
		{"\xc0\x80\xf4\x90\x80\x80z", "??????z"},
		{"\xe0\x9f\xbf\xf0\x8f\xbf\xbf", "???????"},
		{"\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80",
		 "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80"},
	};
	struct avp_reason why;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		avp__fail(&why, AVP_IO, "%s", all[i].given);
		CU_ASSERT_STRING_EQUAL(why.text, all[i].text);
	}
	avp__fail(&why, AVP_IO, "%.4s|", "a\xc3\xa9\xc3\xa9");
	CU_ASSERT_STRING_EQUAL(why.text, "a\xc3\xa9?|");
}

int main(void)
{
	static const struct test tests[] = {
		TEST(names),
		TEST(reason_is_cut_not_overrun),
		TEST(reason_is_utf8),
		{0},
	};

	return test_main("error", tests);
}

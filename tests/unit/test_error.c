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

int main(void)
{
	static const struct test tests[] = {
		TEST(names),
		TEST(reason_is_cut_not_overrun),
		{0},
	};

	return test_main("error", tests);
}

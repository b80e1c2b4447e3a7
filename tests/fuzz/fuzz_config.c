/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a configuration: read, or refused with a line and column. */
#include <stdlib.h>
#include <string.h>

#include <avp/config.h>

#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct ahp_config c;
	struct avp_reason why;
	int err = ahp_config_parse(&c, "f", data, len, &why);

	if (err) {
		MUST(err == AVP_BAD_CONFIG && !strncmp(why.text, "f:", 2));
		return 0;
	}
	MUST(c.max_retries <= 1000 && c.task_timeout_ns > 0);
	MUST(c.allowed_uid_count <= AHP_CONFIG_UIDS);
	MUST(!(c.window & (c.window - 1)) && c.wait <= AHP_WAIT_BLOCK);
	MUST(strlen(c.name_space) <= AHP_ID_BYTES);
	MUST(strlen(c.dlq_dir) < sizeof(c.dlq_dir));
	return 0;
}

#ifndef AVP_FUZZING
#include <stdio.h>

/* The example, its beginnings, and each byte changed to what YAML minds. */
static void neighbours_of_the_example(void)
{
	static const char marks[] = "\t\n :,[]{}&*!|>'\"%@`#-?\xff";
	FILE *f = fopen("ahp/avp.example.yaml", "re");
	char text[8000];
	size_t len;

	CU_ASSERT_FATAL(f != NULL);
	len = fread(text, 1, sizeof(text), f);
	fclose(f);
	for (size_t n = 0; n <= len; n += 3)
		feed(text, n);
	for (size_t i = 0; i < len; i++) {
		char was = text[i];

		text[i] = marks[i % sizeof(marks)];
		feed(text, len);
		text[i] = was;
	}
}

static void shapes(void)
{
	static const char *const texts[] = {
		"a: &a [*a,*a]",
		"&a [&b [*a]]",
		"? ? ? ? x",
		"- - - - - - - - - -",
		"%YAML 1.2\n---\nahp: {}\n...\n",
		"ahp: {? max_retries : 3}",
		"ahp: {allowed_uids: [1,2,3,4,[5]]}",
		"ahp: |\n  text\n",
		"\xef\xbb\xbf# a mark in front\nahp: {}",
		"gateway: {a: {b: {c: [1, {d: e}]}}}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		for (size_t n = 0; n <= strlen(texts[i]); n++)
			feed(texts[i], n);
	CU_PASS();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(neighbours_of_the_example),
		TEST(shapes),
		{0},
	};

	return test_main("fuzz_config", tests);
}
#endif

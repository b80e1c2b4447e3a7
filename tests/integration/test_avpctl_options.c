/* SPDX-License-Identifier: Apache-2.0 */
/* What holds for every command of avpctl: its arguments and its page. */
#include <stdlib.h>
#include <string.h>

#include "tests/tool.h"

static const char *const commands[][2] = {
	{"ls", NULL},	       {"stat", NULL},	       {"top", NULL},
	{"send", NULL},	       {"recv", NULL},	       {"dlq", NULL},
	{"instruction", NULL}, {"frame", "decode"},    {"frame", "decode-many"},
	{"frame", "encode"},   {"kv", "inspect"},      {"identity", NULL},
	{"resolve", NULL},     {"realign", "compute"}, {"realign", "apply"},
	{"bench", NULL},       {"doctor", NULL},
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

/* Runs a command with up to three words behind it. */
static int run(size_t which, const char *a, const char *b, const char *c)
{
	const char *words[6] = {commands[which][0]};
	int n = 1;

	if (commands[which][1])
		words[n++] = commands[which][1];
	words[n++] = a;
	words[n++] = b;
	words[n] = c;
	return tool_finish(tool_start_list("tool", TOOL_FILE, words));
}

static void each_has_a_page(void)
{
	static const char *const parts[] = {
		"usage: avpctl ", "\noptions:\n", "--namespace NAME",
		"--config FILE",  "--help ",	  "\nexit status:\n"};

	for (size_t i = 0; i < COMMANDS; i++) {
		CU_ASSERT_EQUAL(run(i, "--help", NULL, NULL), 0);
		for (size_t k = 0; k < 6; k++)
			CU_ASSERT(tool_has("tool.out", parts[k]));
	}
	CU_ASSERT_EQUAL(TOOL("--help"), 0);
	CU_ASSERT_EQUAL(TOOL("help"), 0);
	CU_ASSERT(tool_has("tool.out", "\ncommands:\n"));
	CU_ASSERT_EQUAL(TOOL("frame", "--help"), 0);
	CU_ASSERT(tool_has("tool.out", "\ncommands:\n  decode "));
}

/* A terminal of 80 columns shows each line as it is. */
static void pages_are_narrow(void)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		struct bytes page;
		const char *p;

		run(i, "--help", NULL, NULL);
		page = tool_load("tool.out");
		p = (const char *)page.data;
		while (*p) {
			size_t n = strcspn(p, "\n");

			if (n > 80)
				printf("  %s: %.*s\n", commands[i][0], (int)n,
				       p);
			CU_ASSERT(n <= 80);
			p += n + 1;
		}
		bytes_free(&page);
	}
}

static void each_refuses_alike(void)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		CU_ASSERT_EQUAL(run(i, "--nonsense", NULL, NULL), 2);
		CU_ASSERT(tool_has("tool.err", "--nonsense is no option here"));
		CU_ASSERT_EQUAL(run(i, "-x", NULL, NULL), 2);
		CU_ASSERT(tool_has("tool.err", "-x is no option here"));
		CU_ASSERT_EQUAL(run(i, "--namespace", NULL, NULL), 2);
		CU_ASSERT(tool_has("tool.err", "--namespace needs a value"));
		CU_ASSERT_EQUAL(run(i, "--namespace", "", NULL), 2);
		CU_ASSERT(tool_has("tool.err", "--namespace \"\": the value"));
		CU_ASSERT_EQUAL(run(i, "--config=", NULL, NULL), 2);
		CU_ASSERT_EQUAL(run(i, "--config=a", "--config=b", NULL), 2);
		CU_ASSERT(tool_has("tool.err", "--config is given twice"));
		CU_ASSERT_EQUAL(run(i, "", NULL, NULL), 2);
		CU_ASSERT_EQUAL(run(i, "a", "b", "c"), 2);
		CU_ASSERT(tool_has("tool.err", ": USAGE: "));
	}
}

static void options_stand_anywhere(void)
{
	tool_save("-bad", "BV\1\0\0\0\0\0\0\0\0\0", 12);
	CU_ASSERT_EQUAL(TOOL("--namespace", "x", "ls", "--json"), 0);
	CU_ASSERT_EQUAL(TOOL("ls", "--json", "--namespace=x"), 0);
	CU_ASSERT_EQUAL(TOOL("--namespace=x", "ls", "--namespace=y"), 2);
	CU_ASSERT(tool_complained("tool", "avpctl: ls: USAGE: --namespace is "
					  "given twice; see avpctl ls --help"));
	CU_ASSERT_EQUAL(TOOL("ls", "--json", "--json"), 2);
	CU_ASSERT_EQUAL(TOOL("ls", "--json=yes"), 2);
	CU_ASSERT_EQUAL(TOOL("ls", "--js"), 2);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("-bad"),
			     "--max-payload", "4K"),
			1);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", "--max-payload=4K", "--",
			     tool_path("-bad")),
			1);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", "--", "--help"), 3);
	CU_ASSERT(tool_complained("tool", "avpctl: frame decode: IO: cannot "
					  "open --help: "));
}

static void values_of_each_kind(void)
{
	static const char *const bad[][2] = {
		{"--timeout", "-1"},
		{"--timeout", "inf"},
		{"--timeout", "1s"},
		{"--timeout", "2e9"},
		{"--count", "-1"},
		{"--count", "1.5"},
		{"--count", ""},
		{"--max-payload", "1X"},
		{"--count", " 1"},
		{"--max-payload", "18446744073709551615K"},
		{"--timeout", "nan"},
		{"--max-payload", "K"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		CU_ASSERT_EQUAL(TOOL("recv", "--as", "a", bad[i][0], bad[i][1]),
				2);
		CU_ASSERT(tool_has("tool.err", ": the value has to be "));
	}
	CU_ASSERT_EQUAL(TOOL("recv", "--as", "a", "--count", "0", "--timeout",
			     ".01", "--max-payload", "4G"),
			0);
	CU_ASSERT_EQUAL(TOOL("send", "a", "--json", "{}", "--task", "\xff"), 2);
	CU_ASSERT(tool_has("tool.err", "one of valid UTF-8"));
	CU_ASSERT_EQUAL(
		TOOL("send", "a", "--json", "{}", "--session", "\xed\xa0\x80"),
		2);
}

static void no_command(void)
{
	CU_ASSERT_EQUAL(TOOL("fold"), 2);
	CU_ASSERT(tool_complained("tool", "avpctl: arguments: USAGE: \"fold\" "
					  "is no command here; see avpctl "
					  "--help"));
	CU_ASSERT_EQUAL(TOOL("kv", "fold"), 2);
	CU_ASSERT(tool_complained("tool", "avpctl: kv: USAGE: \"fold\""));
	CU_ASSERT_EQUAL(tool_finish(tool_start_list(
				"tool", -1, (const char *const[]){NULL})),
			2);
	CU_ASSERT(tool_has("tool.out", "\ncommands:\n"));
	CU_ASSERT(tool_complained("tool", "avpctl: arguments: USAGE: one"));
	CU_ASSERT_EQUAL(TOOL("--version"), 0);
	CU_ASSERT(tool_has("tool.out", "avpctl "));
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(each_has_a_page),
		TEST(pages_are_narrow),
		TEST(each_refuses_alike),
		TEST(options_stand_anywhere),
		TEST(values_of_each_kind),
		TEST(no_command),
		{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	unsetenv("AVP_NAMESPACE");
	return test_main("avpctl_options", tests);
}

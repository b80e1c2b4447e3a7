/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl dlq and --config, run as scripts would. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <avp/dlq.h>

#include "tests/agents.h"
#include "tests/tool.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static struct avp_reason why;

/* Does the last output lack these words? */
static bool lacks(const char *words)
{
	struct bytes out = tool_load("tool.out");
	bool does = !strstr((const char *)out.data, words);

	bytes_free(&out);
	return does;
}

/* The configuration says where; it is found by its variable. */
static void configured(void)
{
	char yaml[600];

	snprintf(yaml, sizeof(yaml), "dlq: {dir: %s}\n", tool_path("dlq"));
	tool_save_text("avp.yaml", yaml);
	setenv("AVP_CONFIG", tool_path("avp.yaml"), 1);
}

static void fill(void)
{
	struct ahp_dlq_options o = {.size = sizeof(o), .dir = tool_path("dlq")};
	struct ahp_envelope m = {.method = S("TASK"),
				 .agent_id = S("leader"),
				 .target_agent = S("solver"),
				 .task_id = S("t7"),
				 .payload_json = S("{\"n\":1}"),
				 .token_limit = 500,
				 .timestamp = ahp_time_from_unix_ns(0),
				 .message_id = S("first")};
	struct ahp_dlq_letter l = {.message = &m,
				   .error = S("refused thrice"),
				   .code = AVP_RETRY_EXHAUSTED,
				   .retry_count = 3};
	struct ahp_dlq *q;

	CU_ASSERT_EQUAL_FATAL(ahp_dlq_open(&q, &o, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_append(q, &l, NULL, &why), 0);
	m.message_id = S("second");
	m.target_agent = S("other");
	CU_ASSERT_EQUAL(ahp_dlq_append(q, &l, NULL, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_commit(q, &why), 0);
	ahp_dlq_close(q);
}

static void list_and_clear(void)
{
	configured();
	CU_ASSERT_EQUAL(TOOL("dlq", "ls"), 0);
	CU_ASSERT(tool_has("tool.out", "{\"entries\":[]}\n"));
	fill();
	CU_ASSERT_EQUAL(TOOL("dlq", "ls", "--agent", "solver"), 0);
	CU_ASSERT(tool_has("tool.out",
			   "{\"entries\":[{\"agent\":\"solver\",\"message\":{"
			   "\"method\":\"TASK\",\"agent_id\":\"leader\""));
	CU_ASSERT(tool_has("tool.out", "\"error\":\"refused thrice\",\"code\":"
				       "\"RETRY_EXHAUSTED\",\"timestamp\":"));
	CU_ASSERT(lacks("second"));
	CU_ASSERT_EQUAL(TOOL("dlq", "show", "--message", "second"), 0);
	CU_ASSERT(tool_has("tool.out", "\"message_id\":\"second\""));
	CU_ASSERT_EQUAL(TOOL("dlq", "show", "--message", "third"), 1);
	CU_ASSERT(tool_has("tool.err",
			   "avpctl: dlq: UNKNOWN: no such dead letter"));
	CU_ASSERT_EQUAL(TOOL("dlq", "clear", "--agent", "other"), 0);
	CU_ASSERT(tool_has("tool.out", "\"cleared\":1"));
	CU_ASSERT_EQUAL(TOOL("dlq", "clear", "--number", "1"), 0);
	CU_ASSERT_EQUAL(TOOL("dlq", "ls"), 0);
	CU_ASSERT(tool_has("tool.out", "{\"entries\":[]}\n"));
}

static void replays(void)
{
	pid_t pid;

	configured();
	fill();
	/* Nobody is there: it stays. */
	CU_ASSERT_EQUAL(TOOL("dlq", "replay", "--message", "first"), 1);
	CU_ASSERT(tool_has("tool.err",
			   "avpctl: dlq: AGENT_NOT_FOUND: no agent solver"));
	pid = TOOL_START("got", "recv", "--as", "solver2", "--count", "1",
			 "--timeout", "20");
	while (TOOL("stat", "solver2"))
		;
	CU_ASSERT_EQUAL(
		TOOL("dlq", "replay", "--message", "first", "--to", "solver2"),
		0);
	CU_ASSERT(tool_has("tool.out", "\"status\":\"accepted\""));
	CU_ASSERT_EQUAL(tool_finish(pid), 0);
	CU_ASSERT(tool_has("got.out",
			   "\"payload\":{\"n\":1,\"replay_of\":\"first\"}"));
	CU_ASSERT(tool_has("got.out", "\"task_id\":\"t7\""));
	CU_ASSERT_EQUAL(TOOL("dlq", "ls"), 0);
	CU_ASSERT(lacks("\"first\""));
	CU_ASSERT(tool_has("tool.out", "\"second\""));
	CU_ASSERT_EQUAL(TOOL("dlq", "clear"), 0);
}

static void wrong_words(void)
{
	CU_ASSERT_EQUAL(TOOL("dlq"), 2);
	CU_ASSERT_EQUAL(TOOL("dlq", "burn"), 2);
	CU_ASSERT_EQUAL(TOOL("dlq", "ls", "--to", "x"), 2);
	CU_ASSERT_EQUAL(TOOL("dlq", "ls", "--number", "0"), 2);
	CU_ASSERT_EQUAL(TOOL("dlq", "ls", "--agent", ""), 2);
}

static void wrong_configuration(void)
{
	tool_save_text("bad.yaml", "ahp:\n  max_retrys: 3\n");
	CU_ASSERT_EQUAL(TOOL("ls", "--config", tool_path("bad.yaml")), 2);
	CU_ASSERT(tool_has("tool.err",
			   "bad.yaml:2:3: unknown key \"max_retrys\""));
	CU_ASSERT(tool_complained("tool", "avpctl: ls: BAD_CONFIG: "));
	CU_ASSERT_EQUAL(TOOL("send", "x", "--json", "{}", "--config",
			     tool_path("bad.yaml")),
			2);
	CU_ASSERT_EQUAL(TOOL("dlq", "ls", "--config", test_dir()), 2);
	CU_ASSERT(tool_has("tool.err", "a directory; expected a file"));
	tool_save_text("good.yaml", "ahp: {namespace: green}\n");
	CU_ASSERT_EQUAL(
		TOOL("ls", "--json", "--config", tool_path("good.yaml")), 0);
}

/* An agent that never answers: for as long as the configuration says. */
static void time_out_of_the_configuration(void)
{
	struct ahp_agent *idle = agent_open("idle", NULL);
	int64_t start_ns;
	struct timespec t;

	tool_save_text("short.yaml", "ahp: {task_timeout: 50ms}\n");
	clock_gettime(CLOCK_MONOTONIC, &t);
	start_ns = t.tv_sec * SECOND_NS + t.tv_nsec;
	CU_ASSERT_EQUAL(TOOL("send", "idle", "--json", "{}", "--wait-ack",
			     "--config", tool_path("short.yaml")),
			1);
	CU_ASSERT(tool_complained("tool", "avpctl: send: TIMEOUT: "));
	clock_gettime(CLOCK_MONOTONIC, &t);
	CU_ASSERT(t.tv_sec * SECOND_NS + t.tv_nsec - start_ns < LONG_NS);
	ahp_agent_close(idle);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(list_and_clear),
		TEST(replays),
		TEST(wrong_words),
		TEST(wrong_configuration),
		TEST(time_out_of_the_configuration),
		{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	agents_begin();
	unsetenv("AVP_NAMESPACE");
	setenv("HOME", test_dir(), 1);
	return test_main("avpctl_dlq", tests);
}

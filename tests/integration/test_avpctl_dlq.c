/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl dlq and --config, run as scripts would. */
#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <avp/dlq.h>

#include "tests/agents.h"
#include "tests/harness.h"

extern char **environ;

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static char avpctl[4096]; /* beside this program's build */
static char text[1 << 16];
static struct avp_reason why;

static const char *path(const char *name)
{
	static char buf[4][500];
	static int i;

	i = (i + 1) % 4;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", test_dir(), name);
	return buf[i];
}

static const char *load(const char *name)
{
	FILE *f = fopen(path(name), "rbe");
	size_t n;

	CU_ASSERT_FATAL(f != NULL);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = 0;
	fclose(f);
	return text;
}

static void save(const char *name, const char *content)
{
	FILE *f = fopen(path(name), "wbe");

	CU_ASSERT_FATAL(f != NULL);
	fputs(content, f);
	fclose(f);
}

/* Starts avpctl with these words; its output goes to files out and err. */
static pid_t start(const char *const *words, const char *out)
{
	char *argv[16] = {avpctl};
	posix_spawn_file_actions_t files;
	pid_t pid = -1;

	for (int i = 0; words[i]; i++)
		argv[i + 1] = (char *)words[i];
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 1, path(out),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	posix_spawn_file_actions_addopen(&files, 2, path("err"),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	CU_ASSERT_FATAL(
		!posix_spawn(&pid, avpctl, &files, NULL, argv, environ));
	posix_spawn_file_actions_destroy(&files);
	return pid;
}

static int finish(pid_t pid)
{
	int status = 0;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(...) finish(start((const char *const[]){__VA_ARGS__, NULL}, "out"))

static bool has(const char *file, const char *words)
{
	bool is = strstr(load(file), words) != NULL;

	if (!is)
		printf("  %s: %s", file, text);
	return is;
}

/* The configuration says where; it is found by its variable. */
static void configured(void)
{
	char yaml[600];

	snprintf(yaml, sizeof(yaml), "dlq: {dir: %s}\n", path("dlq"));
	save("avp.yaml", yaml);
	setenv("AVP_CONFIG", path("avp.yaml"), 1);
}

static void fill(void)
{
	struct ahp_dlq_options o = {.size = sizeof(o), .dir = path("dlq")};
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
	CU_ASSERT_EQUAL(RUN("dlq", "ls"), 0);
	CU_ASSERT_STRING_EQUAL(load("out"), "{\"entries\":[]}\n");
	fill();
	CU_ASSERT_EQUAL(RUN("dlq", "ls", "--agent", "solver"), 0);
	CU_ASSERT(has("out", "{\"entries\":[{\"agent\":\"solver\",\"message\":{"
			     "\"method\":\"TASK\",\"agent_id\":\"leader\""));
	CU_ASSERT(has("out", "\"error\":\"refused thrice\",\"code\":"
			     "\"RETRY_EXHAUSTED\",\"timestamp\":"));
	CU_ASSERT(!strstr(text, "second"));
	CU_ASSERT_EQUAL(RUN("dlq", "show", "--message", "second"), 0);
	CU_ASSERT(has("out", "\"message_id\":\"second\""));
	CU_ASSERT_EQUAL(RUN("dlq", "show", "--message", "third"), 1);
	CU_ASSERT(has("err", "avpctl: dlq: UNKNOWN: no such dead letter"));
	CU_ASSERT_EQUAL(RUN("dlq", "clear", "--agent", "other"), 0);
	CU_ASSERT(has("out", "\"cleared\":1"));
	CU_ASSERT_EQUAL(RUN("dlq", "clear", "--number", "1"), 0);
	CU_ASSERT_EQUAL(RUN("dlq", "ls"), 0);
	CU_ASSERT_STRING_EQUAL(load("out"), "{\"entries\":[]}\n");
}

static void replays(void)
{
	const char *const receiver[] = {"recv",	   "--as", "solver2",
					"--count", "1",	   "--timeout",
					"20",	   NULL};
	pid_t pid;

	configured();
	fill();
	/* Nobody is there: it stays. */
	CU_ASSERT_EQUAL(RUN("dlq", "replay", "--message", "first"), 1);
	CU_ASSERT(has("err", "avpctl: dlq: AGENT_NOT_FOUND: no agent solver"));
	pid = start(receiver, "got");
	while (RUN("stat", "solver2"))
		;
	CU_ASSERT_EQUAL(
		RUN("dlq", "replay", "--message", "first", "--to", "solver2"),
		0);
	CU_ASSERT(has("out", "\"status\":\"accepted\""));
	CU_ASSERT_EQUAL(finish(pid), 0);
	CU_ASSERT(has("got", "\"payload\":{\"n\":1,\"replay_of\":\"first\"}"));
	CU_ASSERT(has("got", "\"task_id\":\"t7\""));
	CU_ASSERT_EQUAL(RUN("dlq", "ls"), 0);
	CU_ASSERT(!strstr(load("out"), "\"first\""));
	CU_ASSERT(strstr(text, "\"second\"") != NULL);
	CU_ASSERT_EQUAL(RUN("dlq", "clear"), 0);
}

static void wrong_words(void)
{
	CU_ASSERT_EQUAL(RUN("dlq"), 2);
	CU_ASSERT_EQUAL(RUN("dlq", "burn"), 2);
	CU_ASSERT_EQUAL(RUN("dlq", "ls", "--to", "x"), 2);
	CU_ASSERT_EQUAL(RUN("dlq", "ls", "--number", "0"), 2);
	CU_ASSERT_EQUAL(RUN("dlq", "ls", "--agent", ""), 2);
}

static void wrong_configuration(void)
{
	save("bad.yaml", "ahp:\n  max_retrys: 3\n");
	CU_ASSERT_EQUAL(RUN("ls", "--config", path("bad.yaml")), 2);
	CU_ASSERT(has("err", "bad.yaml:2:3: unknown key \"max_retrys\""));
	CU_ASSERT(!strncmp(text, "avpctl: ls: BAD_CONFIG: ", 24));
	CU_ASSERT_EQUAL(
		RUN("send", "x", "--json", "{}", "--config", path("bad.yaml")),
		2);
	CU_ASSERT_EQUAL(RUN("dlq", "ls", "--config", test_dir()), 2);
	CU_ASSERT(has("err", "a directory; expected a file"));
	save("good.yaml", "ahp: {namespace: green}\n");
	CU_ASSERT_EQUAL(RUN("ls", "--json", "--config", path("good.yaml")), 0);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(list_and_clear),	   TEST(replays), TEST(wrong_words),
		TEST(wrong_configuration), {0},
	};
	char self[4000];

	(void)argc;
	/* build/tests/integration/NAME: avpctl lies two folders up. */
	snprintf(self, sizeof(self), "%s", argv[0]);
	snprintf(avpctl, sizeof(avpctl), "%s/../../avpctl", dirname(self));
	agents_begin();
	unsetenv("AVP_NAMESPACE");
	setenv("HOME", test_dir(), 1);
	return test_main("avpctl_dlq", tests);
}

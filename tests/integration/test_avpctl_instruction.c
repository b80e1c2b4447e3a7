/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl instruction, run as a script would, on every recorded case. */
#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/vectors.h"

extern char **environ;

static char avpctl[4096]; /* beside this program's build */

static const char *path(const char *name)
{
	static char buf[3][4200];
	static int i;

	i = (i + 1) % 3;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", test_dir(), name);
	return buf[i];
}

static struct bytes load(const char *name)
{
	static char data[1 << 16];
	FILE *f = fopen(path(name), "rbe");
	size_t n;

	CU_ASSERT_FATAL(f != NULL);
	n = fread(data, 1, sizeof(data) - 1, f);
	fclose(f);
	data[n] = 0;
	return bytes_copy(data, n + 1);
}

/* Runs avpctl instruction on a text; the exit status. */
static int run(struct avp_str json)
{
	char command[] = "instruction", *argv[] = {avpctl, command, NULL, NULL};
	static char in[4200];
	posix_spawn_file_actions_t files;
	FILE *f = fopen(path("in"), "wbe");
	int status = 0;
	pid_t pid;

	CU_ASSERT_FATAL(f != NULL);
	CU_ASSERT_EQUAL(fwrite(json.data, 1, json.len, f), json.len);
	fclose(f);
	snprintf(in, sizeof(in), "%s", path("in"));
	argv[2] = in;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 1, path("out"),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	posix_spawn_file_actions_addopen(&files, 2, path("err"),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	CU_ASSERT_FATAL(
		posix_spawn(&pid, avpctl, &files, NULL, argv, environ) == 0);
	posix_spawn_file_actions_destroy(&files);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
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
		out = load("out");
		if (avp_json_get(c, "error")) {
			CASE(c, status == 1 && out.len == 1);
		} else if (CASE(c, status == 0 && out.len == want.len + 2)) {
			CASE(c, !memcmp(out.data, want.data, want.len));
			CASE(c, out.data[want.len] == '\n');
		}
		bytes_free(&out);
	}
	avp_buf_fini(&json);
}

static void refused(const char *json, int status, const char *complaint)
{
	struct bytes err;

	CU_ASSERT_EQUAL(run(avp_str_of(json)), status);
	err = load("err");
	if (strncmp((char *)err.data, complaint, strlen(complaint)) != 0) {
		printf("  %s", (char *)err.data);
		CU_FAIL("complains otherwise");
	}
	bytes_free(&err);
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
	refused("{\"user_profile\":{},\"task\":{},\"context\":null}", 0, "");
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(recorded),
		TEST(refusals),
		{0},
	};
	char self[4000];

	(void)argc;
	/* build/tests/integration/NAME: avpctl lies two folders up. */
	snprintf(self, sizeof(self), "%s", argv[0]);
	snprintf(avpctl, sizeof(avpctl), "%s/../../avpctl", dirname(self));
	return test_main("avpctl_instruction", tests);
}

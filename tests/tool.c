/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tool.h"

#define FILE_MAX (4u << 20)

extern char **environ;

static char program[PATH_MAX];

void tool_begin(const char *argv0)
{
	test_program(program, argv0, "avpctl");
}

const char *tool_program(void)
{
	return program;
}

/* ---- files -------------------------------------------------------------- */

const char *tool_path(const char *name)
{
	static char buf[16][PATH_MAX];
	static int i;

	i = (i + 1) % 16;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", test_dir(), name);
	return buf[i];
}

const char *tool_save(const char *name, const void *data, size_t len)
{
	const char *to = tool_path(name);
	FILE *f = fopen(to, "wbe");

	CU_ASSERT_FATAL(f != NULL);
	CU_ASSERT_EQUAL(fwrite(data, 1, len, f), len);
	CU_ASSERT_EQUAL(fclose(f), 0);
	return to;
}

const char *tool_save_text(const char *name, const char *text)
{
	return tool_save(name, text, strlen(text));
}

struct bytes tool_load(const char *name)
{
	static char data[FILE_MAX + 1];
	FILE *f = fopen(tool_path(name), "rbe");
	struct bytes b;
	size_t n;

	CU_ASSERT_FATAL(f != NULL);
	n = fread(data, 1, FILE_MAX, f);
	fclose(f);
	data[n] = 0;
	b = bytes_copy(data, n + 1);
	b.len--;
	return b;
}

/* ---- runs --------------------------------------------------------------- */

static const char *output(const char *name, const char *which)
{
	char file[256];

	snprintf(file, sizeof(file), "%s.%s", name, which);
	return tool_path(file);
}

pid_t tool_start_list(const char *name, int out, const char *const *words)
{
	const int how = O_CREAT | O_WRONLY | O_TRUNC;
	posix_spawn_file_actions_t files;
	char *argv[32] = {program};
	pid_t pid = -1;

	for (int n = 0; words[n] && n < 30; n++)
		argv[n + 1] = (char *)(uintptr_t)words[n];
	posix_spawn_file_actions_init(&files);
	if (out == TOOL_CLOSED)
		posix_spawn_file_actions_addclose(&files, 1);
	else if (out == TOOL_FILE)
		posix_spawn_file_actions_addopen(&files, 1, output(name, "out"),
						 how, 0600);
	else
		posix_spawn_file_actions_adddup2(&files, out, 1);
	posix_spawn_file_actions_addopen(&files, 2, output(name, "err"), how,
					 0600);
	CU_ASSERT_FATAL(
		!posix_spawn(&pid, program, &files, NULL, argv, environ));
	posix_spawn_file_actions_destroy(&files);
	return pid;
}

int tool_finish(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- what they said ----------------------------------------------------- */

bool tool_complained(const char *name, const char *beginning)
{
	char file[256];
	struct bytes err;
	const char *line;
	bool is;

	snprintf(file, sizeof(file), "%s.err", name);
	err = tool_load(file);
	line = (const char *)err.data;
	is = err.len > strlen(beginning) &&
	     !memcmp(line, beginning, strlen(beginning)) &&
	     strchr(line, '\n') == line + err.len - 1;
	if (!is)
		printf("  %s: %s\n  wanted: %s\n", file, line, beginning);
	bytes_free(&err);
	return is;
}

bool tool_has(const char *file, const char *text)
{
	struct bytes b = tool_load(file);
	bool is = strstr((const char *)b.data, text) != NULL;

	if (!is)
		printf("  %s: %s\n  wanted: %s\n", file, (char *)b.data, text);
	bytes_free(&b);
	return is;
}

struct avp_json_doc *tool_answer(const char *name)
{
	struct avp_json_doc *doc = NULL;
	struct bytes out;
	char file[256];

	snprintf(file, sizeof(file), "%s.out", name);
	out = tool_load(file);
	CU_ASSERT(out.len && strchr((char *)out.data, '\n') ==
				     (char *)out.data + out.len - 1);
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, out.data, out.len, NULL, NULL), 0);
	bytes_free(&out);
	return doc;
}

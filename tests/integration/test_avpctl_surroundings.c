/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avpctl where the system gives little: outputs that are full, closed or gone,
 * inputs without an end, directories that cannot be used, little memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tool.h"

static const char frame[] = "AV\1\0\4\0\0\0\0\0\0\0tail";

/* ---- outputs ------------------------------------------------------------ */

/* All that prints text, JSON or not. */
static const char *const printers[][4] = {
	{"--help"},
	{"--version"},
	{"ls"},
	{"ls", "--json"},
	{"top", "--count=1", "--interval=.1"},
	{"doctor"},
	{"doctor", "--json"},
	{"frame", "decode", "frame"},
	{"frame", "decode", "--help"},
	{"instruction", "task"},
	{"realign", "apply", "--help"},
	{"frame"},
};
#define PRINTERS (sizeof(printers) / sizeof(*printers))

/* Each printer ends with that status, and says so. */
static void all_end(int out, int status, const char *complaint)
{
	tool_save("frame", frame, 16);
	tool_save_text("task", "{\"user_profile\":{},\"task\":{}}");
	CU_ASSERT_EQUAL_FATAL(chdir(test_dir()), 0);
	for (size_t i = 0; i < PRINTERS; i++) {
		int got =
			tool_finish(tool_start_list("tool", out, printers[i]));

		if (got != status)
			printf("  %s %s: %d\n", printers[i][0], printers[i][1],
			       got);
		CU_ASSERT_EQUAL(got, status);
		CU_ASSERT(!complaint || tool_has("tool.err", complaint));
	}
}

static void a_full_device(void)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	all_end(full, 3, ": IO: cannot write stdout: No space left");
	close(full);
}

static void a_closed_stdout(void)
{
	static const char *const words[] = {"frame",	 "decode", "frame",
					    "--payload", "out",	   NULL};
	struct bytes b;

	all_end(TOOL_CLOSED, 3, ": IO: cannot write stdout: Bad file");
	/* What is opened next does not become stdout. */
	CU_ASSERT_EQUAL(
		tool_finish(tool_start_list("tool", TOOL_CLOSED, words)), 3);
	b = tool_load("out");
	CU_ASSERT(b.len == 4 && !memcmp(b.data, "tail", 4));
	bytes_free(&b);
}

/* As of other tools: killed by SIGPIPE without a word; told if it is
 * ignored. */
static void a_reader_that_went(void)
{
	struct bytes b;
	int pipes[2];

	CU_ASSERT_EQUAL_FATAL(pipe2(pipes, O_CLOEXEC), 0);
	close(pipes[0]);
	signal(SIGPIPE, SIG_DFL);
	all_end(pipes[1], -SIGPIPE, NULL);
	b = tool_load("tool.err");
	CU_ASSERT_EQUAL(b.len, 0);
	bytes_free(&b);
	signal(SIGPIPE, SIG_IGN);
	all_end(pipes[1], 3, ": IO: cannot write stdout: Broken pipe");
	signal(SIGPIPE, SIG_DFL);
	close(pipes[1]);
}

/* A failure leaves the old file, success replaces it; links stay links. */
static void outputs_are_whole(void)
{
	struct stat link, file;
	struct bytes b;

	tool_save("frame", frame, 16);
	tool_save_text("bad", "AV\1");
	tool_save_text("old", "old");
	chmod(tool_path("old"), 0640);
	unlink(tool_path("link"));
	CU_ASSERT_EQUAL(symlink("old", tool_path("link")), 0);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("bad"), "--payload",
			     tool_path("link")),
			1);
	CU_ASSERT(tool_has("old", "old"));
	CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("frame"), "--payload",
			     tool_path("link")),
			0);
	b = tool_load("old");
	CU_ASSERT(b.len == 4 && !memcmp(b.data, "tail", 4));
	bytes_free(&b);
	CU_ASSERT(!lstat(tool_path("link"), &link) && S_ISLNK(link.st_mode));
	CU_ASSERT(!stat(tool_path("old"), &file));
	CU_ASSERT_EQUAL(file.st_mode & 0777, 0640);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("frame"), "--payload",
			     "/dev/null"),
			0);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("frame"), "--payload",
			     "/dev/full"),
			3);
	CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("frame"), "--payload",
			     "/nowhere/at/all"),
			3);
	CU_ASSERT(tool_complained("tool", "avpctl: frame decode: IO: cannot "
					  "write /nowhere/at/all: No such"));
}

/* A disk that is full in the middle, or a limit that is met there. */
static void outputs_that_do_not_fit(void)
{
	static char big[4096] = "AV\1\0\xf4\x0f";
	struct rlimit before, small = {512, 0};
	struct bytes b;
	pid_t pid;

	tool_save("frame", big, sizeof(big));
	tool_save_text("old", "old");
	getrlimit(RLIMIT_FSIZE, &before);
	small.rlim_max = before.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	pid = TOOL_START("tool", "frame", "decode", tool_path("frame"),
			 "--payload", tool_path("old"));
	setrlimit(RLIMIT_FSIZE, &before);
	CU_ASSERT_EQUAL(tool_finish(pid), 3);
	CU_ASSERT(tool_has("tool.err", ": File too large"));
	b = tool_load("old");
	CU_ASSERT(b.len == 3 && !memcmp(b.data, "old", 3));
	bytes_free(&b);
}

/* A frame's own file is not the place for its payload, by whatever name. */
static void its_own_input(void)
{
	struct bytes b;

	tool_save("frame", frame, 16);
	unlink(tool_path("hard"));
	unlink(tool_path("soft"));
	CU_ASSERT_EQUAL(link(tool_path("frame"), tool_path("hard")), 0);
	CU_ASSERT_EQUAL(symlink("hard", tool_path("soft")), 0);
	for (int i = 0; i < 3; i++) {
		static const char *const names[] = {"frame", "hard", "soft"};

		CU_ASSERT_EQUAL(TOOL("frame", "decode", tool_path("frame"),
				     "--payload", tool_path(names[i])),
				2);
		CU_ASSERT(tool_complained("tool",
					  "avpctl: frame decode: USAGE: "));
	}
	b = tool_load("frame");
	CU_ASSERT_EQUAL(b.len, 16);
	bytes_free(&b);
}

/* What prints JSON prints nothing else there. */
static void stdout_is_for_json(void)
{
	tool_save("frame", frame, 16);
	CU_ASSERT_EQUAL(
		TOOL("frame", "decode", tool_path("frame"), "--payload", "-"),
		2);
	CU_ASSERT(tool_complained("tool", "avpctl: frame decode: USAGE: "
					  "--payload -: stdout is for "));
}

/* ---- inputs ------------------------------------------------------------- */

/* What reads a frame or a KV-cache judges the head of what never ends. */
static void inputs_without_end(void)
{
	static const char code[] = ": BAD_MAGIC: begins with 0000";
	char list[256];
	int n;

	alarm(60); /* a minute of reading zeros is a failure */
	CU_ASSERT_EQUAL(TOOL("frame", "decode", "/dev/zero"), 1);
	CU_ASSERT(tool_has("tool.err", code));
	CU_ASSERT_EQUAL(TOOL("kv", "inspect", "/dev/zero"), 1);
	CU_ASSERT(tool_has("tool.err", ": KV_SIZE: "));
	CU_ASSERT_EQUAL(TOOL("send", "nobody", "--frame", "/dev/zero"), 1);
	CU_ASSERT(tool_has("tool.err", code));
	CU_ASSERT_EQUAL(TOOL("identity", "/dev/zero"), 1);
	unlink(tool_path("fifo"));
	CU_ASSERT_EQUAL(mkfifo(tool_path("fifo"), 0600), 0);
	n = snprintf(list, sizeof(list),
		     "{\"id\":1,\"file\":\"%s\"}\n"
		     "{\"id\":2,\"file\":\"/dev/zero\"}\n"
		     "{\"id\":3,\"file\":\"%s\"}\n",
		     tool_path("fifo"), tool_path("frame"));
	tool_save("list", list, (size_t)n);
	tool_save("frame", frame, 16);
	CU_ASSERT_EQUAL(TOOL("frame", "decode-many", tool_path("list")), 0);
	CU_ASSERT(tool_has("tool.out",
			   "{\"id\":1,\"ok\":false,\"code\":\"IO\","));
	CU_ASSERT(tool_has("tool.out",
			   "{\"id\":2,\"ok\":false,\"code\":\"IO\","));
	CU_ASSERT(tool_has("tool.out", "{\"id\":3,\"ok\":true,"));
	alarm(0);
}

/* A child that writes a head and then zeros for ever. */
static pid_t pour(const char *head, size_t len, int *out)
{
	static char more[1 << 16];
	int pipes[2];
	pid_t pid;

	CU_ASSERT_EQUAL_FATAL(pipe2(pipes, O_CLOEXEC), 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(pipes[0]);
		signal(SIGPIPE, SIG_DFL);
		while (write(pipes[1], head, len) >= 0) {
			head = more;
			len = sizeof(more);
		}
		_exit(1);
	}
	close(pipes[1]);
	*out = pipes[0];
	return pid;
}

static int run_on_stream(const char *head, size_t len, const char *command,
			 const char *word)
{
	int in = fcntl(0, F_DUPFD_CLOEXEC, 10), fd, status;
	pid_t source = pour(head, len, &fd), pid;

	dup2(fd, 0);
	close(fd);
	alarm(60);
	pid = TOOL_START("tool", command, word, "-");
	/* The last reader is avpctl: its end is the source's. */
	dup2(in, 0);
	close(in);
	status = tool_finish(pid);
	tool_finish(source);
	alarm(0);
	return status;
}

static void streams_without_end(void)
{
	/* 1 layer, 1 head, width 4, 1 token, float32: 32 bytes of tensors */
	static const char kv[] = "\1\0\0\0\1\0\0\0\4\0\0\0\1\0\0\0\0";

	CU_ASSERT_EQUAL(run_on_stream(frame, 16, "frame", "decode"), 1);
	CU_ASSERT(tool_has("tool.err", ": TOO_LARGE: stdin goes on more than "
				       "1048576 bytes behind its frame"));
	CU_ASSERT_EQUAL(run_on_stream("AV\2", 3, "frame", "decode"), 1);
	CU_ASSERT(tool_has("tool.err", ": BAD_VERSION: "));
	CU_ASSERT_EQUAL(run_on_stream(kv, 17, "kv", "inspect"), 1);
	CU_ASSERT(tool_has("tool.err", ": KV_SIZE: "));
}

/* ---- the system --------------------------------------------------------- */

static void arguments_of_a_mebibyte(void)
{
	static char big[100000]; /* one may have 128 KiB */

	memset(big, 'x', sizeof(big) - 1);
	CU_ASSERT_EQUAL(TOOL(big), 2);
	CU_ASSERT(tool_has("tool.err", "is no command here; see avpctl"));
	CU_ASSERT_EQUAL(TOOL("frame", "decode", big), 3);
	CU_ASSERT(tool_has("tool.err", ": File name too long"));
	CU_ASSERT_EQUAL(TOOL("stat", big), 1);
	CU_ASSERT_EQUAL(TOOL("recv", "--as", big), 2);
	CU_ASSERT_EQUAL(TOOL("send", big, "--json", "{}"), 2);
	CU_ASSERT_EQUAL(TOOL("ls", "--namespace", big), 2);
	big[0] = big[1] = '-';
	CU_ASSERT_EQUAL(TOOL("ls", big), 2);
	CU_ASSERT(tool_has("tool.err", "is no option here; see avpctl ls"));
	CU_ASSERT_EQUAL(TOOL("recv", "--as", "a", "--count", big), 2);
	CU_ASSERT(tool_has("tool.err", "a whole number from 0 on"));
	/* Steered neither a terminal nor those who read lines. */
	CU_ASSERT_EQUAL(TOOL("frame", "decode", "a\nb\033[2J"), 3);
	CU_ASSERT(tool_complained("tool", "avpctl: frame decode: IO: cannot "
					  "open a?b?[2J: "));
}

static void no_home_and_no_directory(void)
{
	char *home = strdup(getenv("HOME") ? getenv("HOME") : "/");
	char *run = strdup(getenv("AVP_RUNTIME_DIR"));

	unsetenv("HOME");
	CU_ASSERT_EQUAL(TOOL("ls"), 0);
	CU_ASSERT_EQUAL(TOOL("realign", "apply", "--help"), 0);
	setenv("LC_ALL", "xx_YY.nonsense", 1);
	CU_ASSERT_EQUAL(TOOL("top", "--count", "1", "--interval", "0.1"), 0);
	unsetenv("LC_ALL");
	setenv("AVP_RUNTIME_DIR", "/dev/null", 1);
	CU_ASSERT_EQUAL(TOOL("ls"), 3);
	CU_ASSERT(tool_has("tool.err", "/dev/null"));
	mkdir(tool_path("closed"), 0777);
	chmod(tool_path("closed"), 0777);
	setenv("AVP_RUNTIME_DIR", tool_path("closed"), 1);
	CU_ASSERT_EQUAL(TOOL("recv", "--as", "a", "--timeout", "0"), 3);
	CU_ASSERT(tool_has("tool.err", "closed"));
	setenv("AVP_RUNTIME_DIR", run, 1);
	setenv("HOME", home, 1);
	free(home);
	free(run);
}

static int recv_a(void)
{
	return TOOL("recv", "--as", "a", "--timeout", "0");
}

/* What stands where an agent's names go is named, with its directory. */
static void names_in_the_way(void)
{
	static const char *const names[] = {"a.lock", "a.sock", "a.page",
					    ".a.new", ".lock"};
	char name[64], text[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		mkdir(tool_path("run/default"), 0700);
		snprintf(name, sizeof(name), "run/default/%s", names[i]);
		snprintf(text, sizeof(text), " %s: it is a directory, which ",
			 names[i]);
		CU_ASSERT_EQUAL(mkdir(tool_path(name), 0700), 0);
		CU_ASSERT_EQUAL(recv_a(), 3);
		CU_ASSERT(tool_complained("tool", "avpctl: recv: IO: cannot "));
		CU_ASSERT(tool_has("tool.err", text));
		CU_ASSERT(tool_has("tool.err", "; remove it from "));
		CU_ASSERT(tool_has("tool.err", tool_path("run/default")));
		CU_ASSERT_EQUAL(TOOL("ls"), 0);
		CU_ASSERT_EQUAL(rmdir(tool_path(name)), 0);
		CU_ASSERT_EQUAL(recv_a(), 0);
	}
	CU_ASSERT_EQUAL(symlink("b", tool_path("run/default/a.lock")), 0);
	CU_ASSERT_EQUAL(recv_a(), 3);
	CU_ASSERT(tool_has("tool.err", " a.lock: it is a symbolic link, "));
	CU_ASSERT_EQUAL(unlink(tool_path("run/default/a.lock")), 0);
}

/* A runtime directory that is none, or leads elsewhere, or is nowhere. */
static void directories_that_are_none(void)
{
	static char far[5000];
	const char *const dirs[][2] = {
		{tool_path("turned"),
		 "turned is a symbolic link; a directory is needed"},
		{tool_save_text("plain", ""), "plain is a file; a directory"},
		{tool_path("no/where"), "no/where: what it would be in is not"},
		{"/proc", "cannot make directory /proc/default: "},
		{far, "path has 4999 bytes; up to 4095"},
	};
	char *run = strdup(getenv("AVP_RUNTIME_DIR"));

	memset(far, 'a', sizeof(far) - 1);
	CU_ASSERT_EQUAL(symlink("run", tool_path("turned")), 0);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		setenv("AVP_RUNTIME_DIR", dirs[i][0], 1);
		CU_ASSERT_EQUAL(recv_a(), dirs[i][0] == far ? 2 : 3);
		CU_ASSERT(tool_complained("tool", "avpctl: recv: "));
		CU_ASSERT(tool_has("tool.err", dirs[i][1]));
	}
	unlink(tool_path("turned"));
	/* Its name is no text, and yet told as one; a file's would be lost. */
	setenv("AVP_RUNTIME_DIR", tool_path("dir\xff"), 1);
	CU_ASSERT(TOOL("doctor", "--json") >= 0);
	CU_ASSERT(tool_has("tool.out", "dir?"));
	CU_ASSERT_EQUAL(TOOL("recv", "--as", "a", "--timeout", "0", "--out",
			     tool_path("out\xff")),
			2);
	CU_ASSERT(tool_has("tool.err", "--out has to be UTF-8 "));
	setenv("AVP_RUNTIME_DIR", run, 1);
	free(run);
}

/* No command but realign loads BLAS, whose start wants hundreds of MiB. */
static void little_memory(void)
{
#ifndef __SANITIZE_ADDRESS__
	struct rlimit before, small = {60u << 20, 60u << 20};
	pid_t pid;

	alarm(60);
	getrlimit(RLIMIT_AS, &before);
	small.rlim_max = before.rlim_max;
	tool_save("frame", frame, 16);
	setrlimit(RLIMIT_AS, &small);
	pid = TOOL_START("tool", "frame", "decode", tool_path("frame"));
	setrlimit(RLIMIT_AS, &before);
	CU_ASSERT_EQUAL(tool_finish(pid), 0);
	setrlimit(RLIMIT_AS, &small);
	pid = TOOL_START("tool", "realign", "apply", "--help");
	setrlimit(RLIMIT_AS, &before);
	CU_ASSERT_EQUAL(tool_finish(pid), 0);
	setrlimit(RLIMIT_AS, &small);
	pid = TOOL_START("tool", "recv", "--as", "a", "--timeout", "0");
	setrlimit(RLIMIT_AS, &before);
	CU_ASSERT(tool_finish(pid) >= 0);
	CU_ASSERT_EQUAL(truncate(tool_save("sparse", frame, 8), 1 << 30), 0);
	/* It says that it goes on for a gibibyte, and does. */
	int fd = open(tool_path("sparse"), O_WRONLY | O_CLOEXEC);

	CU_ASSERT_EQUAL(pwrite(fd, "\xf4\xff\xff\x3f\0\0\0\0", 8, 4), 8);
	close(fd);
	setrlimit(RLIMIT_AS, &small);
	pid = TOOL_START("tool", "frame", "decode", tool_path("sparse"));
	setrlimit(RLIMIT_AS, &before);
	CU_ASSERT_EQUAL(tool_finish(pid), 3);
	CU_ASSERT(tool_has("tool.err", ": NO_MEMORY: "));
	unlink(tool_path("sparse"));
	alarm(0);
#endif
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(a_full_device),
		TEST(a_closed_stdout),
		TEST(a_reader_that_went),
		TEST(outputs_are_whole),
		TEST(outputs_that_do_not_fit),
		TEST(its_own_input),
		TEST(stdout_is_for_json),
		TEST(inputs_without_end),
		TEST(streams_without_end),
		TEST(arguments_of_a_mebibyte),
		TEST(no_home_and_no_directory),
		TEST(names_in_the_way),
		TEST(directories_that_are_none),
		TEST(little_memory),
		{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	unsetenv("AVP_NAMESPACE");
	setenv("AVP_RUNTIME_DIR", tool_path("run"), 1);
	mkdir(tool_path("run"), 0700);
	return test_main("avpctl_surroundings", tests);
}

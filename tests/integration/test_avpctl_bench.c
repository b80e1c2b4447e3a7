/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avpctl bench, run as a script would: the keys of the command line contract
 * and what must hold among them, never a figure itself; and that no end of it,
 * not even SIGKILL of any of its processes, leaves a process or a file behind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/json.h>

#include "tests/vectors.h"

extern char **environ;

#define SECONDS	  20.0 /* until a condition counts as never to come */
#define WORDS_MAX 24
#define QUICK	  "--seconds", "0.05", "--json"

static char avpctl[4096];    /* beside this program's build */
static char temporary[4096]; /* its $TMPDIR: empty when it has ended */

static const char *path(const char *name)
{
	static char buf[4][4200];
	static int i;

	i = (i + 1) % 4;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", test_dir(), name);
	return buf[i];
}

static struct bytes load(const char *name)
{
	static char data[1 << 16];
	FILE *f = fopen(path(name), "rb");
	size_t n;

	CU_ASSERT_FATAL(f != NULL);
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	return bytes_copy(data, n);
}

/* ---- processes ---------------------------------------------------------- */

/* avpctl bench WORD...; to stdout and stderr files, or to that fd. */
static pid_t start_list(int fd, va_list words)
{
	char *argv[WORDS_MAX] = {avpctl, (char *)(uintptr_t) "bench"};
	posix_spawn_file_actions_t files;
	pid_t pid = -1;
	int n = 2;

	while (n < WORDS_MAX - 1 && (argv[n] = va_arg(words, char *)))
		n++;
	posix_spawn_file_actions_init(&files);
	if (fd < 0)
		posix_spawn_file_actions_addopen(&files, 1, path("out"),
						 O_CREAT | O_WRONLY | O_TRUNC,
						 0600);
	else
		posix_spawn_file_actions_adddup2(&files, fd, 1);
	posix_spawn_file_actions_addopen(&files, 2, path("err"),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	CU_ASSERT_FATAL(
		posix_spawn(&pid, avpctl, &files, NULL, argv, environ) == 0);
	posix_spawn_file_actions_destroy(&files);
	return pid;
}

/* Its exit status; -1 when a signal ended it. */
static int finish(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t start(int fd, ...)
{
	va_list words;
	pid_t pid;

	va_start(words, fd);
	pid = start_list(fd, words);
	va_end(words);
	return pid;
}

#define run(...) finish(start(-1, __VA_ARGS__, NULL))

/* Orphans become our children (main() asks for that): are all gone? */
static bool nobody_left(void *arg)
{
	pid_t pid;

	(void)arg;
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		;
	return pid < 0 && errno == ECHILD;
}

static bool nothing_left(void)
{
	DIR *d = opendir(temporary);
	struct dirent *entry;
	bool none = d != NULL;

	while (d && (entry = readdir(d)))
		none &= !strcmp(entry->d_name, ".") ||
			!strcmp(entry->d_name, "..");
	if (d)
		closedir(d);
	return none;
}

/* ---- outputs ------------------------------------------------------------ */

static bool silent(const char *file)
{
	struct stat st;

	return !stat(path(file), &st) && !st.st_size;
}

static bool complained(const char *beginning)
{
	struct bytes err = load("err");
	size_t n = strlen(beginning);
	bool ok = err.len > n && !memcmp(err.data, beginning, n) &&
		  memchr(err.data, '\n', err.len) == err.data + err.len - 1;

	if (!ok)
		fprintf(stderr, "stderr: %.*s\n", (int)err.len,
			(const char *)err.data);
	bytes_free(&err);
	return ok;
}

/* The one line on stdout. */
static struct avp_json_doc *answer(void)
{
	struct avp_json_doc *doc = NULL;
	struct bytes b = load("out");

	CU_ASSERT_FATAL(b.len > 1);
	CU_ASSERT(memchr(b.data, '\n', b.len) == b.data + b.len - 1);
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, b.data, b.len - 1, NULL, NULL), 0);
	bytes_free(&b);
	return doc;
}

static double number(const struct avp_json *object, const char *key)
{
	const struct avp_json *member = avp_json_get(object, key);
	double value = -1;

	CU_ASSERT(member && !avp_json_double(member, &value));
	if (value < 0)
		fprintf(stderr, "key %s: missing or no number\n", key);
	return value;
}

static bool near(double a, double b)
{
	return a > b * 0.99 - 0.01 && a < b * 1.01 + 0.01;
}

/* A part beside which it was measured, and the ratio to it. */
static void check_part(const struct avp_json *root, const char *key,
		       const char *name, const char *ratio)
{
	const struct avp_json *part = avp_json_get(root, key);
	double p50 = number(part, "p50");

	CU_ASSERT(case_is(part, "name", name));
	CU_ASSERT(case_is(part, "unit", "ns"));
	CU_ASSERT(p50 > 0);
	CU_ASSERT(near(number(root, ratio) * p50, number(root, "p50")));
}

/* What the contract says of every bench. */
static struct avp_json_doc *check(const char *bench, double size,
				  const char *wait, const char *baseline)
{
	static const char *const order[] = {"p50", "p90", "p99", "p999", "max"};
	struct avp_json_doc *doc = answer();
	const struct avp_json *root = avp_json_root(doc);
	double before = 0;

	CU_ASSERT(silent("err"));
	CU_ASSERT(case_is(root, "bench", bench));
	CU_ASSERT(number(root, "size") == size);
	CU_ASSERT(case_is(root, "wait", wait));
	CU_ASSERT(case_is(root, "unit", "ns"));
	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
		CU_ASSERT(number(root, order[i]) >= before);
		before = number(root, order[i]);
	}
	CU_ASSERT(number(root, "p50") > 0);
	CU_ASSERT(number(root, "count") >= 1);
	CU_ASSERT(case_is(root, "placement", "near") ||
		  case_is(root, "placement", "far") ||
		  case_is(root, "placement", "siblings") ||
		  case_is(root, "placement", "moved"));
	CU_ASSERT(number(avp_json_get(root, "batches"), "moved") >= 0);
	CU_ASSERT_EQUAL(avp_json_count(avp_json_get(root, "cores")), 2);
	check_part(root, "baseline", baseline, "ratio");
	check_part(root, "floor", "two-line-pingpong", "floor_ratio");
	return doc;
}

/* ---- each bench --------------------------------------------------------- */

static void latency_tells(void)
{
	CU_ASSERT_EQUAL(run("latency", QUICK), 0);
	avp_json_free(check("latency", 64, "busy", "slot-exchange"));
	CU_ASSERT_EQUAL(run("latency", "--size", "16K", QUICK), 0);
	avp_json_free(check("latency", 16384, "busy", "fill-read-pingpong"));
	CU_ASSERT_EQUAL(run("latency", "--wait", "adaptive", QUICK), 0);
	avp_json_free(check("latency", 64, "adaptive", "slot-exchange"));
	CU_ASSERT(nothing_left());
}

/* At a fixed rate no faster than that, and each one counts. */
static void rates_are_kept(void)
{
	struct avp_json_doc *doc;
	const struct avp_json *root;

	CU_ASSERT_EQUAL(run("latency", "--rate", "5000", QUICK), 0);
	doc = check("latency", 64, "busy", "slot-exchange");
	root = avp_json_root(doc);
	CU_ASSERT(number(root, "rate") == 5000);
	CU_ASSERT(number(root, "count") >= 32);
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("latency", "--rate", "2000", "--wait", "block",
			    "--size", "4K", QUICK),
			0);
	avp_json_free(check("latency", 4096, "block", "fill-read-pingpong"));
	/* More than can be done: answers are read while there is no room. */
	CU_ASSERT_EQUAL(run("latency", "--rate", "90000000", QUICK), 0);
	avp_json_free(check("latency", 64, "busy", "slot-exchange"));
	CU_ASSERT(nothing_left());
}

static void many_links_are_compared_with_one(void)
{
	struct avp_json_doc *doc;
	const struct avp_json *root;

	CU_ASSERT_EQUAL(run("latency", "--links", "12", QUICK), 0);
	doc = check("latency", 64, "busy", "slot-exchange");
	root = avp_json_root(doc);
	CU_ASSERT(number(root, "links") == 12);
	check_part(root, "one_link", "latency-one-link", "one_link_ratio");
	avp_json_free(doc);
	CU_ASSERT(nothing_left());
}

static void handover_tells(void)
{
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL(run("handover", "--size", "4M", QUICK), 0);
	doc = check("handover", 4 << 20, "busy", "slot-exchange");
	check_part(avp_json_root(doc), "short", "latency-64", "short_ratio");
	avp_json_free(doc);
}

static void throughput_tells(void)
{
	struct avp_json_doc *doc;
	const struct avp_json *root;
	double rate;

	CU_ASSERT_EQUAL(run("throughput", QUICK), 0);
	doc = check("throughput", 64, "busy", "bare-ring");
	root = avp_json_root(doc);
	rate = number(root, "messages_per_second");
	CU_ASSERT(near(rate * number(root, "p50"), 1e9) ||
		  number(root, "p50") < 10); /* one decimal is too few */
	CU_ASSERT(near(number(root, "bytes_per_second"), rate * 64));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("throughput", "--size", "16K", QUICK), 0);
	avp_json_free(check("throughput", 16384, "busy", "bare-ring"));
	CU_ASSERT_EQUAL(run("throughput", "--size", "1M", QUICK), 0);
	avp_json_free(check("throughput", 1 << 20, "busy", "bare-ring"));
}

static void wake_tells(void)
{
	struct avp_json_doc *doc;
	const struct avp_json *root;

	CU_ASSERT_EQUAL(run("wake", QUICK), 0);
	doc = check("wake", 64, "block", "futex-pingpong");
	root = avp_json_root(doc);
	CU_ASSERT(number(root, "late_wakes") >= 0);
	CU_ASSERT(case_is(root, "doorbell", "socket") ||
		  case_is(root, "doorbell", "futex"));
	avp_json_free(doc);
}

static void fanout_tells(void)
{
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL(run("fanout", "--links", "5", QUICK), 0);
	doc = check("fanout", 16384, "busy", "slot-fanout");
	CU_ASSERT(number(avp_json_root(doc), "links") == 5);
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("fanout", "--links", "1", "--size", "64", QUICK),
			0);
	avp_json_free(check("fanout", 64, "busy", "slot-fanout"));
	CU_ASSERT(nothing_left());
}

/* It takes longer than to start a process, and its steps do not exceed it. */
static void recovery_tells(void)
{
	struct avp_json_doc *doc;
	const struct avp_json *root;

	CU_ASSERT_EQUAL(run("recovery", QUICK), 0);
	doc = check("recovery", 64, "adaptive", "process-start");
	root = avp_json_root(doc);
	CU_ASSERT(number(root, "killed_p50") + number(root, "started_p50") <
		  number(root, "max"));
	CU_ASSERT(number(root, "opened_p50") + number(root, "redelivered_p50") <
		  number(root, "max"));
	avp_json_free(doc);
	CU_ASSERT(nothing_left());
}

static void arena_tells(void)
{
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL(run("arena", "--size", "4M", QUICK), 0);
	doc = check("arena", 4 << 20, "busy", "memfd-collapse");
	check_part(avp_json_root(doc), "warm", "arena-warm", "warm_ratio");
	avp_json_free(doc);
}

/* ---- for people --------------------------------------------------------- */

static bool has_text(const char *text, const char *name)
{
	struct bytes b = load(name);
	bool has = memmem(b.data, b.len, text, strlen(text)) != NULL;

	bytes_free(&b);
	return has;
}

static void tables_have_bars_on_a_terminal_only(void)
{
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;
	char text[8192] = "";
	ssize_t n;

	CU_ASSERT_EQUAL(run("latency", "--seconds", "0.05"), 0);
	CU_ASSERT(has_text("slot-exchange", "out"));
	CU_ASSERT(has_text("p999", "out"));
	CU_ASSERT_FALSE(has_text("|#", "out"));
	CU_ASSERT_FATAL(terminal >= 0 && !grantpt(terminal) &&
			!unlockpt(terminal));
	slave = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
	CU_ASSERT_FATAL(slave >= 0);
	CU_ASSERT_EQUAL(
		finish(start(slave, "latency", "--seconds", "0.05", NULL)), 0);
	n = read(terminal, text, sizeof(text) - 1);
	for (size_t at = 0; n > 0 && !strstr(text, "|#"); at += (size_t)n)
		n = read(terminal, text + at, sizeof(text) - 1 - at);
	CU_ASSERT(strstr(text, "|#") != NULL);
	close(slave);
	close(terminal);
}

/* ---- refusals and ends -------------------------------------------------- */

static void wrong_usage_is_told(void)
{
	static const char usage[] = "avpctl: bench: USAGE: ";

	CU_ASSERT_EQUAL(finish(start(-1, NULL)), 2);
	CU_ASSERT(complained(usage));
	CU_ASSERT_EQUAL(run("speed"), 2);
	CU_ASSERT(complained("avpctl: bench: USAGE: speed: "));
	CU_ASSERT_EQUAL(run("latency", "wake"), 2);
	CU_ASSERT(complained(usage));
	CU_ASSERT_EQUAL(run("latency", "--size", "0", QUICK), 2);
	CU_ASSERT_EQUAL(run("latency", "--size", "8"), 2);
	CU_ASSERT(complained("avpctl: bench: USAGE: --size 8"));
	CU_ASSERT_EQUAL(run("latency", "--size", "x"), 2);
	CU_ASSERT_EQUAL(run("latency", "--seconds", "0"), 2);
	CU_ASSERT(complained("avpctl: bench: USAGE: --seconds \"0\""));
	CU_ASSERT_EQUAL(run("latency", "--seconds", "nan"), 2);
	CU_ASSERT_EQUAL(run("latency", "--wait", "long"), 2);
	CU_ASSERT(complained("avpctl: bench: USAGE: --wait long"));
	CU_ASSERT_EQUAL(run("wake", "--wait", "busy"), 2);
	CU_ASSERT(complained("avpctl: bench: USAGE: --wait busy"));
	CU_ASSERT_EQUAL(run("latency", "--links", "0"), 2);
	CU_ASSERT_EQUAL(run("fanout", "--links", "1001"), 2);
	CU_ASSERT_EQUAL(run("fanout", "--links", "2.5"), 2);
	CU_ASSERT_EQUAL(run("wake", "--links", "2"), 2);
	CU_ASSERT_EQUAL(run("wake", "--rate", "2"), 2);
	CU_ASSERT_EQUAL(run("latency", "--rate", "-1"), 2);
	CU_ASSERT(complained("avpctl: bench: USAGE: --rate \"-1\""));
	CU_ASSERT_EQUAL(run("latency", "--reader"), 2);
	CU_ASSERT(silent("out"));
	CU_ASSERT_EQUAL(run("--help"), 0);
	CU_ASSERT(silent("err"));
}

static void one_core_is_not_enough(void)
{
	cpu_set_t all, one;

	CU_ASSERT_FATAL(!sched_getaffinity(0, sizeof(all), &all));
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	CU_ASSERT_FATAL(!sched_setaffinity(0, sizeof(one), &one));
	CU_ASSERT_EQUAL(run("latency", QUICK), 3);
	CU_ASSERT(complained("avpctl: bench: IO: this process may use 1 core"));
	CU_ASSERT(silent("out"));
	sched_setaffinity(0, sizeof(all), &all);
	CU_ASSERT(nothing_left());
}

static void a_missing_directory_is_told(void)
{
	setenv("TMPDIR", "/nowhere/at/all", 1);
	CU_ASSERT_EQUAL(run("latency", QUICK), 3);
	CU_ASSERT(complained("avpctl: bench: IO: /nowhere/at/all"));
	setenv("TMPDIR", temporary, 1);
}

/* What its second child answers with, when it has been linked: the agents'
 * names are there. */
static bool is_running(void *arg)
{
	char dir[8400];
	DIR *top = opendir(temporary);
	struct dirent *entry;
	bool found = false;

	(void)arg;
	while (top && (entry = readdir(top))) {
		snprintf(dir, sizeof(dir), "%s/%s/bench/bench-b.sock",
			 temporary, entry->d_name);
		found |= !access(dir, F_OK);
	}
	if (top)
		closedir(top);
	return found;
}

/* The nth child of a process, from 0 on; 0 if there is none. */
static pid_t child_of(pid_t pid, int n)
{
	char file[64];
	int child = 0;
	FILE *f;

	snprintf(file, sizeof(file), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(file, "re");
	CU_ASSERT_FATAL(f != NULL);
	while (n-- >= 0)
		if (fscanf(f, "%d", &child) != 1)
			child = 0;
	fclose(f);
	return child;
}

static void a_child_that_dies_ends_it(void)
{
	pid_t pid = start(-1, "latency", "--seconds", "60", "--json", NULL);

	CU_ASSERT_FATAL(test_wait(is_running, NULL, SECONDS));
	/* The first one keeps the directory. */
	CU_ASSERT_FATAL(child_of(pid, 1) > 0);
	kill(child_of(pid, 1), SIGKILL);
	CU_ASSERT_EQUAL(finish(pid), 3);
	/* Said by whoever sees it first: it, or one that was about to link. */
	CU_ASSERT(complained("avpctl: bench: "));
	CU_ASSERT(silent("out"));
	CU_ASSERT(test_wait(nobody_left, NULL, SECONDS));
	CU_ASSERT(nothing_left());
}

static void killed_it_leaves_nothing(void)
{
	static const char *const benches[] = {"latency", "wake"};
	static const int signals[] = {SIGKILL, SIGTERM, SIGINT};

	for (unsigned i = 0; i < 6; i++) {
		pid_t pid = start(-1, benches[i % 2], "--seconds", "60", NULL);

		CU_ASSERT_FATAL(test_wait(is_running, NULL, SECONDS));
		kill(pid, signals[i / 2]);
		CU_ASSERT_EQUAL(finish(pid), -1);
		CU_ASSERT(test_wait(nobody_left, NULL, SECONDS));
		CU_ASSERT(nothing_left());
	}
}

static bool has_reader(void *arg)
{
	pid_t pid = *(pid_t *)arg;

	return child_of(pid, 2) > 0;
}

static void killed_while_it_recovers_it_leaves_nothing(void)
{
	pid_t pid = start(-1, "recovery", "--seconds", "60", NULL);

	CU_ASSERT_FATAL(test_wait(has_reader, &pid, SECONDS));
	kill(pid, SIGKILL);
	CU_ASSERT_EQUAL(finish(pid), -1);
	CU_ASSERT(test_wait(nobody_left, NULL, SECONDS));
	CU_ASSERT(nothing_left());
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(latency_tells),
		TEST(rates_are_kept),
		TEST(many_links_are_compared_with_one),
		TEST(handover_tells),
		TEST(throughput_tells),
		TEST(wake_tells),
		TEST(fanout_tells),
		TEST(recovery_tells),
		TEST(arena_tells),
		TEST(tables_have_bars_on_a_terminal_only),
		TEST(wrong_usage_is_told),
		TEST(one_core_is_not_enough),
		TEST(a_missing_directory_is_told),
		TEST(a_child_that_dies_ends_it),
		TEST(killed_it_leaves_nothing),
		TEST(killed_while_it_recovers_it_leaves_nothing),
		{0},
	};
	char *tail = argc ? strstr(argv[0], "tests/integration/") : NULL;

	if (!tail)
		return 1;
	snprintf(avpctl, sizeof(avpctl), "%.*savpctl", (int)(tail - argv[0]),
		 argv[0]);
	snprintf(temporary, sizeof(temporary), "%s/bench", test_dir());
	mkdir(temporary, 0700);
	setenv("TMPDIR", temporary, 1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return test_main("avpctl_bench", tests);
}

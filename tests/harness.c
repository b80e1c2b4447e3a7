/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CUnit/TestRun.h>

#include "tests/harness.h"

struct left {
	int fds, memfds;
};

static const char *suite_name;
static const struct test *suite_tests;
static char dir[256];

static struct left count_left(void)
{
	struct left left = {0};
	char line[512];
	DIR *fds = opendir("/proc/self/fd");
	FILE *maps = fopen("/proc/self/maps", "re");

	if (fds)
		while (readdir(fds))
			left.fds++;
	if (maps)
		while (fgets(line, sizeof(line), maps))
			left.memfds += strstr(line, "/memfd:") != NULL;
	if (maps)
		fclose(maps);
	if (fds)
		closedir(fds);
	return left;
}

static void run_checked(int i)
{
	struct left before = count_left(), after;

	suite_tests[i].run();
	after = count_left();
	CU_ASSERT_EQUAL(before.fds, after.fds);
	CU_ASSERT_EQUAL(before.memfds, after.memfds);
	CU_ASSERT_EQUAL(waitpid(-1, NULL, WNOHANG), -1);
	CU_ASSERT_EQUAL(errno, ECHILD);
}

/* CUnit's test functions take no argument: the name tells which one it is. */
static void run_current(void)
{
	const char *name = CU_get_current_test()->pName;

	for (int i = 0; suite_tests[i].name; i++)
		if (!strcmp(suite_tests[i].name, name))
			run_checked(i);
}

static void print_result(const CU_pTest test, const CU_pSuite suite,
			 const CU_pFailureRecord failure)
{
	(void)suite;
	printf("%s %s.%s\n", failure ? "FAIL" : "ok", suite_name, test->pName);
	for (CU_pFailureRecord f = failure; f; f = f->pNext)
		printf("  %s:%u: %s\n", f->strFileName, f->uiLineNumber,
		       f->strCondition);
	fflush(stdout);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void remove_dir(void)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_dir(void)
{
	if (!dir[0]) {
		const char *base = getenv("TMPDIR");

		snprintf(dir, sizeof(dir), "%s/avp-test-XXXXXX",
			 base ? base : "/tmp");
		if (!mkdtemp(dir)) {
			perror(dir);
			exit(1);
		}
	}
	return dir;
}

void test_program(char *path, const char *argv0, const char *name)
{
	const char *tail = argv0 ? strstr(argv0, "tests/integration/") : NULL;
	char beside[PATH_MAX];

	if (tail)
		snprintf(beside, sizeof(beside), "%.*s%s", (int)(tail - argv0),
			 argv0, name);
	if (!tail || !realpath(beside, path)) {
		fprintf(stderr, "no %s beside %s\n", name, argv0);
		exit(1);
	}
}

bool test_wait(bool (*condition)(void *), void *arg, double seconds)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct timespec t;
	double end;

	clock_gettime(CLOCK_MONOTONIC, &t);
	end = (double)t.tv_sec + (double)t.tv_nsec * 1e-9 + seconds;
	while (!condition(arg)) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		if ((double)t.tv_sec + (double)t.tv_nsec * 1e-9 > end)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

int test_in_child(int (*f)(void *), void *arg)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(f(arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status)
				 : 1000 + WTERMSIG(status);
}

int test_main(const char *suite, const struct test *tests)
{
	CU_pSuite s;
	unsigned failed;

	suite_name = suite;
	suite_tests = tests;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (CU_initialize_registry() || !(s = CU_add_suite(suite, NULL, NULL)))
		return 1;
	for (int i = 0; tests[i].name; i++)
		if (!CU_add_test(s, tests[i].name, run_current))
			return 1;
	CU_set_test_complete_handler(print_result);
	CU_run_all_tests();
	failed = CU_get_number_of_tests_failed();
	CU_cleanup_registry();
	if (dir[0])
		remove_dir();
	return failed ? 1 : 0;
}

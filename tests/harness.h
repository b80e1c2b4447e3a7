/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every test program shares: CUnit underneath, one line a test on stdout
 * ("ok name" or "FAIL name"), and a check that a test leaves nothing behind.
 */
#ifndef AVP_TESTS_HARNESS_H
#define AVP_TESTS_HARNESS_H

#include <stdbool.h>

#include <CUnit/CUnit.h>

struct test {
	const char *name;
	void (*run)(void);
};
#define TEST(function)              \
	{                           \
#function, function \
	}

/*
 * Runs the tests up to the entry without a name; the exit status of main. A
 * test also fails if it leaves an open fd, a child process, or a mapped memfd.
 */
int test_main(const char *suite, const struct test *tests);

/* Waits until condition(arg) holds; false after seconds. Polls, 1 ms apart. */
bool test_wait(bool (*condition)(void *), void *arg, double seconds);

/*
 * Runs f(arg) in a forked child: what it returned, or 1000 and the signal that
 * ended it; -1 if there was no child.
 */
int test_in_child(int (*f)(void *), void *arg);

/*
 * A fresh directory below $TMPDIR that goes away with the program, removed with
 * what is in it; the same one for the whole program.
 */
const char *test_dir(void);

/*
 * The program of that name in the build that argv[0], a test's, is a part of;
 * path has room for PATH_MAX bytes. Ends the test if there is none.
 */
void test_program(char *path, const char *argv0, const char *name);

#endif

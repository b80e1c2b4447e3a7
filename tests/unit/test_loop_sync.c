/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files brought to the disk while a loop goes on. Passed over, with a line that
 * says so, where there is no io_uring; epoll has nothing of the kind, and says
 * so itself.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <avp/ring.h>

#include "tests/harness.h"

#define SECOND 1000000000ll

static struct avp_loop *loop;

struct end {
	struct avp_sync sync;
	unsigned calls;
	int error;
	struct end *next; /* to be begun by the callback */
};

static void ended(struct avp_sync *sync, int error)
{
	struct end *end = sync->arg;

	end->calls++;
	end->error = error;
	if (end->next)
		CU_ASSERT_EQUAL(avp_loop_sync(loop, &end->next->sync), 0);
}

static struct end end_of(int fd)
{
	return (struct end){.sync = {.fd = fd, .done = ended}};
}

static bool open_loop(void)
{
	struct avp_reason why;

	setenv("AVP_LOOP", "io_uring", 1);
	if (!avp_loop_open(&loop, &why))
		return true;
	CU_ASSERT_EQUAL(why.code, AVP_UNSUPPORTED);
	printf("skip loop_sync: %s\n", why.text);
	return false;
}

static int open_file(void)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s/file", test_dir());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, "some bytes", 10), 10);
	return fd;
}

static bool run_until(const unsigned *calls, unsigned count)
{
	for (int i = 0; i < 200 && *calls < count; i++)
		CU_ASSERT(avp_loop_run(loop, SECOND / 10) >= 0);
	return *calls == count;
}

/* One at a time; the next may be begun from the callback. */
static void one_after_the_other(void)
{
	int fd = open_file();
	struct end second = end_of(fd), first = end_of(fd);

	if (!open_loop()) {
		close(fd);
		return;
	}
	first.sync.arg = &first;
	first.next = &second;
	second.sync.arg = &second;
	CU_ASSERT_EQUAL(avp_loop_sync(loop, &first.sync), 0);
	CU_ASSERT_EQUAL(avp_loop_sync(loop, &second.sync), AVP_AGAIN);
	CU_ASSERT_EQUAL(first.calls, 0);
	CU_ASSERT(run_until(&second.calls, 1));
	CU_ASSERT_EQUAL(first.calls, 1);
	CU_ASSERT_EQUAL(first.error, 0);
	CU_ASSERT_EQUAL(second.error, 0);
	avp_loop_close(loop);
	close(fd);
}

/* A pipe cannot be synced: the errno is told. */
static void failure_is_told(void)
{
	struct end end;
	int fd[2];

	if (!open_loop())
		return;
	CU_ASSERT_FATAL(!pipe2(fd, O_CLOEXEC));
	end = end_of(fd[0]);
	end.sync.arg = &end;
	CU_ASSERT_EQUAL(avp_loop_sync(loop, &end.sync), 0);
	CU_ASSERT(run_until(&end.calls, 1));
	CU_ASSERT_EQUAL(end.error, 22 /* EINVAL */);
	avp_loop_close(loop);
	close(fd[0]);
	close(fd[1]);
}

/* Watches of other fds come and go meanwhile, and do not lose it. */
static void heard(struct avp_watch *watch, uint32_t events)
{
	(void)events;
	++*(unsigned *)watch->arg;
}

static void beside_watches(void)
{
	int file = open_file(), fd[2];
	struct end end = end_of(file);
	unsigned calls = 0;
	struct avp_watch watch = {
		.events = AVP_READABLE, .ready = heard, .arg = &calls};

	if (!open_loop()) {
		close(file);
		return;
	}
	CU_ASSERT_FATAL(!pipe2(fd, O_CLOEXEC));
	CU_ASSERT_EQUAL(write(fd[1], "x", 1), 1);
	watch.fd = fd[0];
	end.sync.arg = &end;
	for (unsigned i = 1; i <= 50; i++) {
		CU_ASSERT_EQUAL(avp_loop_add(loop, &watch, NULL), 0);
		CU_ASSERT_EQUAL(avp_loop_sync(loop, &end.sync), 0);
		CU_ASSERT(avp_loop_run(loop, 0) >= 0);
		avp_loop_remove(loop, &watch);
		CU_ASSERT(run_until(&end.calls, i));
	}
	CU_ASSERT(calls > 0);
	avp_loop_close(loop);
	close(fd[0]);
	close(fd[1]);
	close(file);
}

/* For a foreign loop the fd becomes readable. */
static void wakes_a_foreign_loop(void)
{
	int file = open_file();
	struct end end = end_of(file);
	struct pollfd p = {.events = POLLIN};

	if (!open_loop()) {
		close(file);
		return;
	}
	p.fd = avp_loop_fd(loop);
	end.sync.arg = &end;
	CU_ASSERT_EQUAL(avp_loop_sync(loop, &end.sync), 0);
	for (int i = 0; i < 200 && poll(&p, 1, 100) != 1; i++)
		continue;
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	CU_ASSERT_EQUAL(end.calls, 1);
	avp_loop_close(loop);
	close(file);
}

/* The thread that began it ends: it is not lost. */
static void *begin(void *arg)
{
	CU_ASSERT_EQUAL(avp_loop_sync(loop, arg), 0);
	avp_loop_run(loop, 0);
	return NULL;
}

static void begun_by_a_thread_that_ends(void)
{
	int file = open_file();
	struct end end = end_of(file);
	pthread_t thread;

	if (!open_loop()) {
		close(file);
		return;
	}
	end.sync.arg = &end;
	for (unsigned i = 1; i <= 20; i++) {
		CU_ASSERT_FATAL(
			!pthread_create(&thread, NULL, begin, &end.sync));
		pthread_join(thread, NULL);
		CU_ASSERT(run_until(&end.calls, i));
		CU_ASSERT_EQUAL(end.error, 0);
	}
	avp_loop_close(loop);
	close(file);
}

static void closed_meanwhile(void)
{
	int file = open_file();
	struct end end = end_of(file);

	if (open_loop()) {
		end.sync.arg = &end;
		CU_ASSERT_EQUAL(avp_loop_sync(loop, &end.sync), 0);
		avp_loop_run(loop, 0);
		avp_loop_close(loop);
	}
	close(file);
}

static void not_under_epoll(void)
{
	int file = open_file();
	struct end end = end_of(file);

	setenv("AVP_LOOP", "epoll", 1);
	CU_ASSERT_EQUAL_FATAL(avp_loop_open(&loop, NULL), 0);
	CU_ASSERT_EQUAL(avp_loop_sync(loop, &end.sync), AVP_UNSUPPORTED);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	CU_ASSERT_EQUAL(end.calls, 0);
	avp_loop_close(loop);
	close(file);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(one_after_the_other),
		TEST(failure_is_told),
		TEST(beside_watches),
		TEST(wakes_a_foreign_loop),
		TEST(begun_by_a_thread_that_ends),
		TEST(closed_meanwhile),
		TEST(not_under_epoll),
		{0},
	};

	return test_main("loop_sync", tests);
}

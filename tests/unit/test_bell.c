/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bells: words of a peer's lane that a loop waits for. Two lanes in one
 * process, each mapped twice as two processes would have them. On a loop
 * without bells all that is tested is that it says so.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ring/bell.h"
#include "tests/harness.h"

#define SECOND 1000000000ll
#define BELLS  70 /* more than a table begins with */

static struct avp_loop *loop;
static struct avp_lane_tx tx[2];
static struct avp_lane_rx rx[2];

/* rx[i] is the mapping of tx[1 - i] that a peer has. */
static void open_lanes(void)
{
	const struct avp_lane_options o = {.size = sizeof(o)};

	for (int i = 0; i < 2; i++)
		CU_ASSERT_FATAL(!avp_lane_init(&tx[i], &o, NULL));
	for (int i = 0; i < 2; i++)
		CU_ASSERT_FATAL(!avp_lane_attach(
			&rx[i], &tx[i], dup(tx[1 - i].segment.fd), NULL));
}

static void close_lanes(void)
{
	for (int i = 0; i < 2; i++) {
		avp_lane_detach(&rx[i]);
		avp_lane_fini(&tx[i]);
	}
}

static void rung(struct avp__bell *bell)
{
	(void)bell; /* counted as a call */
}

static struct avp__bell bell_of(int i)
{
	return (struct avp__bell){.word = avp__lane_bell(&rx[i]), .rung = rung};
}

static void with_bells(const char *name, void (*f)(void))
{
	CU_ASSERT_FATAL(!avp_loop_open(&loop, NULL));
	open_lanes();
	if (avp__loop_has_bells(loop))
		f();
	else
		printf("skip %s: %s here has no bells\n", name,
		       avp_loop_backend(loop));
	avp_loop_close(loop);
	close_lanes();
}

/* A run may be interrupted: the rest of the time. */
static int run_until_called(void)
{
	int calls = 0;

	for (int i = 0; i < 20 && !calls; i++)
		calls = avp_loop_run(loop, SECOND);
	return calls;
}

/* Early, late, twice: told once, and never lost. */
static void each_ring_is_told(void)
{
	struct avp__bell bell = bell_of(0);

	avp__lane_ring(&tx[1]); /* before anybody waits */
	CU_ASSERT_EQUAL(avp__loop_bell_add(loop, &bell, NULL), 0);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	for (int i = 0; i < 100; i++) {
		avp__lane_ring(&tx[1]); /* while it is awaited */
		if (i % 3 == 0)
			avp__lane_ring(&tx[1]); /* and while it is not */
		CU_ASSERT_EQUAL(run_until_called(), 1);
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	}
	avp__lane_ring(&tx[0]); /* another's word */
	CU_ASSERT_EQUAL(avp_loop_run(loop, 1000000), 0);
	avp__loop_bell_remove(loop, &bell);
	avp__lane_ring(&tx[1]);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 1000000), 0);
}

static void ring_is_told(void)
{
	with_bells("ring_is_told", each_ring_is_told);
}

/* Removed ones make room; what is removed while it rings is not told. */
static void many_at_once(void)
{
	struct avp__bell bell[BELLS];
	int calls = 0;

	for (int i = 0; i < BELLS; i++) {
		bell[i] = bell_of(0);
		CU_ASSERT_EQUAL(avp__loop_bell_add(loop, &bell[i], NULL), 0);
	}
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	avp__lane_ring(&tx[1]);
	for (int i = 0; i < BELLS; i += 2)
		avp__loop_bell_remove(loop, &bell[i]);
	for (int i = 0; i < 20 && calls < BELLS / 2; i++)
		calls += avp_loop_run(loop, SECOND);
	CU_ASSERT_EQUAL(calls, BELLS / 2);
	for (int i = 0; i < BELLS; i += 2) {
		bell[i] = bell_of(1);
		CU_ASSERT_EQUAL(avp__loop_bell_add(loop, &bell[i], NULL), 0);
	}
	avp__lane_ring(&tx[0]);
	for (calls = 0; calls < BELLS / 2;)
		calls += run_until_called();
	CU_ASSERT_EQUAL(calls, BELLS / 2);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	for (int i = 0; i < BELLS; i++)
		avp__loop_bell_remove(loop, &bell[i]);
}

static void many(void)
{
	with_bells("many", many_at_once);
}

static void *run_once(void *arg)
{
	*(int *)arg = avp_loop_run(loop, 1000000);
	return NULL;
}

/* The thread that armed it ends: another that runs the loop still hears. */
static void armed_by_another(void)
{
	struct avp__bell bell = bell_of(0);
	pthread_t thread;
	int calls = -1;

	CU_ASSERT_EQUAL(avp__loop_bell_add(loop, &bell, NULL), 0);
	CU_ASSERT_FATAL(!pthread_create(&thread, NULL, run_once, &calls));
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(calls, 0);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 1000000), 0);
	avp__lane_ring(&tx[1]);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	avp__loop_bell_remove(loop, &bell);
}

static void thread_ends(void)
{
	with_bells("thread_ends", armed_by_another);
}

static bool polls_readable(int timeout_ms)
{
	struct pollfd poll_fd = {.fd = avp_loop_fd(loop), .events = POLLIN};
	int n;

	do
		n = poll(&poll_fd, 1, timeout_ms);
	while (n < 0); /* io_uring's work interrupts */
	return n == 1;
}

static void seen_by_a_foreign_loop(void)
{
	struct avp__bell bell = bell_of(0);

	CU_ASSERT_FALSE(polls_readable(0));
	CU_ASSERT_EQUAL(avp__loop_bell_add(loop, &bell, NULL), 0);
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_FALSE(polls_readable(1));
		avp__lane_ring(&tx[1]);
		CU_ASSERT_TRUE(polls_readable(20000));
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	}
	avp__loop_bell_remove(loop, &bell);
}

static void foreign_loop(void)
{
	with_bells("foreign_loop", seen_by_a_foreign_loop);
}

static void loop_without(void)
{
	struct avp__bell bell;
	struct avp_reason why;

	CU_ASSERT_FATAL(!avp_loop_open(&loop, NULL));
	open_lanes();
	bell = bell_of(0);
	if (!avp__loop_has_bells(loop))
		CU_ASSERT_EQUAL(avp__loop_bell_add(loop, &bell, &why),
				AVP_UNSUPPORTED);
	CU_ASSERT(!!strcmp(avp_loop_backend(loop), "epoll") ||
		  !avp__loop_has_bells(loop));
	close_lanes();
	avp_loop_close(loop);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(ring_is_told), TEST(many),		TEST(thread_ends),
		TEST(foreign_loop), TEST(loop_without), {0},
	};

	return test_main("bell", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The progress thread: what moves while the owner computes, and what stays as
 * it was. The other agent is in the same process and is driven by the test;
 * the one with the thread is not called.
 */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/agents.h"
#include "tests/harness.h"

static struct ahp_agent *busy, *other;
static int usual; /* threads: a sanitizer may have its own */

static int threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	int n = -2; /* . and .. */

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static struct ahp_agent *open_busy(uint32_t flags)
{
	const struct ahp_agent_options o = {.flags = AHP_PROGRESS_THREAD |
						     flags};

	return agent_open("busy", &o);
}

static bool links(void *unused)
{
	(void)unused;
	return !ahp_connect(other, "busy", 1000000, NULL, NULL);
}

static void open_pair(uint32_t flags)
{
	busy = open_busy(flags);
	other = agent_open("other", NULL);
	CU_ASSERT_FATAL(test_wait(links, NULL, 10));
}

static void close_pair(void)
{
	ahp_agent_close(busy);
	ahp_agent_close(other);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
	CU_ASSERT(threads() <= usual);
}

static void only_when_asked(void)
{
	struct ahp_agent *agent = agent_open("a", NULL);

	CU_ASSERT(threads() <= usual);
	CU_ASSERT_PTR_NOT_NULL(ahp_agent_loop(agent));
	ahp_agent_close(agent);
	agent = open_busy(0);
	CU_ASSERT_EQUAL(threads(), usual + 1);
	CU_ASSERT_PTR_NULL(ahp_agent_loop(agent));
	ahp_agent_close(agent);
	CU_ASSERT(threads() <= usual);
}

/* ---- what moves --------------------------------------------------------- */

static void peers_connect(void)
{
	open_pair(0); /* links to one that is never called */
	close_pair();
}

static bool is_alive(void *unused)
{
	(void)unused;
	ahp_agent_run(other, 0);
	return ahp_liveness(other, "busy", SECOND_NS) == AHP_ALIVE;
}

static bool is_stuck(void *unused)
{
	(void)unused;
	return ahp_liveness(other, "busy", 200000000) == AHP_STUCK;
}

static void heart_beats(void)
{
	open_pair(0);
	CU_ASSERT(is_alive(NULL));
	/* For as long as an idle owner would have been found stuck three
	 * times. */
	CU_ASSERT_FALSE(test_wait(is_stuck, NULL, 0.6));
	CU_ASSERT(is_alive(NULL));
	close_pair();
}

static bool is_acked(void *receipt)
{
	return ahp_status(other, receipt) == 0;
}

/* Taken by the owner, which goes away before it acknowledges: that is written
 * lazily. What it has not taken is not delivered by anybody. */
static void acks_move(void)
{
	struct ahp_receipt first, second;

	open_pair(0);
	CU_ASSERT_EQUAL(agent_say(other, "busy", "x", &first), 0);
	CU_ASSERT(agent_hears(busy, "x"));
	CU_ASSERT_EQUAL(agent_say(other, "busy", "y", &second), 0);
	CU_ASSERT(test_wait(is_acked, &first, 10));
	CU_ASSERT_EQUAL(ahp_status(other, &second), AVP_AGAIN);
	CU_ASSERT(agent_hears(busy, "y"));
	close_pair();
}

static bool hears_x(void *unused)
{
	struct ahp_message m;

	(void)unused;
	if (ahp_receive(other, &m, 1000000))
		return false;
	ahp_release(other, &m);
	return m.redelivered;
}

/* Its reader goes and comes back: it is sent again. */
static void retries_move(void)
{
	open_pair(AHP_RELIABLE);
	CU_ASSERT_EQUAL(agent_say(busy, "other", "x", NULL), 0);
	ahp_agent_close(other);
	other = agent_open("other", NULL);
	CU_ASSERT(test_wait(hears_x, NULL, 10));
	close_pair();
}

/* ---- beside a foreign loop ---------------------------------------------- */

static bool fd_readable(void *unused)
{
	struct pollfd p = {.fd = ahp_agent_fd(busy), .events = POLLIN};

	(void)unused;
	return poll(&p, 1, 0) == 1;
}

static bool was_away(void *began)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9 -
		       *(double *)began >
	       0.1;
}

/* What the thread takes from under a foreign loop is told again. */
static void foreign_loop(void)
{
	struct timespec now;
	double began;

	open_pair(0);
	ahp_agent_run(busy, 0);
	for (int i = 0; i < 5; i++) {
		while (fd_readable(NULL))
			ahp_agent_run(busy, 0);
		CU_ASSERT_EQUAL(ahp_agent_arm(busy), 0);
		CU_ASSERT_EQUAL(agent_say(other, "busy", "x", NULL), 0);
		clock_gettime(CLOCK_MONOTONIC, &now);
		began = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
		CU_ASSERT(test_wait(was_away, &began, 10));
		CU_ASSERT(test_wait(fd_readable, NULL, 10));
		CU_ASSERT_EQUAL(ahp_agent_run(busy, 0), 1);
		CU_ASSERT(agent_hears(busy, "x"));
	}
	close_pair();
}

/* ---- both at once ------------------------------------------------------- */

/* Short calls and short absences, while peers come and go. */
static void in_turn(void)
{
	struct timespec pause = {0, 0};
	struct ahp_message m;
	unsigned heard = 0, said = 0;

	open_pair(0);
	for (int i = 0; i < 60; i++) {
		struct ahp_agent *guest = agent_open("guest", NULL);

		ahp_connect(guest, "busy", 12000000, NULL, NULL);
		said += !agent_say(other, "busy", "x", NULL);
		/* Absent for as long as it takes the thread to act, or
		 * nearly. */
		pause.tv_nsec = 8000000 + i % 10 * 1500000;
		nanosleep(&pause, NULL);
		for (int n = 0; n < 50; n++) {
			heard += !ahp_receive(busy, &m, 0);
			agent_stats(busy);
			ahp_agent_run(busy, 0);
		}
		ahp_agent_close(guest);
		ahp_agent_run(other, 0);
	}
	CU_ASSERT_EQUAL(heard, said);
	CU_ASSERT_EQUAL(said, 60);
	close_pair();
}

static void closes_at_any_moment(void)
{
	struct timespec pause = {0, 0};

	for (int i = 0; i < 12; i++) {
		struct ahp_agent *agent = open_busy(0);

		pause.tv_nsec = 18000000 + i * 400000;
		nanosleep(&pause, NULL);
		ahp_agent_close(agent);
	}
	CU_ASSERT(threads() <= usual);
}

static void forked(void *unused)
{
	struct ahp_message m;

	(void)unused;
	CHECK(ahp_receive(busy, &m, 0) == AVP_FORKED);
	CHECK(ahp_agent_run(busy, 0) == AVP_FORKED);
	CHECK(threads() == 1);
	ahp_agent_close(busy);
}

static void a_child_has_none(void)
{
	pid_t pid;

	open_pair(0);
	pid = child_start(forked, NULL);
	child_finish(pid);
	CU_ASSERT_EQUAL(agent_say(other, "busy", "x", NULL), 0);
	CU_ASSERT(agent_hears(busy, "x"));
	close_pair();
}

static void on_signal(int number)
{
	(void)number;
}

static bool is_taken(void *unused)
{
	sigset_t pending;

	(void)unused;
	sigpending(&pending);
	return !sigismember(&pending, SIGUSR1);
}

/* A signal that the owner has blocked waits for it. */
static void signals_are_blocked(void)
{
	struct sigaction action = {.sa_handler = on_signal}, before;
	sigset_t set;

	open_pair(0);
	sigaction(SIGUSR1, &action, &before);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGUSR1);
	CU_ASSERT_FALSE(test_wait(is_taken, NULL, 0.1));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	CU_ASSERT(is_taken(NULL));
	sigaction(SIGUSR1, &before, NULL);
	close_pair();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(only_when_asked),
		TEST(peers_connect),
		TEST(heart_beats),
		TEST(acks_move),
		TEST(retries_move),
		TEST(foreign_loop),
		TEST(in_turn),
		TEST(closes_at_any_moment),
		TEST(a_child_has_none),
		TEST(signals_are_blocked),
		{0},
	};

	agents_begin();
	usual = threads();
	return test_main("progress", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's one fd in a loop that is not ours: level- and edge-triggered, for
 * messages, for room, and for the rest. Two agents of one process, driven in
 * turn, so that nothing happens between two calls; and two processes at
 * length.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define MESSAGES 3000

static struct ahp_agent *a, *b;
static int epoll;

static void open_loop(struct ahp_agent *agent, uint32_t more)
{
	struct epoll_event event = {.events = EPOLLIN | more};

	epoll = epoll_create1(EPOLL_CLOEXEC);
	CU_ASSERT_EQUAL(
		epoll_ctl(epoll, EPOLL_CTL_ADD, ahp_agent_fd(agent), &event),
		0);
}

/* As the contract has it: what is interrupted is begun again. */
static int polled(int timeout_ms)
{
	struct epoll_event event;
	int n;

	do
		n = epoll_wait(epoll, &event, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	return n;
}

static void open_pair(uint32_t more)
{
	const struct ahp_agent_options small = {.window = 16};

	a = agent_open("a", &small);
	b = agent_open("b", &small);
	agents_link(a, b);
	open_loop(a, more);
}

static void close_pair(void)
{
	close(epoll);
	ahp_agent_close(a);
	if (b)
		ahp_agent_close(b);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static void level(void)
{
	struct ahp_message m;

	open_pair(0);
	for (int i = 0; i < 50; i++) {
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
		CU_ASSERT_EQUAL(polled(0), 0);
		CU_ASSERT_EQUAL(agent_say(b, "a", "x", NULL), 0);
		CU_ASSERT_EQUAL(agent_say(b, "a", "y", NULL), 0);
		/* Told again until it is looked at. */
		CU_ASSERT_EQUAL(polled(0), 1);
		CU_ASSERT_EQUAL(polled(0), 1);
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 1);
		if (i % 2)
			CU_ASSERT_EQUAL(ahp_agent_run(a, 0), 1);
		CU_ASSERT(agent_hears(a, "x"));
		CU_ASSERT(agent_hears(a, "y"));
		CU_ASSERT_EQUAL(ahp_receive(a, &m, 0), AVP_TIMEOUT);
	}
	/* A new link and a hang-up are work too. */
	CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(polled(0), 1);
	CU_ASSERT_EQUAL(ahp_agent_run(a, 0), 0);
	CU_ASSERT_EQUAL(agent_stats(a).links, 0);
	CU_ASSERT_EQUAL(polled(0), 0);
	b = agent_open("b", NULL);
	CU_ASSERT_EQUAL(ahp_connect(b, "a", 0, NULL, NULL), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(polled(0), 1);
	agents_link(b, a);
	close_pair();
}

/* Each edge is told once; what comes after ahp_agent_run() makes another. */
static void edge(void)
{
	open_pair(EPOLLET);
	ahp_agent_run(a, 0);
	while (polled(0) > 0)
		ahp_agent_run(a, 0);
	for (int i = 0; i < 50; i++) {
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
		CU_ASSERT_EQUAL(agent_say(b, "a", "x", NULL), 0);
		CU_ASSERT_EQUAL(polled(0), 1);
		CU_ASSERT_EQUAL(polled(0), 0);
		CU_ASSERT_EQUAL(ahp_agent_run(a, 0), 1);
		CU_ASSERT(agent_hears(a, "x"));
		/* Between the message and arming: arming tells. */
		CU_ASSERT_EQUAL(agent_say(b, "a", "y", NULL), 0);
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 1);
		CU_ASSERT(agent_hears(a, "y"));
	}
	close_pair();
}

/* Fills b's window, or the ring. */
static void fill_up(void)
{
	int sent = 0;

	while (!agent_say(a, "b", "x", NULL) && sent < 100)
		sent++;
	CU_ASSERT_EQUAL(sent, 16);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), AVP_QUEUE_FULL);
}

static void room_is_told(uint32_t more)
{
	struct ahp_message m;

	open_pair(more);
	for (int i = 0; i < 20; i++) {
		fill_up();
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
		CU_ASSERT_EQUAL(polled(0), 0);
		for (int n = 0; n < 16; n++)
			CU_ASSERT(agent_hears(b, "x"));
		CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
		CU_ASSERT_EQUAL(polled(0), 1);
		/* By arming if not by the fd, and once. */
		CU_ASSERT_EQUAL(ahp_agent_run(a, 0), 0);
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 1);
		CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
		/* Nobody waits for room now. */
		CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), 0);
		CU_ASSERT(agent_hears(b, "x"));
		CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
		CU_ASSERT_EQUAL(polled(0), 0);
		agents_settle(a, b);
		ahp_agent_run(a, 0);
	}
	close_pair();
}

static void room(void)
{
	room_is_told(0);
}

static void room_by_edges(void)
{
	room_is_told(EPOLLET);
}

/* ---- at length ---------------------------------------------------------- */

/* Echoes, slowly now and then, so that the other's window fills. */
static void echo(void *arg)
{
	const struct ahp_agent_options small = {.window = 16};
	struct ahp_agent *agent = agent_open("echo", &small);
	struct ahp_outgoing out = {
		.method = AHP_RESULT, .body = "x", .body_bytes = 1};
	struct ahp_message m;

	(void)arg;
	for (int i = 0; i < MESSAGES; i++) {
		CHECK(!ahp_receive(agent, &m, LONG_NS));
		if (i % 100 == 0) /* it computes; acknowledges nothing */
			for (volatile int n = 0; n < 200000; n++)
				;
		out.peer = m.peer;
		CHECK(!ahp_send(agent, &out, LONG_NS, NULL, NULL));
	}
	ahp_agent_close(agent);
}

static bool link_to(struct ahp_agent *agent, const char *id)
{
	for (int i = 0; i < 20000; i++) {
		if (!ahp_connect(agent, id, LONG_NS, NULL, NULL))
			return true;
		ahp_agent_run(agent, 1000000);
	}
	return false;
}

/* Sends as much as there is room for, waits for either, takes the answers. */
static void stream(uint32_t more)
{
	const struct ahp_agent_options small = {.window = 16};
	pid_t pid = child_start(echo, NULL);
	int sent = 0, heard = 0, waits = 0, full = 0;
	struct ahp_message m;

	a = agent_open("a", &small);
	b = NULL;
	CU_ASSERT_FATAL(link_to(a, "echo"));
	open_loop(a, more);
	while (heard < MESSAGES && waits < 100 * MESSAGES) {
		while (sent < MESSAGES && !agent_say(a, "echo", "x", NULL))
			sent++;
		full += sent < MESSAGES;
		if (!ahp_agent_arm(a)) {
			waits++;
			if (polled(20000) != 1)
				break;
		}
		ahp_agent_run(a, 0);
		for (; !ahp_receive(a, &m, 0); heard++)
			ahp_release(a, &m);
	}
	CU_ASSERT_EQUAL(heard, MESSAGES);
	CU_ASSERT(full > 10);
	child_finish(pid);
	printf("%d waits, %d times full\n", waits, full);
	close_pair();
}

static void stream_by_level(void)
{
	stream(0);
}

static void stream_by_edges(void)
{
	stream(EPOLLET);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(level),
		TEST(edge),
		TEST(room),
		TEST(room_by_edges),
		TEST(stream_by_level),
		TEST(stream_by_edges),
		{0},
	};

	agents_begin();
	return test_main("foreign_loop", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links between agents that begin just before an index wraps: the 32 bits of a
 * sequence that ride in slots, the 48 of the ack ring, the last sequence that a
 * lane may begin with; the waiter words; and the milliseconds of a link that
 * is 49 days old. Messages of each kind go both ways across it.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "ahp/agent_internal.h"
#include "tests/agents.h"
#include "tests/harness.h"

#define AHEAD  150 /* messages before the wrap */
#define ROUNDS 40  /* of GROUP messages, each way */
#define GROUP  8
#define DAY_NS (86400 * SECOND_NS)

static struct ahp_agent *agent[2];
static const char *const name[2] = {"left", "right"};
static struct ahp_receipt receipt[GROUP];
static uint32_t sent;

static void open_both(uint64_t first, uint32_t flags)
{
	const struct ahp_agent_options o = {
		.wait = AHP_WAIT_BLOCK, .flags = flags, .window = 16};

	for (int i = 0; i < 2; i++) {
		agent[i] = agent_open(name[i], &o);
		agent[i]->first_sequence = first;
		/* Even: awake. */
		atomic_store(&agent[i]->page->messages, UINT32_MAX - AHEAD + 1);
		atomic_store(&agent[i]->page->space, UINT32_MAX - AHEAD + 1);
	}
	agents_link(agent[0], agent[1]);
}

static void close_both(void)
{
	agents_settle(agent[0], agent[1]);
	for (int i = 0; i < 2; i++) {
		struct ahp_stats s = agent_stats(agent[i]);

		CU_ASSERT_EQUAL(s.in_flight, 0);
		CU_ASSERT_EQUAL(s.bytes_lent, 0);
		CU_ASSERT_EQUAL(s.late_wakes, 0);
		CU_ASSERT_EQUAL(s.poisoned, 0);
		CU_ASSERT_EQUAL(s.dead, 0);
	}
	ahp_agent_close(agent[0]);
	ahp_agent_close(agent[1]);
}

/* A short one, or one in the arena. */
static void send_one(int from, uint32_t i)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", sent + i);
	CU_ASSERT_EQUAL_FATAL(
		i % 2 ? agent_lend(agent[from], name[!from], 5000, sent + i,
				   &receipt[i])
		      : agent_say(agent[from], name[!from], text, &receipt[i]),
		0);
}

static bool is_message(const struct ahp_message *m, uint32_t i)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", sent + i);
	if (i % 2)
		return m->body_bytes == 5000 &&
		       pattern_is(m->body, 5000, sent + i);
	return m->body_bytes == strlen(text) &&
	       !memcmp(m->body, text, m->body_bytes);
}

/* Sent, slept for, received, answered out of order, the third one refused. */
static void round_trip(int from, bool answers, bool reliable)
{
	static const int order[GROUP] = {5, 1, 7, 0, 2, 6, 4, 3};
	struct ahp_message m[GROUP];

	for (uint32_t i = 0; i < GROUP; i++)
		send_one(from, i);
	for (uint32_t i = 0; i < GROUP; i++) {
		CU_ASSERT_EQUAL_FATAL(ahp_receive(agent[!from], &m[i], LONG_NS),
				      0);
		CU_ASSERT(is_message(&m[i], i));
	}
	CU_ASSERT_EQUAL(ahp_agent_arm(agent[!from]), 0);
	for (int k = 0; k < GROUP; k++) {
		int i = order[k], error = 0;

		if (answers && i == 2 && !reliable)
			error = ahp_reject(agent[!from], &m[i]);
		else if (answers)
			error = ahp_accept(agent[!from], &m[i]);
		CU_ASSERT_EQUAL(error, 0);
		ahp_release(agent[!from], &m[i]);
	}
	agents_settle(agent[0], agent[1]);
	for (int i = 0; i < GROUP; i++)
		CU_ASSERT_EQUAL(ahp_status(agent[from], &receipt[i]),
				answers && i == 2 && !reliable ? AVP_REJECTED
							       : 0);
	sent += GROUP;
}

static void across(uint64_t first, uint32_t flags)
{
	open_both(first, flags);
	for (int i = 0; i < ROUNDS; i++)
		for (int from = 0; from < 2; from++)
			round_trip(from, flags & AHP_EXPLICIT_ACK,
				   flags & AHP_RELIABLE);
	CU_ASSERT(agent[0]->link[0]->tx.next > first + AHEAD);
	CU_ASSERT(agent[1]->link[0]->tx.next > first + AHEAD);
	close_both();
}

static const uint64_t wrap[] = {(UINT64_C(1) << 32) - AHEAD,
				(UINT64_C(1) << 48) - AHEAD, INT64_MAX};

static void automatic(void)
{
	for (int i = 0; i < 3; i++)
		across(wrap[i], 0);
}

static void by_hand(void)
{
	for (int i = 0; i < 3; i++)
		across(wrap[i], AHP_EXPLICIT_ACK);
}

static void reliable(void)
{
	for (int i = 0; i < 3; i++)
		across(wrap[i], AHP_EXPLICIT_ACK | AHP_RELIABLE);
}

/* A refused reliable message comes again, on the other side of the wrap. */
static void sent_again(void)
{
	struct ahp_agent_options o = {.wait = AHP_WAIT_BLOCK,
				      .flags = AHP_EXPLICIT_ACK | AHP_RELIABLE,
				      .retry_delay_ns = 1};
	struct ahp_message m;

	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < 2; i++) {
			agent[i] = agent_open(name[i], &o);
			agent[i]->first_sequence = wrap[k] + AHEAD - 1;
		}
		agents_link(agent[0], agent[1]);
		CU_ASSERT_EQUAL(agent_say(agent[0], "right", "again", receipt),
				0);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(agent[1], &m, LONG_NS), 0);
		CU_ASSERT_EQUAL(ahp_reject(agent[1], &m), 0);
		for (int i = 0; i < 1000 && ahp_receive(agent[1], &m, 1000000);
		     i++)
			ahp_agent_run(agent[0], 1000000);
		CU_ASSERT(m.redelivered && m.body_bytes == 5);
		CU_ASSERT_EQUAL(ahp_accept(agent[1], &m), 0);
		agents_settle(agent[0], agent[1]);
		CU_ASSERT_EQUAL(ahp_status(agent[0], receipt), 0);
		close_both();
	}
}

/* On a link as old as that: to the millisecond, renewed within three weeks. */
static void sent_when(void)
{
	static struct ahp__link link;
	const int64_t wraps_ns = (INT64_C(1) << 32) * 1000000;
	const int64_t at[] = {DAY_NS, wraps_ns - 5, wraps_ns + 5,
			      3 * wraps_ns + 7};
	const int64_t off[] = {0, -1000000, 2000000, -5 * DAY_NS, 20 * DAY_NS};

	link.rx.start_ns = 123456789;
	for (int i = 0; i < 4; i++) {
		ahp__link_sent_ref(&link, 123456789 + at[i]);
		for (int k = 0; k < 5; k++) {
			int64_t ms = (at[i] + off[k]) / 1000000;

			if (ms >= 0)
				CU_ASSERT_EQUAL(
					ahp__sent_ns(&link, (uint32_t)ms),
					123456789 + ms * 1000000);
		}
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(automatic),  TEST(by_hand),   TEST(reliable),
		TEST(sent_again), TEST(sent_when), {0},
	};

	agents_begin();
	return test_main("wrap", tests);
}

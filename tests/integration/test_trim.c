/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Idle memory goes back to the system: what was lent once is neither kept by the
 * agent nor mapped by its peers, but for one segment, and no body that is looked at
 * goes away.
 */
#include <string.h>

#include "ahp/agent_internal.h"
#include "tests/agents.h"
#include "tests/harness.h"

#define BODY (9 * MIB) /* more than the warm window */

static struct ahp_agent *a, *b;

/* Every turn is a period: what was not lent for two of them goes. */
static void open_pair(int64_t trim_ns)
{
	a = agent_open("a", NULL);
	b = agent_open("b", NULL);
	agents_link(a, b);
	a->trim_ns = trim_ns;
}

static void close_pair(void)
{
	ahp_agent_close(a);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static struct avp_arena_stats arena_of_a(void)
{
	struct avp_arena_stats stats;

	avp_arena_stats(a->pool[0].arena, &stats);
	return stats;
}

static void lend(struct ahp_message *m, uint32_t seed)
{
	CU_ASSERT_EQUAL_FATAL(agent_lend(a, "b", BODY, seed, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, m, 0), 0);
	CU_ASSERT(m->in_place);
}

static void idle_segments_go(void)
{
	static struct ahp_message m[3];
	struct avp_arena_stats most, now;

	open_pair(1);
	for (uint32_t i = 0; i < 3; i++)
		lend(&m[i], i);
	most = arena_of_a();
	CU_ASSERT(most.segment_bytes >= 3 * BODY);
	CU_ASSERT_EQUAL(b->link[0]->imports, most.segments);

	/* All of them are in use: none goes. */
	agents_settle(a, b);
	CU_ASSERT_EQUAL(arena_of_a().segment_bytes, most.segment_bytes);

	/* Asked back, but the peer looks at something: it answers later. */
	ahp_release(b, &m[1]);
	ahp_release(b, &m[2]);
	agents_settle(a, b);
	CU_ASSERT(pattern_is(m[0].body, BODY, 0));
	now = arena_of_a();
	CU_ASSERT_EQUAL(b->link[0]->imports, now.segments);
	CU_ASSERT(a->retiring != 0 || now.segments == 1);

	ahp_release(b, &m[0]);
	agents_settle(a, b);
	agents_settle(a, b);
	now = arena_of_a();
	CU_ASSERT_EQUAL(a->retiring, 0);
	CU_ASSERT_EQUAL(now.retiring, 0);
	CU_ASSERT(now.segment_bytes < most.segment_bytes - 2 * BODY);
	CU_ASSERT_EQUAL(b->link[0]->imports, now.segments);
	CU_ASSERT_EQUAL(agent_stats(a).poisoned + agent_stats(b).poisoned, 0);
	close_pair();
}

/* A link knows 64 segments at once: those that went do not count. */
static void again_and_again(void)
{
	static struct ahp_message m[3];

	open_pair(1);
	for (uint32_t i = 0; i < 20; i++) {
		for (uint32_t k = 0; k < 3; k++)
			lend(&m[k], i + k);
		for (uint32_t k = 0; k < 3; k++) {
			CU_ASSERT_FATAL(pattern_is(m[k].body, BODY, i + k));
			ahp_release(b, &m[k]);
		}
		for (int k = 0; k < 3; k++)
			agents_settle(a, b);
		CU_ASSERT_FATAL(arena_of_a().segments == 1);
	}
	CU_ASSERT_EQUAL(a->link[0]->passed_count, 1);
	CU_ASSERT_EQUAL(b->link[0]->imports, 1);
	close_pair();
}

static void what_was_in_use_of_late_stays(void)
{
	static struct ahp_message m;
	uint64_t bytes;

	open_pair(SECOND_NS * 3600);
	lend(&m, 1);
	ahp_release(b, &m);
	bytes = arena_of_a().segment_bytes;
	for (int i = 0; i < 10; i++)
		agents_settle(a, b);
	CU_ASSERT_EQUAL(arena_of_a().segment_bytes, bytes);
	close_pair();
}

/* Its reader ends without an answer. */
static void reader_goes(void)
{
	static struct ahp_message m[2];

	open_pair(1);
	lend(&m[0], 1);
	lend(&m[1], 2);
	ahp_release(b, &m[1]);
	agents_settle(a, b);
	ahp_release(b, &m[0]);
	ahp_agent_close(b);
	for (int i = 0; i < 8; i++)
		ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(a->retiring, 0);
	CU_ASSERT_EQUAL(arena_of_a().segments, 1);
	b = agent_open("b", NULL);
	close_pair();
}

static void say(struct ahp_agent *agent, enum wire_kind kind, uint32_t number)
{
	struct wire_segment m = {
		.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, kind, sizeof(m)},
		.number = number,
	};

	CU_ASSERT_EQUAL(avp_fd_send(agent->link[0]->sock, &m, sizeof(m), NULL, 0,
				    NULL),
			0);
}

/* It wants what it never passed, or gives back what nobody asked for. */
static void lies(void)
{
	static struct ahp_message m;

	open_pair(SECOND_NS * 3600);
	say(a, WIRE_UNMAP, 77);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_stats(b).poisoned, 1);
	close_pair();

	open_pair(SECOND_NS * 3600);
	lend(&m, 1);
	ahp_release(b, &m);
	say(b, WIRE_UNMAPPED, 1);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_stats(a).poisoned, 1);
	CU_ASSERT(arena_of_a().segment_bytes >= BODY);
	close_pair();

	/* It wants back what it still lends: not while that is looked at. */
	open_pair(SECOND_NS * 3600);
	lend(&m, 1);
	say(a, WIRE_UNMAP, arena_of_a().segments);
	agents_settle(a, b);
	CU_ASSERT(pattern_is(m.body, BODY, 1));
	ahp_release(b, &m);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_stats(a).poisoned, 1);
	close_pair();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(idle_segments_go),
		TEST(again_and_again),
		TEST(what_was_in_use_of_late_stays),
		TEST(reader_goes),
		TEST(lies),
		{0},
	};

	agents_begin();
	return test_main("trim", tests);
}

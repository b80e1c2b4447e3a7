/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent with more links than are asked each turn: whether something is there
 * is answered exactly, before a sleep too, whoever speaks, hangs up, or comes
 * back; and what was idle is taken with the next call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define PEERS  40
#define ROUNDS 4000

static struct ahp_agent *hub, *peer[PEERS];
static uint32_t said[PEERS], heard[PEERS], waiting;
static uint32_t seed = 17;

static uint32_t any(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 16) % below;
}

static void open_peer(uint32_t i)
{
	char id[16];

	snprintf(id, sizeof(id), "peer-%u", i);
	peer[i] = agent_open(id, NULL);
	agents_link(peer[i], hub);
	said[i] = heard[i] = 0;
}

static void speak(uint32_t i)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", said[i]++);
	CU_ASSERT_FATAL(!agent_say(peer[i], "hub", text, NULL));
	waiting++;
}

/* From anyone; of each in its order. */
static void hear(void)
{
	struct ahp_message m;
	char text[16] = "";
	unsigned i;

	CU_ASSERT_FATAL(!ahp_receive(hub, &m, 0));
	CU_ASSERT_FATAL(sscanf(m.source, "peer-%u", &i) == 1 && i < PEERS);
	CU_ASSERT_FATAL(m.body_bytes < sizeof(text));
	memcpy(text, m.body, m.body_bytes);
	CU_ASSERT_EQUAL((uint32_t)atoi(text), heard[i]);
	heard[i]++;
	waiting--;
	ahp_release(hub, &m);
}

/* With or without messages that are still to be read. */
static void come_back(uint32_t i)
{
	uint64_t links = agent_stats(hub).links;

	ahp_agent_close(peer[i]);
	while (waiting)
		hear();
	for (int n = 0; n < 1000 && agent_stats(hub).links == links; n++)
		ahp_agent_run(hub, 1000000);
	CU_ASSERT_EQUAL_FATAL(agent_stats(hub).links, links - 1);
	open_peer(i);
}

static void told_exactly(void)
{
	const struct ahp_agent_options o = {.wait = AHP_WAIT_BLOCK};

	hub = agent_open("hub", &o);
	for (uint32_t i = 0; i < PEERS; i++)
		open_peer(i);
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t what = any(64);

		if (what < 32)
			speak(any(PEERS));
		else if (what < 63 && waiting)
			hear();
		else if (what == 63)
			come_back(any(PEERS));
		CU_ASSERT_EQUAL_FATAL(ahp_agent_arm(hub), waiting > 0);
		CU_ASSERT_EQUAL_FATAL(ahp_agent_run(hub, 0), waiting > 0);
	}
	while (waiting)
		hear();
	CU_ASSERT_EQUAL(ahp_agent_arm(hub), 0);
	for (uint32_t i = 0; i < PEERS; i++)
		ahp_agent_close(peer[i]);
	ahp_agent_close(hub);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(told_exactly),
		{0},
	};

	agents_begin();
	return test_main("links", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent costs that has 64 links and nothing to do. The bound here is a
 * loose one, for machines that do other things; IDLE_SECONDS=10 measures.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define LINKS 64
#define MOST  0.02 /* of a core */

static _Atomic uint32_t *up; /* shared: the hub's links */
static uint32_t wait_mode;

static double cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void be_idle(void *arg)
{
	const struct ahp_agent_options o = {.wait = wait_mode};
	struct ahp_agent *hub = agent_open("hub", &o);
	const char *text = getenv("IDLE_SECONDS");
	double seconds = text ? atof(text) : 0.5, before, used;
	struct ahp_message m;

	(void)arg;
	while (agent_stats(hub).links < LINKS) {
		ahp_agent_run(hub, 1000000);
		atomic_store(up, (uint32_t)agent_stats(hub).links);
	}
	ahp_receive(hub, &m, 200000000); /* the last of the linking */
	before = cpu_seconds();
	CHECK(ahp_receive(hub, &m, (int64_t)(seconds * 1e9)) == AVP_TIMEOUT);
	used = cpu_seconds() - before;
	printf("mode %u, %d links, %.1f s: %.3f %% of a core\n", wait_mode,
	       LINKS, seconds, 100 * used / seconds);
	fflush(stdout);
	CHECK(used < MOST * seconds);
	CHECK(!agent_stats(hub).late_wakes);
	ahp_agent_close(hub);
}

static void costs_nothing(uint32_t mode)
{
	static struct ahp_agent *peer[LINKS];
	char id[32];
	pid_t pid;

	wait_mode = mode;
	pid = child_start(be_idle, NULL);
	for (int i = 0; i < LINKS; i++) {
		snprintf(id, sizeof(id), "peer-%d", i);
		peer[i] = agent_open(id, NULL);
		while (ahp_connect(peer[i], "hub", LONG_NS, NULL, NULL) ==
		       AVP_AGENT_NOT_FOUND)
			ahp_agent_run(peer[i], 1000000);
	}
	CU_ASSERT(shared_await(up, LINKS));
	child_finish(pid);
	for (int i = 0; i < LINKS; i++)
		ahp_agent_close(peer[i]);
	atomic_store(up, 0);
}

static void adaptive(void)
{
	costs_nothing(AHP_WAIT_ADAPTIVE);
}

static void block(void)
{
	costs_nothing(AHP_WAIT_BLOCK);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(adaptive),
		TEST(block),
		{0},
	};

	agents_begin();
	up = shared_new(sizeof(*up));
	return test_main("idle", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What observers see of an agent that has just gone to sleep: all that it has
 * counted. It is stopped there, so that no later beat can tell.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define ROUNDS 6 /* fewer than an agent may show from beat to beat */

static _Atomic uint32_t *step; /* shared: what the sender has done */
static int turn[2];

static void note(void *arg, const struct ahp_observation *o)
{
	if (!strcmp(o->id, "sender"))
		*(uint64_t *)arg = o->stats.sent;
}

static uint64_t seen(void)
{
	uint64_t sent = UINT64_MAX;

	CU_ASSERT_EQUAL(ahp_observe(NULL, NULL, note, &sent, NULL), 0);
	return sent;
}

static struct ahp_agent *linked_sender(void)
{
	const struct ahp_agent_options o = {.wait = AHP_WAIT_BLOCK};
	struct ahp_agent *agent = agent_open("sender", &o);

	while (ahp_connect(agent, "hub", LONG_NS, NULL, NULL))
		;
	return agent;
}

/* A foreign loop's way: after arming, no call until something is told. */
static void send_and_arm(void *arg)
{
	struct ahp_agent *agent = linked_sender();
	char c;

	(void)arg;
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		CHECK(!agent_say(agent, "hub", "hello", NULL));
		CHECK(!ahp_agent_arm(agent));
		atomic_store(step, i);
		CHECK(read(turn[0], &c, 1) == 1);
	}
	ahp_agent_close(agent);
}

static void seen_after_arming(void)
{
	struct ahp_agent *hub = agent_open("hub", NULL);
	pid_t pid = child_start(send_and_arm, NULL);

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		while (atomic_load(step) < i)
			ahp_agent_run(hub, 1000000);
		CU_ASSERT_EQUAL(seen(), i);
		CU_ASSERT_EQUAL(write(turn[1], "", 1), 1);
	}
	child_finish(pid);
	ahp_agent_close(hub);
	atomic_store(step, 0);
}

static void send_and_receive(void *arg)
{
	struct ahp_agent *agent = linked_sender();
	struct ahp_message m;

	(void)arg;
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		CHECK(!agent_say(agent, "hub", "hello", NULL));
		atomic_store(step, i);
		CHECK(!ahp_receive(agent, &m, LONG_NS));
	}
	ahp_agent_close(agent);
}

static bool sleeps(void *pid)
{
	char path[32], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", *(pid_t *)pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*d %*s %c", &state) != 1)
		state = 0;
	if (f)
		fclose(f);
	return state == 'S';
}

static void seen_when_asleep(void)
{
	struct ahp_agent *hub = agent_open("hub", NULL);
	pid_t pid = child_start(send_and_receive, NULL);

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		while (atomic_load(step) < i)
			ahp_agent_run(hub, 1000000);
		CU_ASSERT(test_wait(sleeps, &pid, 20));
		kill(pid, SIGSTOP);
		CU_ASSERT_EQUAL(seen(), i);
		kill(pid, SIGCONT);
		CU_ASSERT_EQUAL(agent_say(hub, "sender", "go on", NULL), 0);
	}
	child_finish(pid);
	ahp_agent_close(hub);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(seen_after_arming),
		TEST(seen_when_asleep),
		{0},
	};
	int failed;

	agents_begin();
	step = shared_new(sizeof(*step));
	if (pipe(turn))
		return 1;
	failed = test_main("observe", tests);
	shared_free((void *)step, sizeof(*step));
	return failed;
}

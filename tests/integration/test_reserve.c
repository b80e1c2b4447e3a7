/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that agents make while they have nothing to do, as much as was
 * asked. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "ahp/agent_internal.h"
#include "tests/agents.h"
#include "tests/harness.h"

static struct avp_arena_stats arena_of(const struct ahp_agent *agent)
{
	struct avp_arena_stats stats = {0};

	if (agent->pools)
		avp_arena_stats(agent->pool[0].arena, &stats);
	return stats;
}

/* Waits of a program that gets nothing. */
static void idle(struct ahp_agent *agent)
{
	struct ahp_message m;

	for (int i = 0; i < 1000 && agent->options.reserve_bytes; i++)
		CU_ASSERT_EQUAL(ahp_receive(agent, &m, 5000000), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(agent->options.reserve_bytes, 0);
}

static void made_while_waiting(uint32_t wait)
{
	const struct ahp_agent_options o = {.wait = wait,
					    .quota_bytes = 64 * MIB,
					    .reserve_bytes = 24 * MIB};
	struct ahp_agent *agent = agent_open("ahead", &o);
	struct ahp_loan loan;

	CU_ASSERT_EQUAL(arena_of(agent).segment_bytes, 0);
	idle(agent);
	CU_ASSERT_EQUAL(arena_of(agent).segment_bytes, 24 * MIB);
	CU_ASSERT_EQUAL(ahp_loan(agent, NULL, 20 * MIB, 0, &loan, NULL), 0);
	CU_ASSERT_EQUAL(arena_of(agent).grown, 1);
	ahp_loan_release(agent, &loan);
	ahp_agent_close(agent);
}

static void adaptive(void)
{
	made_while_waiting(AHP_WAIT_ADAPTIVE);
}

static void busy(void)
{
	made_while_waiting(AHP_WAIT_BUSY);
}

static void block(void)
{
	made_while_waiting(AHP_WAIT_BLOCK);
}

/* What comes while memory is made is not kept waiting for all of it. */
static void messages_come_first(void)
{
	const struct ahp_agent_options o = {.wait = AHP_WAIT_BLOCK,
					    .quota_bytes = 256 * MIB,
					    .reserve_bytes = 64 * MIB};
	struct ahp_agent *peer = agent_open("peer", NULL);
	struct ahp_agent *agent = agent_open("ahead", &o);

	agents_link(peer, agent);
	for (int i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(agent_say(peer, "ahead", "now", NULL), 0);
		CU_ASSERT(agent_hears(agent, "now"));
	}
	CU_ASSERT(arena_of(agent).segment_bytes < 64 * MIB);
	ahp_agent_close(agent);
	ahp_agent_close(peer);
}

/* The owner makes no call: what is mapped tells what the thread has done. */
static bool is_mapped(void *name)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, name);
	if (f)
		fclose(f);
	return found;
}

static void by_the_thread(void)
{
	const struct ahp_agent_options o = {.flags = AHP_PROGRESS_THREAD,
					    .quota_bytes = 64 * MIB,
					    .reserve_bytes = 4 * MIB};
	struct ahp_agent *agent = agent_open("ahead", &o);

	CU_ASSERT(test_wait(is_mapped, "memfd:avp:ahead", 20));
	ahp_agent_close(agent);
}

/* At a limit: said once, and the agent is none the worse for it. */
static int beyond_a_limit(void *arg)
{
	const struct rlimit limit = {8 * MIB, 8 * MIB};
	struct agent_log log = {0};
	const struct ahp_agent_options o = {.log = agent_log,
					    .log_arg = &log,
					    .quota_bytes = 64 * MIB,
					    .reserve_bytes = 24 * MIB};
	struct ahp_agent *agent = agent_open("ahead", &o);
	struct ahp_loan loan;
	struct ahp_message m;

	(void)arg;
	if (setrlimit(RLIMIT_FSIZE, &limit))
		return 1;
	for (int i = 0; i < 3; i++)
		if (ahp_receive(agent, &m, 5000000) != AVP_TIMEOUT)
			return 2;
	if (log.warnings != 1 || log.last != AVP_NO_MEMORY ||
	    !strstr(log.text, "25165824"))
		return 3;
	if (ahp_loan(agent, NULL, MIB, 0, &loan, NULL))
		return 4;
	ahp_agent_close(agent);
	return 0;
}

static void what_cannot_be_had(void)
{
	CU_ASSERT_EQUAL(test_in_child(beyond_a_limit, NULL), 0);
}

static void over_the_quota(void)
{
	const struct ahp_agent_options o = {
		.id = "ahead", .quota_bytes = MIB, .reserve_bytes = 2 * MIB};
	struct ahp_agent *agent;
	struct avp_reason why;

	CU_ASSERT_EQUAL(ahp_agent_open(&agent, &o, &why), AVP_USAGE);
	CU_ASSERT(strstr(why.text, "2097152 is over quota_bytes") != NULL);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(adaptive),	      TEST(busy),
		TEST(block),	      TEST(messages_come_first),
		TEST(by_the_thread),  TEST(what_cannot_be_had),
		TEST(over_the_quota), {0},
	};

	agents_begin();
	return test_main("reserve", tests);
}

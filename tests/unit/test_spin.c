/* SPDX-License-Identifier: Apache-2.0 */
/* How long an adaptive agent spins before it sleeps, by what its waits took. */
#include <sched.h>

#include "ahp/agent_internal.h"
#include "tests/agents.h"
#include "tests/harness.h"

#define US	1000ll
#define LONGEST (50 * US)

/* The spin after n waits that all take waited_us (from a bell: 25 us more). */
static int64_t after(int64_t spin_ns, int n, int64_t waited_us)
{
	while (n--) {
		bool slept = waited_us * US > spin_ns;

		spin_ns = ahp__spin_next(spin_ns, LONGEST,
					 waited_us * US + (slept ? 25 * US : 0),
					 slept);
	}
	return spin_ns;
}

/* While sleeping is what happens anyway, no time is spun away. */
static void none_for_rare_messages(void)
{
	CU_ASSERT_EQUAL(after(LONGEST, 1, 1000), LONGEST / 2);
	CU_ASSERT_EQUAL(after(LONGEST, 6, 1000), 0);
	CU_ASSERT_EQUAL(after(0, 1, 1000), 0);
	CU_ASSERT_EQUAL(after(0, 100, 52), 0);
}

/* Answers that come soon are waited for, with room for a later one. */
static void enough_for_frequent_ones(void)
{
	CU_ASSERT(after(LONGEST, 100, 2) < 21 * US);
	CU_ASSERT(after(LONGEST, 100, 2) >= 20 * US);
	CU_ASSERT(after(LONGEST, 100, 15) < 31 * US);
	CU_ASSERT(after(LONGEST, 100, 15) >= 29 * US);
	CU_ASSERT(after(LONGEST, 100, 40) > 48 * US);
	CU_ASSERT(after(LONGEST, 100, 40) <= LONGEST);
}

/* What wakes a sleeper soon makes it spin again. */
static void comes_back(void)
{
	CU_ASSERT_EQUAL(after(0, 1, 10), LONGEST);
	CU_ASSERT(after(0, 2, 45) > 40 * US);
	/* A pause now and then does not end it. */
	CU_ASSERT(after(after(LONGEST, 1, 1000), 10, 10) >= 20 * US);
}

/* A bound that is lower than the usual least is kept. */
static void bounded(void)
{
	CU_ASSERT_EQUAL(ahp__spin_next(5 * US, 5 * US, 1 * US, false), 5 * US);
	CU_ASSERT_EQUAL(ahp__spin_next(0, 5 * US, 20 * US, true), 5 * US);
	CU_ASSERT_EQUAL(ahp__spin_next(1, 1, 100 * US, true), 0);
}

static unsigned yields;

/* In place of the C library's, for the library that is linked in here. */
int sched_yield(void)
{
	yields++;
	return 0;
}

/* How often the processor was offered in a wait for nothing. */
static unsigned yields_of(uint32_t flags, uint32_t wait)
{
	struct ahp_agent *agent = agent_open(
		"spinner", &(struct ahp_agent_options){.flags = flags,
						       .wait = wait,
						       .spin_ns = 10000000});
	struct ahp_message m;

	yields = 0;
	CU_ASSERT_EQUAL(ahp_receive(agent, &m, 1000 * US), AVP_TIMEOUT);
	ahp_agent_close(agent);
	return yields;
}

/* Only who asked for it pays for the calls, and only while it spins. */
static void offers_its_processor(void)
{
	CU_ASSERT(yields_of(AHP_YIELD, AHP_WAIT_ADAPTIVE) > 1);
	CU_ASSERT_EQUAL(yields_of(0, AHP_WAIT_ADAPTIVE), 0);
	CU_ASSERT_EQUAL(yields_of(AHP_YIELD, AHP_WAIT_BLOCK), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(none_for_rare_messages),
		TEST(enough_for_frequent_ones),
		TEST(comes_back),
		TEST(bounded),
		TEST(offers_its_processor),
		{0},
	};

	agents_begin();
	return test_main("spin", tests);
}

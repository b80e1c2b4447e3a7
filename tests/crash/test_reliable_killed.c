/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reliable messages of every form, while their reader is killed at any moment,
 * and another takes its name: none is lost, and the order is kept.
 */
#include <stdatomic.h>
#include <string.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define MESSAGES 8000
#define READERS	 12
#define HELD	 8
#define MOST	 2000 /* bytes of a body */

struct board {
	_Atomic uint32_t turn;	/* of which reader it is */
	_Atomic uint32_t ready; /* readers that have had the name */
	_Atomic uint32_t stop;
	_Atomic uint32_t taken[MESSAGES]; /* by whichever reader */
	_Atomic uint32_t seen[MESSAGES];  /* and dealt with */
};
static struct board *board;

static uint32_t mix(uint64_t n)
{
	n *= UINT64_C(0x9e3779b97f4a7c15);
	n ^= n >> 29;
	n *= UINT64_C(0xbf58476d1ce4e5b9);
	return (uint32_t)(n >> 32);
}

static uint64_t length_of(uint32_t n)
{
	uint32_t r = mix(n);

	return sizeof(n) + (r % 6 ? r / 8 % 150 : r / 8 % (MOST - 8));
}

/* ---- a reader ----------------------------------------------------------- */

static void check(const struct ahp_message *m, uint32_t *next)
{
	const uint8_t *bytes = m->body;
	uint32_t n;

	CHECK(m->body_bytes >= sizeof(n));
	memcpy(&n, bytes, sizeof(n));
	CHECK(n < MESSAGES && m->body_bytes == length_of(n));
	CHECK(pattern_is(bytes + sizeof(n), m->body_bytes - sizeof(n), n));
	/* The first is where the last reader has left off, or before. */
	CHECK(*next == MESSAGES || n == *next ||
	      atomic_load(&board->seen[*next]));
	CHECK(*next == MESSAGES || n >= *next);
	*next = n + 1;
	/* Who gets what another had in hand is told so. */
	CHECK(!atomic_exchange(&board->taken[n], 1) || m->redelivered);
}

static void done_with(struct ahp_agent *agent, struct ahp_message *m)
{
	uint32_t n;

	memcpy(&n, m->body, sizeof(n));
	atomic_fetch_add(&board->seen[n], 1);
	CHECK(!ahp_accept(agent, m));
	ahp_release(agent, m);
}

/* Works on some at once; whoever is to be killed never comes to the end. */
static void reader(void *arg)
{
	const struct ahp_agent_options options = {.flags = AHP_EXPLICIT_ACK,
						  .window = 64};
	uint32_t mine = (uint32_t)(uintptr_t)arg, next = MESSAGES, at = 0;
	static struct ahp_message held[HELD];
	struct ahp_agent *agent;
	bool full[HELD] = {0};

	CHECK(!mine || shared_await(&board->turn, mine));
	agent = agent_open("b", &options);
	atomic_store(&board->ready, mine + 1);
	for (; !atomic_load(&board->stop); at = (at + 1) % HELD) {
		if (full[at])
			done_with(agent, &held[at]);
		full[at] = !ahp_receive(agent, &held[at], SECOND_NS / 1000);
		if (full[at])
			check(&held[at], &next);
	}
	ahp_agent_close(agent);
}

/* ---- the sender --------------------------------------------------------- */

static int bury(void *arg, const struct ahp_dead_letter *letter)
{
	(void)letter;
	++*(unsigned *)arg;
	return 0;
}

static void send_nth(struct ahp_agent *agent, uint32_t peer, uint32_t n)
{
	static uint8_t body[MOST];
	struct ahp_outgoing out = {
		.peer = peer,
		.method = AHP_TASK,
		.flags = AHP_RELIABLE | (n % 8 ? 0 : AHP_PROMPT_ACK),
		.body = body,
		.body_bytes = length_of(n),
	};
	uint8_t *at = body;
	struct ahp_loan loan;

	if (mix(n + 1) % 8 == 0) {
		CU_ASSERT_EQUAL_FATAL(
			ahp_loan(agent, NULL, out.body_bytes, 0, &loan, NULL),
			0);
		out.loan = &loan;
		out.body = at = loan.data;
	}
	memcpy(at, &n, sizeof(n));
	pattern_fill(at + sizeof(n), out.body_bytes - sizeof(n), n);
	CU_ASSERT_EQUAL_FATAL(ahp_send(agent, &out, LONG_NS, NULL, NULL), 0);
}

static bool is_settled(void *agent)
{
	struct ahp_stats stats;

	ahp_agent_run(agent, 0);
	stats = agent_stats(agent);
	return !stats.in_flight && !stats.waiting && !stats.bytes_lent;
}

static void none_is_lost(void)
{
	const struct ahp_agent_options options = {.window = 256};
	unsigned dead = 0, now = 0, lost = 0;
	struct ahp_agent *agent;
	pid_t pid[READERS];
	uint32_t peer;

	board = shared_new(sizeof(*board));
	for (uintptr_t i = 0; i < READERS; i++)
		pid[i] = child_start(reader, (void *)i);
	CU_ASSERT_FATAL(shared_await(&board->ready, 1));
	agent = agent_open("a", &options);
	ahp_agent_bury(agent, bury, &dead);
	CU_ASSERT_EQUAL_FATAL(ahp_connect(agent, "b", LONG_NS, &peer, NULL), 0);
	for (uint32_t n = 0; n < MESSAGES; n++) {
		send_nth(agent, peer, n);
		if (now == READERS - 1 || mix(n + 2) % (MESSAGES / READERS))
			continue;
		/* At times the next one has not even its name. */
		if (mix(n + 3) % 4)
			CU_ASSERT(shared_await(&board->ready, now + 1));
		child_kill(pid[now++]);
		atomic_store(&board->turn, now);
	}
	while (now < READERS - 1) {
		child_kill(pid[now++]);
		atomic_store(&board->turn, now);
	}
	CU_ASSERT(test_wait(is_settled, agent, 20));
	atomic_store(&board->stop, 1);
	child_finish(pid[READERS - 1]);
	for (uint32_t n = 0; n < MESSAGES; n++)
		lost += !board->seen[n];
	CU_ASSERT_EQUAL(lost, 0);
	CU_ASSERT_EQUAL(dead, 0);
	ahp_agent_close(agent);
	shared_free(board, sizeof(*board));
}

int main(void)
{
	static const struct test tests[] = {
		TEST(none_is_lost),
		{0},
	};

	agents_begin();
	return test_main("reliable_killed", tests);
}

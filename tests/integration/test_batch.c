/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many messages in one call: what of them is sent, and in which order, when the
 * ring is full in the middle, the reader dies in the middle, or they are of all
 * kinds; and a peer that sleeps is woken once for all of them.
 */
#include <stdatomic.h>
#include <string.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define WINDOW 16
#define MANY   40

static struct ahp_agent *a, *b;
static uint32_t to_b;
static uint8_t body[MANY][1000];
static struct ahp_outgoing out[MANY];
static struct ahp_receipt receipt[MANY];
static struct ahp_message in[MANY];

static void open_pair(uint32_t window, uint32_t wait)
{
	const struct ahp_agent_options small = {.window = window};
	const struct ahp_agent_options reader = {.window = window,
						 .wait = wait};

	a = agent_open("a", &small);
	b = agent_open("b", &reader);
	agents_link(a, b);
	CU_ASSERT_EQUAL_FATAL(ahp_connect(a, "b", 0, &to_b, NULL), 0);
}

static void close_pair(void)
{
	ahp_agent_close(a);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static void prepare(uint32_t count, uint64_t bytes)
{
	memset(out, 0, sizeof(out));
	memset(receipt, 0xff, sizeof(receipt));
	for (uint32_t i = 0; i < count; i++) {
		pattern_fill(body[i], bytes, i);
		out[i].peer = to_b;
		out[i].method = AHP_TASK;
		out[i].body = body[i];
		out[i].body_bytes = bytes;
	}
}

/* The messages from..below came to agent as they were sent. */
static void expect(struct ahp_agent *agent, uint32_t from, uint32_t below)
{
	uint32_t n = from;
	int got;

	while (n < below) {
		got = ahp_receive_many(agent, in, below - n, 0);
		CU_ASSERT_FATAL(got > 0);
		for (int i = 0; i < got; i++, n++) {
			CU_ASSERT_EQUAL(in[i].body_bytes, out[n].body_bytes);
			CU_ASSERT(pattern_is(in[i].body, out[n].body_bytes, n));
			CU_ASSERT_EQUAL(in[i].sequence, receipt[n].sequence);
			ahp_release(agent, &in[i]);
		}
	}
}

static void of_one(void)
{
	open_pair(0, AHP_WAIT_ADAPTIVE);
	prepare(1, 60);
	CU_ASSERT_EQUAL(ahp_send_many(a, out, 0, 0, receipt, NULL), 0);
	CU_ASSERT_EQUAL(ahp_receive_many(b, in, 1, 0), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_receive_many(b, in, 0, 0), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_send_many(a, out, 1, 0, receipt, NULL), 1);
	expect(b, 0, 1);
	CU_ASSERT_EQUAL(ahp_receive_many(b, in, 1, 0), AVP_TIMEOUT);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[0]), 0);
	CU_ASSERT_EQUAL(agent_stats(a).sent, 1);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_sent, 60);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	close_pair();
}

/* Room for 16 of 40; the rest when there is room again. */
static void full_in_the_middle(void)
{
	struct avp_reason why = {0};

	open_pair(WINDOW, AHP_WAIT_ADAPTIVE);
	prepare(MANY, 60);
	CU_ASSERT_EQUAL(ahp_send_many(a, out, MANY, 0, receipt, &why), WINDOW);
	CU_ASSERT_EQUAL(why.code, AVP_QUEUE_FULL);
	CU_ASSERT_EQUAL(ahp_send_many(a, out + WINDOW, 1, 1000000, NULL, &why),
			AVP_QUEUE_FULL);
	expect(b, 0, WINDOW);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_send_many(a, out + WINDOW, MANY - WINDOW, 0,
				      receipt + WINDOW, &why),
			WINDOW);
	expect(b, WINDOW, 2 * WINDOW);
	agents_settle(b, a);
	for (uint32_t i = 0; i < 2 * WINDOW; i++)
		CU_ASSERT_EQUAL(ahp_status(a, &receipt[i]), 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_stats(a).sent, 2 * WINDOW);
	close_pair();
}

/* Short, long, lent, with an id, and for two peers. */
static void of_all_kinds(void)
{
	struct ahp_agent *c;
	uint8_t id[16] = {7};
	struct ahp_loan loan;
	uint32_t to_c;

	open_pair(0, AHP_WAIT_ADAPTIVE);
	c = agent_open("c", NULL);
	agents_link(a, c);
	CU_ASSERT_EQUAL_FATAL(ahp_connect(a, "c", 0, &to_c, NULL), 0);
	prepare(MANY, 60);
	for (uint32_t i = 0; i < MANY - 8; i += 4) {
		out[i].body_bytes = 200 + i;
		pattern_fill(body[i], 200 + i, i);
	}
	out[3].message_id = id;
	out[5].task_id = avp_str_of("a task");
	out[6].peer = 0;
	out[6].target = "b";
	CU_ASSERT_EQUAL_FATAL(ahp_loan(a, "b", 100000, 0, &loan, NULL), 0);
	pattern_fill(loan.data, 100000, 9);
	out[9].body = loan.data;
	out[9].body_bytes = 100000;
	out[9].loan = &loan;
	for (uint32_t i = MANY - 8; i < MANY; i++)
		out[i].peer = to_c;
	CU_ASSERT_EQUAL(ahp_send_many(a, out, MANY, 0, receipt, NULL), MANY);
	CU_ASSERT_EQUAL(loan.handle, 0);
	expect(b, 0, MANY - 8);
	expect(c, MANY - 8, MANY);
	CU_ASSERT_EQUAL(ahp_receive(b, in, 0), AVP_TIMEOUT);
	agents_settle(b, a);
	agents_settle(c, a);
	for (uint32_t i = 0; i < MANY; i++)
		CU_ASSERT_EQUAL(ahp_status(a, &receipt[i]), 0);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	ahp_agent_close(c);
	close_pair();
}

/* One that no message may be ends the batch, and says why. */
static void bad_in_the_middle(void)
{
	struct avp_reason why = {0};

	open_pair(0, AHP_WAIT_ADAPTIVE);
	prepare(MANY, 60);
	out[10].method = 99;
	CU_ASSERT_EQUAL(ahp_send_many(a, out, MANY, 0, receipt, &why), 10);
	CU_ASSERT_EQUAL(why.code, AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(ahp_send_many(a, out + 10, 1, 0, NULL, &why),
			AVP_INVALID_MESSAGE);
	expect(b, 0, 10);
	CU_ASSERT_EQUAL(ahp_receive(b, in, 0), AVP_TIMEOUT);
	close_pair();
}

/* ---- between processes -------------------------------------------------- */

struct board {
	_Atomic uint32_t ready, got;
};

static struct board *board;

/* Takes ten of the messages and waits to be killed. */
static void read_ten(void *arg)
{
	struct ahp_agent *me = agent_open("b", NULL);
	uint32_t got = 0;
	int n;

	(void)arg;
	atomic_store(&board->ready, 1);
	while (got < 10) {
		n = ahp_receive_many(me, in, 10 - got, LONG_NS);
		CHECK(n > 0);
		got += (uint32_t)n;
	}
	ahp_agent_run(me, 1000000);
	atomic_store(&board->got, got);
	ahp_agent_run(me, LONG_NS);
	_exit(0);
}

static void reader_is_killed(void)
{
	const struct ahp_agent_options options = {.window = WINDOW};
	struct avp_reason why = {0};
	pid_t child;
	int code;

	board = shared_new(sizeof(*board));
	child = child_start(read_ten, NULL);
	CU_ASSERT_FATAL(shared_await(&board->ready, 1));
	a = agent_open("a", &options);
	CU_ASSERT_EQUAL_FATAL(ahp_connect(a, "b", LONG_NS, &to_b, NULL), 0);
	prepare(MANY, 60);
	CU_ASSERT_EQUAL(ahp_send_many(a, out, WINDOW, 0, receipt, &why),
			WINDOW);
	CU_ASSERT_FATAL(shared_await(&board->got, 10));
	child_kill(child);
	/* Room for some is known at once, for others it waits in vain. */
	code = ahp_send_many(a, out + WINDOW, MANY - WINDOW, LONG_NS,
			     receipt + WINDOW, &why);
	CU_ASSERT(code < MANY - WINDOW);
	CU_ASSERT(why.code == AVP_CLOSED || why.code == AVP_AGENT_NOT_FOUND);
	if (code > 0)
		CU_ASSERT_EQUAL(ahp_wait(a, &receipt[WINDOW], LONG_NS),
				AVP_CLOSED);
	for (int i = 0; i < WINDOW; i++)
		CU_ASSERT_EQUAL(ahp_wait(a, &receipt[i], LONG_NS),
				i < 10 ? 0 : AVP_CLOSED);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	ahp_agent_close(a);
	shared_free(board, sizeof(*board));
}

#define BATCHES 200

/* Sleeps between batches; each message comes once, in order. */
static void read_batches(void *arg)
{
	const struct ahp_agent_options options = {.wait = AHP_WAIT_BLOCK};
	struct ahp_agent *me = agent_open("b", &options);
	uint32_t next = 0;
	int n;

	(void)arg;
	atomic_store(&board->ready, 1);
	while (next < BATCHES * MANY) {
		n = ahp_receive_many(me, in, MANY, LONG_NS);
		CHECK(n > 0);
		for (int i = 0; i < n; i++, next++) {
			CHECK(in[i].body_bytes == 60);
			CHECK(pattern_is(in[i].body, 60, next % MANY));
			ahp_release(me, &in[i]);
		}
		atomic_store(&board->got, next);
	}
	CHECK(agent_stats(me).late_wakes == 0);
	ahp_agent_close(me);
}

static void sleeper_is_woken(void)
{
	pid_t child;

	board = shared_new(sizeof(*board));
	child = child_start(read_batches, NULL);
	CU_ASSERT_FATAL(shared_await(&board->ready, 1));
	a = agent_open("a", NULL);
	CU_ASSERT_EQUAL_FATAL(ahp_connect(a, "b", LONG_NS, &to_b, NULL), 0);
	prepare(MANY, 60);
	for (uint32_t i = 1; i <= BATCHES; i++) {
		CU_ASSERT_EQUAL_FATAL(
			ahp_send_many(a, out, MANY, LONG_NS, receipt, NULL),
			MANY);
		CU_ASSERT_FATAL(shared_await(&board->got, i * MANY));
	}
	child_finish(child);
	/* An edge a batch, and now and then one for the link's beginning. */
	CU_ASSERT(agent_stats(a).wakes <= 2 * BATCHES);
	ahp_agent_close(a);
	shared_free(board, sizeof(*board));
}

int main(void)
{
	static const struct test tests[] = {
		TEST(of_one),
		TEST(full_in_the_middle),
		TEST(of_all_kinds),
		TEST(bad_in_the_middle),
		TEST(reader_is_killed),
		TEST(sleeper_is_woken),
		{0},
	};

	agents_begin();
	return test_main("batch", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How messages flow between two agents of one process, step by step: what is
 * acknowledged, released and refused, in which order, and what it does to the
 * sender's room and memory.
 */
#include <stdlib.h>
#include <string.h>

#include <avp/ahp.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define WINDOW 16

static struct ahp_agent *a, *b;

static void open_pair(const struct ahp_agent_options *of_a,
		      const struct ahp_agent_options *of_b)
{
	a = agent_open("a", of_a);
	b = agent_open("b", of_b);
	agents_link(a, b);
}

static void close_pair(void)
{
	ahp_agent_close(a);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static const struct ahp_agent_options small = {.window = WINDOW};
static const struct ahp_agent_options careful = {.flags = AHP_EXPLICIT_ACK,
						 .window = WINDOW};

static bool same_str(struct avp_str s, const char *text)
{
	return s.len == strlen(text) && !memcmp(s.data, text, s.len);
}

static void inline_both_ways(void)
{
	struct ahp_outgoing task = {
		.target = "b",
		.method = AHP_TASK,
		.token_limit = 321,
		.task_id = {"task-1", 6},
		.session_id = {"session-1", 9},
		.body = "{\"q\": 1}",
		.body_bytes = 8,
	};
	struct ahp_receipt receipt;
	struct ahp_message m;

	open_pair(NULL, NULL);
	CU_ASSERT_EQUAL(ahp_send(a, &task, 0, &receipt, NULL), 0);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), AVP_AGAIN);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
	CU_ASSERT_STRING_EQUAL(m.source, "a");
	CU_ASSERT_EQUAL(m.method, AHP_TASK);
	CU_ASSERT_EQUAL(m.kind, AHP_JSON);
	CU_ASSERT_EQUAL(m.token_limit, 321);
	CU_ASSERT(same_str(m.task_id, "task-1"));
	CU_ASSERT(same_str(m.session_id, "session-1"));
	CU_ASSERT_EQUAL(m.body_bytes, 8);
	CU_ASSERT(!memcmp(m.body, "{\"q\": 1}", 8));
	CU_ASSERT_FALSE(m.in_place);
	CU_ASSERT_FALSE(m.redelivered);
	CU_ASSERT_STRING_EQUAL(ahp_peer_id(b, m.peer), "a");

	task = (struct ahp_outgoing){.peer = m.peer, .method = AHP_RESULT};
	CU_ASSERT_EQUAL(ahp_send(b, &task, 0, NULL, NULL), 0);
	ahp_release(b, &m);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(a, &m, 0), 0);
	CU_ASSERT_EQUAL(m.method, AHP_RESULT);
	CU_ASSERT_EQUAL(m.token_limit, 500);
	CU_ASSERT_EQUAL(m.body_bytes, 0);
	ahp_release(a, &m);
	/* b's acknowledgement rode on its answer. */
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), 0);
	close_pair();
}

/* Every length around the ends of slot forms, cache lines and the arena. */
static void every_length(void)
{
	uint8_t id[16];
	char task[80], body[600];

	open_pair(NULL, NULL);
	memset(id, 0xff, sizeof(id));
	memset(task, 't', sizeof(task));
	pattern_fill(body, sizeof(body), 7);
	for (unsigned ids = 0; ids <= 80; ids += 20)
		for (unsigned n = 0; n < sizeof(body); n++) {
			struct ahp_outgoing out = {
				.target = "b",
				.method = AHP_PROGRESS,
				.task_id = {task, ids},
				.session_id = {task, ids / 2},
				.body = body,
				.body_bytes = n,
				.message_id = n % 3 ? NULL : id,
			};
			struct ahp_message m;

			/* The same id again would not be delivered. */
			memcpy(id, (unsigned[]){ids, n}, 2 * sizeof(n));
			CU_ASSERT_EQUAL_FATAL(ahp_send(a, &out, 0, NULL, NULL),
					      0);
			CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
			if (m.body_bytes != n || memcmp(m.body, body, n) ||
			    m.task_id.len != ids || m.session_id.len != ids / 2)
				CU_FAIL("a message arrived changed");
			ahp_release(b, &m);
		}
	agents_settle(a, b);
	ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "end", NULL), 0);
	CU_ASSERT(agent_hears(b, "end"));
	close_pair();
}

/* Given, it is what was given; else it follows from the place, and never
 * repeats. */
static void message_ids(void)
{
	uint8_t given[16] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8};
	static uint8_t body[300];
	uint8_t id[8][16];
	struct ahp_message m;

	open_pair(NULL, NULL);
	for (unsigned i = 0; i < 8; i++) {
		struct ahp_outgoing out = {
			.target = "b",
			.method = AHP_TASK,
			.body = body,
			.body_bytes = i & 1 ? sizeof(body) : 8,
			.message_id = i & 2 ? given : NULL,
		};

		given[0] = (uint8_t)i; /* twice the same: not delivered */
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), 0);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
		ahp_message_id(&m, id[i]);
		CU_ASSERT_EQUAL(!memcmp(id[i], given, 16), !!(i & 2));
		if (!(i & 2)) {
			CU_ASSERT_EQUAL(id[i][6] >> 4, 8);
			CU_ASSERT_EQUAL(id[i][8] >> 6, 2);
		}
		for (unsigned j = 0; j < i; j++)
			CU_ASSERT(i & 2 || memcmp(id[i], id[j], 16));
		ahp_release(b, &m);
	}
	close_pair();
}

/* ---- acknowledgements --------------------------------------------------- */

static void explicit_acks_out_of_order(void)
{
	static const int order[] = {5, 0, 15, 1, 9, 2,	3,  14,
				    4, 6, 13, 7, 8, 10, 12, 11};
	struct ahp_receipt receipt[WINDOW];
	struct ahp_message m[WINDOW];

	open_pair(&small, &careful);
	for (int i = 0; i < WINDOW; i++)
		CU_ASSERT_EQUAL(i % 2 ? agent_lend(a, "b", 300, i, &receipt[i])
				      : agent_say(a, "b", "x", &receipt[i]),
				0);
	for (int i = 0; i < WINDOW; i++)
		CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m[i], 0), 0);
	for (int i = 0; i < WINDOW; i++) {
		int n = order[i];

		for (int j = i; j < WINDOW; j++)
			CU_ASSERT_EQUAL(ahp_status(a, &receipt[order[j]]),
					AVP_AGAIN);
		CU_ASSERT_EQUAL(
			n % 5 ? ahp_accept(b, &m[n]) : ahp_reject(b, &m[n]), 0);
		CU_ASSERT_EQUAL(ahp_accept(b, &m[n]), AVP_USAGE);
		CU_ASSERT_EQUAL(ahp_reject(b, &m[n]), AVP_USAGE);
		CU_ASSERT_EQUAL(ahp_status(a, &receipt[n]),
				n % 5 ? 0 : AVP_REJECTED);
	}
	for (int i = WINDOW; i-- > 0;)
		ahp_release(b, &m[i]);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_stats(a).acked, 12);
	CU_ASSERT_EQUAL(agent_stats(a).rejected, 4);
	close_pair();
}

static void releases_out_of_order(void)
{
	static const int order[] = {3, 0, 7, 1, 2, 6, 5, 4};
	struct ahp_message m[8];
	uint64_t lent;

	open_pair(NULL, NULL);
	for (int i = 0; i < 8; i++)
		CU_ASSERT_EQUAL(agent_lend(a, "b", 5000, i, NULL), 0);
	for (int i = 0; i < 8; i++) {
		CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m[i], 0), 0);
		CU_ASSERT(m[i].in_place);
	}
	lent = agent_stats(a).bytes_lent;
	for (int i = 0; i < 8; i++) {
		CU_ASSERT(pattern_is(m[order[i]].body, 5000, order[i]));
		ahp_release(b, &m[order[i]]);
		ahp_release(b, &m[order[i]]); /* does nothing */
		CU_ASSERT_PTR_NULL(m[order[i]].body);
		ahp_agent_run(b, 0);
		CU_ASSERT_EQUAL(agent_lend(a, "nobody", 1, 0, NULL),
				AVP_AGENT_NOT_FOUND);
		/* The news of it rides on a message. */
		CU_ASSERT_EQUAL(agent_say(b, "a", "y", NULL), 0);
		CU_ASSERT(agent_hears(a, "y"));
		ahp_agent_run(a, 0);
		CU_ASSERT_EQUAL(agent_stats(a).bytes_lent,
				lent / 8 * (7 - (uint64_t)i));
	}
	close_pair();
}

/* One message is held while thousands of others come, are read and go. */
static void pass_straggler(const struct ahp_agent_options *of_b, bool lent)
{
	struct ahp_receipt receipt, last = {0};
	struct ahp_message held, m;
	bool explicit_ack = of_b->flags & AHP_EXPLICIT_ACK;

	open_pair(&small, of_b);
	CU_ASSERT_EQUAL(lent ? agent_lend(a, "b", 4000, 99, &receipt)
			     : agent_say(a, "b", "held", &receipt),
			0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &held, 0), 0);
	for (uint32_t i = 0; i < 5000; i++) {
		int error = i % 3 ? agent_say(a, "b", "x", &last)
				  : agent_lend(a, "b", 700, i, &last);

		CU_ASSERT_EQUAL_FATAL(error, 0);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
		if (!(i % 3) && !pattern_is(m.body, 700, i))
			CU_FAIL_FATAL("a block was reused too early");
		if (explicit_ack)
			CU_ASSERT_EQUAL(ahp_accept(b, &m), 0);
		ahp_release(b, &m);
		if (i % 8 == 7)
			ahp_agent_run(b, 0);
	}
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), explicit_ack ? AVP_AGAIN : 0);
	CU_ASSERT(!lent || pattern_is(held.body, 4000, 99));
	if (explicit_ack)
		CU_ASSERT_EQUAL(ahp_accept(b, &held), 0);
	ahp_release(b, &held);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_status(a, &last), 0);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", &last), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
	if (explicit_ack)
		CU_ASSERT_EQUAL(ahp_accept(b, &m), 0);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_status(a, &last), 0);
	CU_ASSERT_EQUAL(agent_stats(a).acked, 5002);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	close_pair();
}

static void straggler_not_accepted(void)
{
	pass_straggler(&careful, false);
	pass_straggler(&careful, true);
}

static void straggler_not_released(void)
{
	pass_straggler(&small, true);
}

/* The reader's ack ring is made for its window: it bounds the sender's too. */
static void windows_that_differ(void)
{
	static struct ahp_message m[WINDOW];
	int refused = 0;

	open_pair(NULL, &careful);
	for (int i = 0; i < WINDOW; i++)
		refused += agent_say(a, "b", "x", NULL) != 0;
	CU_ASSERT_EQUAL(refused, 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), AVP_QUEUE_FULL);
	for (int i = 0; i < WINDOW; i++)
		CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m[i], 0), 0);
	for (int i = WINDOW; i-- > 0;)
		CU_ASSERT_EQUAL(ahp_accept(b, &m[i]), 0);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_say(a, "b", "y", NULL), 0);
	CU_ASSERT_EQUAL(agent_stats(a).poisoned, 0);
	CU_ASSERT_EQUAL(agent_stats(a).acked, WINDOW);
	close_pair();
}

/* The acknowledgement rode on an answer that was not read when its sender
 * died. */
static void last_words(void)
{
	struct ahp_receipt receipt;

	open_pair(NULL, NULL);
	CU_ASSERT_EQUAL(agent_say(a, "b", "task", &receipt), 0);
	CU_ASSERT(agent_hears(b, "task"));
	CU_ASSERT_EQUAL(agent_say(b, "a", "answer", NULL), 0);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, SECOND_NS), 0);
	CU_ASSERT(agent_hears(a, "answer"));
	ahp_agent_close(a);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* Messages that are refused do not stretch the receiver's time-out. */
static void refused_in_time(void)
{
	/* It begins as a frame, but its metadata is none. */
	const struct ahp_outgoing bad = {
		.target = "b",
		.method = AHP_TASK,
		.kind = AHP_FRAME,
		.body = "AV\1\0\1\0\0\0\1\0\0\0\xff",
		.body_bytes = 13,
	};
	struct ahp_message m;

	open_pair(NULL, NULL);
	for (int i = 0; i < 1000; i++)
		CU_ASSERT_EQUAL(ahp_send(a, &bad, 0, NULL, NULL), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, SECOND_NS / 10), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(agent_stats(b).received, 0);
	close_pair();
}

/*
 * A only sends, B answers each message: A never reads the acknowledgements that
 * ride on B's answers, so they must reach it by B's ack line too.
 */
static void sender_that_never_receives(void)
{
	int refused = 0;

	open_pair(&small, &small);
	for (int i = 0; i < WINDOW; i++) {
		refused += agent_say(a, "b", "task", NULL) != 0;
		refused += !agent_hears(b, "task");
		refused += agent_say(b, "a", "answer", NULL) != 0;
		ahp_agent_run(b, 0);
	}
	refused += agent_say(a, "b", "one more", NULL) != 0;
	CU_ASSERT_EQUAL(refused, 0);
	close_pair();
}

/* ---- bounds ------------------------------------------------------------- */

static void full_window(void)
{
	struct ahp_message m[WINDOW];
	struct avp_reason why;
	struct ahp_outgoing out = {.target = "b", .method = AHP_TASK};

	open_pair(&small, &careful);
	for (int lap = 0; lap < 3; lap++) {
		for (int i = 0; i < WINDOW; i++)
			CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), 0);
		CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), AVP_QUEUE_FULL);
		for (int i = 0; i < WINDOW; i++)
			CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m[i], 0), 0);
		agents_settle(b, a);
		/* Read, but not accepted: no room yet. */
		CU_ASSERT_EQUAL(ahp_send(a, &out, 1000000, NULL, &why),
				AVP_QUEUE_FULL);
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "16 messages"));
		for (int i = 0; i < WINDOW; i++)
			CU_ASSERT_EQUAL(ahp_accept(b, &m[i]), 0);
	}
	CU_ASSERT_EQUAL(agent_stats(a).sent, 3 * WINDOW);
	close_pair();
}

static void full_by_bytes(void)
{
	const struct ahp_agent_options tight = {.quota_bytes = 8 * MIB};
	struct ahp_agent *c;
	struct ahp_message m[2];

	open_pair(&tight, NULL);
	c = agent_open("c", NULL);
	agents_link(a, c);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 900000, 1, NULL), 0);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 900000, 2, NULL), 0);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 900000, 3, NULL), AVP_QUEUE_FULL);
	/* What is short still goes, and so does everything to others. */
	CU_ASSERT_EQUAL(agent_say(a, "b", "short", NULL), 0);
	CU_ASSERT_EQUAL(agent_lend(a, "c", 900000, 3, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m[0], 0), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m[1], 0), 0);
	CU_ASSERT(agent_hears(b, "short"));
	CU_ASSERT_EQUAL(agent_lend(a, "b", 900000, 3, NULL), AVP_QUEUE_FULL);
	ahp_release(b, &m[0]);
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 900000, 4, NULL), 0);
	CU_ASSERT(pattern_is(m[1].body, 900000, 2));
	ahp_release(b, &m[1]);
	ahp_agent_close(c);
	close_pair();
}

/* Room that came back between the loan and its sending counts. */
static void room_after_loan(void)
{
	const struct ahp_agent_options tight = {.quota_bytes = 8 * MIB};
	struct ahp_outgoing out = {.target = "b", .method = AHP_TASK};
	struct ahp_loan loan;
	struct ahp_message m;

	open_pair(&tight, NULL);
	CU_ASSERT_EQUAL(agent_lend(a, "b", MIB + MIB / 2, 1, NULL), 0);
	CU_ASSERT_EQUAL(ahp_loan(a, "b", MIB, 0, &loan, NULL), 0);
	out.loan = &loan;
	out.body = loan.data;
	out.body_bytes = MIB;
	CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), AVP_QUEUE_FULL);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
	ahp_release(b, &m);
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), 0);
	CU_ASSERT_EQUAL(loan.handle, 0);
	close_pair();
}

static void quota(void)
{
	const struct ahp_agent_options tight = {
		.quota_bytes = 4 * MIB,
		.first_segment_bytes = MIB,
	};
	struct ahp_loan loan[64], more;
	struct avp_reason why = {0};
	int n = 0, error = 0;

	open_pair(&tight, NULL);
	while (n < 64 &&
	       !(error = ahp_loan(a, NULL, 100000, 0, &loan[n], &why)))
		n++;
	CU_ASSERT_EQUAL(error, AVP_NO_MEMORY);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "quota"));
	CU_ASSERT(n >= 30);
	CU_ASSERT(agent_stats(a).bytes_lent >= 100000u * (unsigned)n);
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 1ull << 60, 0, &more, &why),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 5 * MIB, 0, &more, &why),
			AVP_NO_MEMORY);
	CU_ASSERT_EQUAL(agent_say(a, "b", "still here", NULL), 0);
	CU_ASSERT(agent_hears(b, "still here"));
	ahp_loan_release(a, &loan[--n]);
	ahp_loan_release(a, &loan[n]); /* does nothing */
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 100000, 0, &loan[n++], &why), 0);
	while (n)
		ahp_loan_release(a, &loan[--n]);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	close_pair();
}

static void loans_are_aligned(void)
{
	static const uint64_t sizes[] = {0, 1, 63, 4096, 100000, 3 * MIB};
	struct ahp_loan loan;

	open_pair(NULL, NULL);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		for (uint32_t headroom = 0; headroom < 200; headroom += 17) {
			uint64_t align = sizes[i] >= 2 * MIB ? 4096 : 64;

			CU_ASSERT_EQUAL_FATAL(ahp_loan(a, NULL, sizes[i],
						       headroom, &loan, NULL),
					      0);
			CU_ASSERT_EQUAL((uintptr_t)loan.data % align, 0);
			CU_ASSERT(loan.headroom >=
				  (headroom ? headroom : AHP_HEADROOM));
			memset((char *)loan.data - loan.headroom, 1,
			       loan.headroom + sizes[i]);
			ahp_loan_release(a, &loan);
		}
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 1, UINT32_MAX, &loan, NULL),
			AVP_TOO_LARGE);
	close_pair();
}

/* One body, many readers: it comes back when the last has let go. */
static void one_loan_to_many(void)
{
	struct ahp_agent *reader[5];
	struct ahp_message m[5];
	struct ahp_loan loan;
	struct ahp_outgoing out = {.method = AHP_TASK, .flags = AHP_KEEP_LOAN};
	char id[5][16];

	a = agent_open("a", NULL);
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 100000, 0, &loan, NULL), 0);
	pattern_fill(loan.data, 100000, 5);
	out.loan = &loan;
	out.body = loan.data;
	out.body_bytes = 100000;
	for (int i = 0; i < 5; i++) {
		snprintf(id[i], sizeof(id[i]), "r%d", i);
		reader[i] = agent_open(id[i], NULL);
		agents_link(a, reader[i]);
		out.target = id[i];
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), 0);
	}
	CU_ASSERT(loan.handle != 0);
	ahp_loan_release(a, &loan);
	for (int i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL_FATAL(ahp_receive(reader[i], &m[i], 0), 0);
		CU_ASSERT(pattern_is(m[i].body, 100000, 5));
	}
	for (int i = 0; i < 5; i++) {
		CU_ASSERT(agent_stats(a).bytes_lent >= 100000);
		if (i == 2) /* one of them goes without releasing */
			ahp_agent_close(reader[i]);
		else
			ahp_release(reader[i], &m[i]);
		if (i != 2)
			ahp_agent_run(reader[i], 0);
		ahp_agent_run(a, 0);
		CU_ASSERT_EQUAL(ahp_loan(a, NULL, 1, 64, &loan, NULL), 0);
		ahp_loan_release(a, &loan);
	}
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	for (int i = 0; i < 5; i++)
		if (i != 2)
			ahp_agent_close(reader[i]);
	ahp_agent_close(a);
}

/* ---- deadlines, ends ---------------------------------------------------- */

static void expired(void)
{
	struct ahp_outgoing out = {.target = "b", .method = AHP_TASK};
	static const int64_t late[] = {1, -1, -SECOND_NS};
	static const int64_t never[] = {0, 3600 * SECOND_NS,
					50000000 * SECOND_NS, AHP_FOREVER};
	struct ahp_receipt receipt;
	struct ahp_message m;

	open_pair(NULL, NULL);
	for (int i = 0; i < 3; i++) {
		out.expires_ns = late[i];
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, &receipt, NULL), 0);
		/* The coarse clock has to pass the deadline: some ms. */
		CU_ASSERT_EQUAL(ahp_wait(a, &receipt, 20000000), AVP_TIMEOUT);
		CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
		CU_ASSERT_EQUAL(ahp_status(a, &receipt), AVP_EXPIRED);
	}
	for (int i = 0; i < 4; i++) {
		out.expires_ns = never[i];
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, &receipt, NULL), 0);
		CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), 0);
		ahp_release(b, &m);
	}
	close_pair();
}

static void closed_with_things_held(void)
{
	struct ahp_receipt inline_receipt, lent_receipt, last;
	struct ahp_message m, m2, view;
	struct ahp_loan loan;

	open_pair(NULL, &careful);
	CU_ASSERT_EQUAL(ahp_loan(b, NULL, 1000, 0, &loan, NULL), 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", &inline_receipt), 0);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 9000, 1, &lent_receipt), 0);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 9000, 1, &last), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m2, 0), 0);
	/* What we look at in its memory does not keep ours from coming back. */
	CU_ASSERT_EQUAL(agent_lend(b, "a", 9000, 2, NULL), 0);
	CU_ASSERT_EQUAL(ahp_receive(a, &view, 0), 0);
	ahp_agent_close(b);
	ahp_agent_run(a, 0);
	CU_ASSERT(pattern_is(view.body, 9000, 2));
	CU_ASSERT_EQUAL(ahp_status(a, &inline_receipt), AVP_CLOSED);
	CU_ASSERT_EQUAL(ahp_status(a, &lent_receipt), AVP_CLOSED);
	CU_ASSERT_EQUAL(ahp_status(a, &last), AVP_CLOSED);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_stats(a).links, 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), AVP_AGENT_NOT_FOUND);
	b = agent_open("b", NULL);
	agents_link(a, b);
	CU_ASSERT_EQUAL(agent_say(a, "b", "again", NULL), 0);
	CU_ASSERT(agent_hears(b, "again"));
	ahp_release(a, &view);
	close_pair();
}

/* What was accepted while its body is still looked at is not in flight. */
static void in_flight_adds_up(void)
{
	struct ahp_message m;

	open_pair(NULL, NULL);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 9000, 1, NULL), 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 1);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), 0);
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(agent_say(b, "a", "x", NULL), 0);
	CU_ASSERT(agent_hears(a, "x"));
	ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	ahp_agent_close(b);
	ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	b = agent_open("b", NULL);
	close_pair();
}

/* The sender closes: what it published is read, views stay, acks go nowhere. */
static void sender_closes_first(void)
{
	struct ahp_message m[3];

	open_pair(NULL, &careful);
	for (uint32_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(agent_lend(a, "b", 70000, i, NULL), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m[0], 0), 0);
	ahp_agent_close(a);
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m[1], 0), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m[2], 0), 0);
	ahp_agent_run(b, 0);
	for (uint32_t i = 0; i < 3; i++) {
		CU_ASSERT(pattern_is(m[i].body, 70000, i));
		CU_ASSERT_EQUAL(ahp_accept(b, &m[i]), AVP_CLOSED);
		ahp_release(b, &m[i]);
	}
	CU_ASSERT_EQUAL(agent_stats(b).links, 0);
	/* Meanwhile the name may come back, and does. */
	a = agent_open("a", NULL);
	agents_link(a, b);
	CU_ASSERT_EQUAL(agent_say(a, "b", "again", NULL), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m[0], 0), 0);
	CU_ASSERT_EQUAL(ahp_accept(b, &m[0]), 0);
	ahp_release(b, &m[0]);
	close_pair();
}

static void refused(const struct ahp_outgoing *out, int answer)
{
	struct avp_reason why = {0};

	CU_ASSERT_EQUAL(ahp_send(a, out, 0, NULL, &why), answer);
	CU_ASSERT_EQUAL(why.code, answer);
	CU_ASSERT(why.text[0] != 0);
}

static void invalid_messages(void)
{
	char long_id[100];
	struct ahp_loan loan, copy;
	struct ahp_outgoing out;

	memset(long_id, 'i', sizeof(long_id));
	open_pair(NULL, NULL);
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 1000, 0, &loan, NULL), 0);
#define REFUSED(answer, ...)                             \
	(out = (struct ahp_outgoing){.target = "b",      \
				     .method = AHP_TASK, \
				     __VA_ARGS__},       \
	 refused(&out, answer))
	REFUSED(AVP_INVALID_MESSAGE, .kind = 2);
	REFUSED(AVP_INVALID_MESSAGE, .flags = 16);
	REFUSED(AVP_INVALID_MESSAGE, .reserved[1] = 1);
	REFUSED(AVP_INVALID_MESSAGE, .task_id = {long_id, 81});
	REFUSED(AVP_INVALID_MESSAGE, .session_id = {long_id, 81});
	REFUSED(AVP_INVALID_MESSAGE, .body = long_id, .body_bytes = UINT64_MAX);
	REFUSED(AVP_INVALID_MESSAGE, .body = long_id,
		.body_bytes = UINT64_MAX - 100);
	REFUSED(AVP_USAGE, .loan = &loan, .body = loan.data,
		.body_bytes = 1001);
	REFUSED(AVP_USAGE, .loan = &loan, .body = long_id, .body_bytes = 10);
	REFUSED(AVP_USAGE, .loan = &(struct ahp_loan){.handle = 9999});
	REFUSED(AVP_USAGE, .loan = &(struct ahp_loan){0});
	/* No frame: said to be short, of another kind, or with lies in it. */
	agents_settle(b, a);
	for (uint32_t peer = 0; peer < 2; peer++) {
		static const char *const none[] = {
			"no frame at all",
			"AV\2\0\0\0\0\0\0\0\0\0...",
			"AV\1\0\4\0\0\0\0\0\0\0...",
			"AV\1\0\2\0\0\0\3\0\0\0...",
		};

		for (int i = 0; i < 4; i++)
			REFUSED(AVP_INVALID_MESSAGE, .peer = peer,
				.kind = AHP_FRAME, .body = none[i],
				.body_bytes = 15);
		REFUSED(AVP_INVALID_MESSAGE, .peer = peer, .kind = AHP_FRAME,
			.body = "AV\1\0\0\0\0\0\0\0\0", .body_bytes = 11);
		REFUSED(AVP_INVALID_MESSAGE, .peer = peer, .kind = AHP_FRAME);
	}
	memset(loan.data, 0, 1000);
	REFUSED(AVP_INVALID_MESSAGE, .kind = AHP_FRAME, .loan = &loan,
		.body = loan.data, .body_bytes = 1000);
	REFUSED(AVP_USAGE, .kind = AHP_FRAME, .loan = &loan, .body = NULL,
		.body_bytes = 1000);
	copy = loan;
	ahp_loan_release(a, &loan);
	REFUSED(AVP_USAGE, .loan = &copy, .body = copy.data, .body_bytes = 10);
#undef REFUSED
	out = (struct ahp_outgoing){.target = "b", .method = 8};
	CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), AVP_INVALID_MESSAGE);
	out.method = 0;
	CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), AVP_INVALID_MESSAGE);
	out = (struct ahp_outgoing){.peer = 77, .method = AHP_TASK};
	CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), AVP_USAGE);
	CU_ASSERT_EQUAL(agent_stats(a).sent, 0);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "after all", NULL), 0);
	CU_ASSERT(agent_hears(b, "after all"));
	close_pair();
}

/* Eight busy peers do not keep a ninth and a tenth from being heard. */
static void fair_turns(void)
{
	enum { PEERS = 12, EACH = 900 };
	struct ahp_agent *peer[PEERS];
	unsigned heard[PEERS] = {0}, first = 0;
	struct ahp_message m;
	char id[16];

	a = agent_open("a", NULL);
	for (int i = 0; i < PEERS; i++) {
		snprintf(id, sizeof(id), "p%d", i);
		peer[i] = agent_open(id, NULL);
		agents_link(peer[i], a);
		for (int n = 0; n < EACH; n++)
			CU_ASSERT_EQUAL_FATAL(
				agent_say(peer[i], "a", "x", NULL), 0);
	}
	for (unsigned n = 0; n < PEERS * EACH; n++) {
		CU_ASSERT_EQUAL_FATAL(ahp_receive(a, &m, 0), 0);
		first += !heard[atoi(m.source + 1)]++;
		ahp_release(a, &m);
		if (first == PEERS) {
			/* 64 messages of each, and a second round at most. */
			CU_ASSERT(n < 2 * 64 * PEERS);
			first++;
		}
	}
	for (int i = 0; i < PEERS; i++) {
		CU_ASSERT_EQUAL(heard[i], EACH);
		ahp_agent_close(peer[i]);
	}
	ahp_agent_close(a);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(windows_that_differ),
		TEST(last_words),
		TEST(refused_in_time),
		TEST(sender_that_never_receives),
		TEST(inline_both_ways),
		TEST(every_length),
		TEST(message_ids),
		TEST(explicit_acks_out_of_order),
		TEST(releases_out_of_order),
		TEST(straggler_not_accepted),
		TEST(straggler_not_released),
		TEST(full_window),
		TEST(full_by_bytes),
		TEST(room_after_loan),
		TEST(quota),
		TEST(loans_are_aligned),
		TEST(one_loan_to_many),
		TEST(expired),
		TEST(closed_with_things_held),
		TEST(in_flight_adds_up),
		TEST(sender_closes_first),
		TEST(invalid_messages),
		TEST(fair_turns),
		{0},
	};

	agents_begin();
	return test_main("flow", tests);
}

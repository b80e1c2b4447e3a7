/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done about messages that were not accepted, step by step, between
 * agents of one process: retries, deadlines, restarts, stragglers, dead
 * letters, events, and messages that come twice.
 */
#include <string.h>
#include <time.h>

#include <avp/ahp.h>

#include "ahp/retry.h"
#include "tests/agents.h"
#include "tests/harness.h"

#define WINDOW	16
#define DELAY	(SECOND_NS / 500)
#define TIMEOUT (20 * SECOND_NS)

static struct ahp_agent *a, *b;

static const struct ahp_agent_options reliable = {
	.flags = AHP_RELIABLE,
	.window = WINDOW,
	.retry_delay_ns = DELAY,
	.task_timeout_ns = TIMEOUT,
};
static const struct ahp_agent_options careful = {.flags = AHP_EXPLICIT_ACK,
						 .window = WINDOW};

struct grave {
	unsigned count;
	int code, last;
	uint32_t deliveries;
	char text[64], target[65];
	uint64_t bytes;
	bool pattern;
};

static int bury(void *arg, const struct ahp_dead_letter *letter)
{
	struct grave *grave = arg;
	size_t n = letter->body_bytes < 63 ? letter->body_bytes : 63;

	grave->count++;
	grave->code = letter->code;
	grave->last = letter->last;
	grave->deliveries = letter->deliveries;
	grave->bytes = letter->body_bytes;
	memcpy(grave->text, letter->body, n);
	grave->text[n] = 0;
	snprintf(grave->target, sizeof(grave->target), "%s", letter->target);
	grave->pattern = pattern_is(letter->body, letter->body_bytes, 7);
	return 0;
}

static void open_pair(const struct ahp_agent_options *of_a)
{
	a = agent_open("a", of_a);
	b = agent_open("b", &careful);
	agents_link(a, b);
}

static void close_pair(void)
{
	if (b)
		ahp_agent_close(b);
	ahp_agent_close(a);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* b's next message, while a does what is due. False after LONG_NS. */
static bool next_message(struct ahp_message *m)
{
	int64_t end_ns = ahp__now_ns() + LONG_NS;

	while (ahp_receive(b, m, SECOND_NS / 2000)) {
		ahp_agent_run(a, 0);
		if (ahp__now_ns() > end_ns)
			return false;
	}
	return true;
}

static bool is(const struct ahp_message *m, const char *text)
{
	return m->body_bytes == strlen(text) &&
	       !memcmp(m->body, text, m->body_bytes);
}

static void accept_it(struct ahp_message *m)
{
	CU_ASSERT_EQUAL(ahp_accept(b, m), 0);
	ahp_release(b, m);
}

static void reject_it(struct ahp_message *m)
{
	CU_ASSERT_EQUAL(ahp_reject(b, m), 0);
	ahp_release(b, m);
}

static void backoff_grows(void)
{
	for (uint32_t retry = 1; retry < 40; retry++) {
		int64_t least = ahp__backoff_ns(1000, retry, 0);
		int64_t most = ahp__backoff_ns(1000, retry, UINT32_MAX);
		uint32_t doubled = retry - 1 < BACKOFF_DOUBLINGS
					   ? retry - 1
					   : BACKOFF_DOUBLINGS;

		CU_ASSERT_EQUAL(least, 1000ll << doubled);
		CU_ASSERT_EQUAL(most, least + least / 2);
		CU_ASSERT(ahp__backoff_ns(1000, retry, 1u << 31) > least);
		CU_ASSERT(ahp__backoff_ns(1000, retry, 1u << 31) < most);
	}
	CU_ASSERT(ahp__backoff_ns(INT64_MAX, 40, UINT32_MAX) > 0);
}

static void rejected_comes_again(void)
{
	struct ahp_receipt receipt;
	struct ahp_message m;
	uint8_t id[2][16];
	int64_t start_ns;

	open_pair(&reliable);
	CU_ASSERT_EQUAL(agent_say(a, "b", "work", &receipt), 0);
	CU_ASSERT_FATAL(next_message(&m));
	CU_ASSERT_FALSE(m.redelivered);
	ahp_message_id(&m, id[0]);
	start_ns = ahp__now_ns();
	reject_it(&m);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), AVP_AGAIN);
	CU_ASSERT_EQUAL(agent_stats(a).waiting, 1);
	CU_ASSERT_FATAL(next_message(&m));
	CU_ASSERT(ahp__now_ns() - start_ns >= DELAY);
	CU_ASSERT(is(&m, "work"));
	CU_ASSERT(m.redelivered);
	ahp_message_id(&m, id[1]);
	CU_ASSERT(!memcmp(id[0], id[1], 16));
	CU_ASSERT_EQUAL(id[0][6] >> 4, 8);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), AVP_AGAIN);
	accept_it(&m);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), 0);
	CU_ASSERT_EQUAL(agent_stats(a).retried, 1);
	CU_ASSERT_EQUAL(agent_stats(a).waiting, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_stats(b).redelivered, 1);
	close_pair();
}

/* Bodies of every kind: in the slot, too long for the long form, in the
 * arena. */
static void bodies_stay(void)
{
	static const unsigned length[] = {0,   1,   100, 189,  190,
					  191, 222, 223, 1000, 300000};
	struct ahp_message m;
	struct ahp_receipt receipt;
	static char text[300000];

	open_pair(&reliable);
	for (size_t i = 0; i < sizeof(length) / sizeof(*length); i++) {
		struct ahp_outgoing out = {.target = "b",
					   .method = AHP_TASK,
					   .task_id = {"t", i % 2},
					   .body = text,
					   .body_bytes = length[i]};

		pattern_fill(text, length[i], 7);
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, &receipt, NULL), 0);
		for (int times = 0; times < 3; times++) {
			CU_ASSERT_FATAL(next_message(&m));
			CU_ASSERT_EQUAL(m.body_bytes, length[i]);
			CU_ASSERT(pattern_is(m.body, length[i], 7));
			CU_ASSERT_EQUAL(m.task_id.len, i % 2);
			CU_ASSERT_EQUAL(m.redelivered, times > 0);
			if (times == 2)
				accept_it(&m);
			else
				reject_it(&m);
		}
		CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), 0);
	}
	agents_settle(b, a);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	close_pair();
}

static void dead_after_retries(void)
{
	struct grave grave = {0};
	struct ahp_receipt receipt;
	struct ahp_message m;

	open_pair(&reliable);
	ahp_agent_bury(a, bury, &grave);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 5000, 7, &receipt), 0);
	for (int i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(grave.count, 0);
		CU_ASSERT_FATAL(next_message(&m));
		CU_ASSERT(pattern_is(m.body, 5000, 7));
		reject_it(&m);
	}
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), AVP_RETRY_EXHAUSTED);
	CU_ASSERT_EQUAL(grave.count, 1);
	CU_ASSERT_EQUAL(grave.code, AVP_RETRY_EXHAUSTED);
	CU_ASSERT_EQUAL(grave.last, AVP_REJECTED);
	CU_ASSERT_EQUAL(grave.deliveries, 4);
	CU_ASSERT_EQUAL(grave.bytes, 5000);
	CU_ASSERT(grave.pattern);
	CU_ASSERT_STRING_EQUAL(grave.target, "b");
	CU_ASSERT_EQUAL(agent_stats(a).dead, 1);
	CU_ASSERT_EQUAL(agent_stats(a).rejected, 4);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	close_pair();
}

/* A straggler whose slot was written over long ago. */
static void straggler_rejected(void)
{
	struct ahp_receipt receipt;
	struct ahp_message m, held;

	open_pair(&reliable);
	CU_ASSERT_EQUAL(agent_say(a, "b", "straggler", &receipt), 0);
	CU_ASSERT_FATAL(next_message(&held));
	for (int i = 0; i < 5 * WINDOW; i++) {
		CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), 0);
		CU_ASSERT_FATAL(next_message(&m));
		accept_it(&m);
		agents_settle(b, a);
	}
	reject_it(&held);
	CU_ASSERT_FATAL(next_message(&m));
	CU_ASSERT(is(&m, "straggler"));
	CU_ASSERT(m.redelivered);
	accept_it(&m);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), 0);
	close_pair();
}

/* A reader that ends: in order, flagged, before what is sent afterwards. */
static void reader_restarts(void)
{
	struct ahp_receipt receipt[6];
	struct ahp_message m;
	char text[2] = "0";

	open_pair(&reliable);
	for (int i = 0; i < 6; i++) {
		text[0] = (char)('0' + i);
		CU_ASSERT_EQUAL(agent_say(a, "b", text, &receipt[i]), 0);
	}
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_FATAL(next_message(&m));
		if (i != 1)
			accept_it(&m);
	}
	ahp_agent_close(b);
	b = NULL;
	ahp_agent_run(a, 0);
	ahp_agent_run(a, 0);
	for (int i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(ahp_status(a, &receipt[i]),
				i == 0 || i == 2 ? 0 : AVP_AGAIN);
	CU_ASSERT_EQUAL(agent_stats(a).waiting, 4);
	/* Nobody is there: it is taken, and comes after the others. */
	CU_ASSERT_EQUAL(agent_say(a, "b", "6", NULL), 0);
	b = agent_open("b", &careful);
	for (int i = 0; i < 5; i++) {
		static const char *const order[] = {"1", "3", "4", "5", "6"};

		CU_ASSERT_FATAL(next_message(&m));
		CU_ASSERT(is(&m, order[i]));
		/* What its reader had seen is known to some 32 messages. */
		CU_ASSERT_EQUAL(m.redelivered, i < 4);
		accept_it(&m);
	}
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt[5], LONG_NS), 0);
	CU_ASSERT_EQUAL(agent_stats(a).retried, 1);
	CU_ASSERT_EQUAL(agent_stats(a).waiting, 0);
	close_pair();
}

/* Nobody comes before the deadline. */
static void absent_until_deadline(void)
{
	struct ahp_agent_options options = reliable;
	struct grave grave = {0};
	struct ahp_receipt receipt;

	options.task_timeout_ns = SECOND_NS / 50;
	a = agent_open("a", &options);
	b = NULL;
	ahp_agent_bury(a, bury, &grave);
	CU_ASSERT_EQUAL(agent_say(a, "b", "nobody", &receipt), 0);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), AVP_AGAIN);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), AVP_EXPIRED);
	CU_ASSERT_EQUAL(grave.count, 1);
	CU_ASSERT_EQUAL(grave.deliveries, 0);
	CU_ASSERT_STRING_EQUAL(grave.text, "nobody");
	close_pair();
}

static void expired_in_the_ring(void)
{
	struct ahp_agent_options options = reliable;
	struct grave grave = {0};
	struct ahp_receipt receipt;
	struct ahp_message m;

	options.task_timeout_ns = SECOND_NS / 50;
	open_pair(&options);
	ahp_agent_bury(a, bury, &grave);
	CU_ASSERT_EQUAL(agent_say(a, "b", "late", &receipt), 0);
	/* b does not look until it is too late. */
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, SECOND_NS / 20), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(grave.count, 0); /* a live link: it is only told */
	CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), AVP_EXPIRED);
	CU_ASSERT_EQUAL(grave.count, 1);
	CU_ASSERT_EQUAL(grave.last, AVP_EXPIRED);
	close_pair();
}

/* Not reliable: as before, told and forgotten. */
static void plain_is_told(void)
{
	struct ahp_outgoing out = {
		.target = "b", .method = AHP_TASK, .flags = AHP_NOTIFY};
	struct ahp_event event;
	struct ahp_receipt receipt[3];
	struct ahp_message m;

	open_pair(NULL);
	CU_ASSERT_EQUAL(ahp_next_event(a, &event, 0), AVP_TIMEOUT);
	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, &receipt[i], NULL), 0);
	CU_ASSERT_FATAL(next_message(&m));
	reject_it(&m);
	CU_ASSERT_FATAL(next_message(&m));
	accept_it(&m);
	CU_ASSERT_EQUAL_FATAL(ahp_next_event(a, &event, LONG_NS), 0);
	CU_ASSERT_EQUAL(event.code, AVP_REJECTED);
	CU_ASSERT_EQUAL(event.receipt.sequence, receipt[0].sequence);
	CU_ASSERT_EQUAL_FATAL(ahp_next_event(a, &event, LONG_NS), 0);
	CU_ASSERT_EQUAL(event.code, 0);
	CU_ASSERT_EQUAL(event.receipt.sequence, receipt[1].sequence);
	ahp_agent_close(b);
	b = NULL;
	CU_ASSERT_EQUAL_FATAL(ahp_next_event(a, &event, LONG_NS), 0);
	CU_ASSERT_EQUAL(event.code, AVP_CLOSED);
	CU_ASSERT_EQUAL(ahp_next_event(a, &event, LONG_NS), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[0]), AVP_REJECTED);
	close_pair();
}

static int send_with_id(const char *text, uint8_t n, struct ahp_receipt *r)
{
	uint8_t id[16] = {n};
	struct ahp_outgoing out = {.target = "b",
				   .method = AHP_TASK,
				   .message_id = id,
				   .body = text,
				   .body_bytes = strlen(text)};

	return ahp_send(a, &out, 0, r, NULL);
}

static void twins(void)
{
	struct ahp_receipt first, second, third;
	struct ahp_message m;

	open_pair(NULL);
	CU_ASSERT_EQUAL(send_with_id("one", 1, &first), 0);
	CU_ASSERT_EQUAL(send_with_id("one", 1, &second), 0);
	CU_ASSERT_EQUAL(send_with_id("two", 2, NULL), 0);
	CU_ASSERT_FATAL(next_message(&m));
	/* The twin is passed over; its answer waits for the first's. */
	struct ahp_message two;
	CU_ASSERT_FATAL(next_message(&two));
	CU_ASSERT(is(&two, "two"));
	CU_ASSERT_EQUAL(ahp_status(a, &second), AVP_AGAIN);
	CU_ASSERT_EQUAL(agent_stats(b).duplicates, 1);
	reject_it(&m);
	CU_ASSERT_EQUAL(ahp_wait(a, &first, LONG_NS), AVP_REJECTED);
	CU_ASSERT_EQUAL(ahp_wait(a, &second, LONG_NS), AVP_REJECTED);
	/* Rejected: the id is free, and comes through. */
	CU_ASSERT_EQUAL(send_with_id("one", 1, &third), 0);
	CU_ASSERT_FATAL(next_message(&m));
	CU_ASSERT(is(&m, "one"));
	accept_it(&m);
	accept_it(&two);
	CU_ASSERT_EQUAL(ahp_wait(a, &third, LONG_NS), 0);
	/* Accepted: the next one is accepted without being delivered. */
	CU_ASSERT_EQUAL(send_with_id("one", 1, &first), 0);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_wait(a, &first, LONG_NS), 0);
	CU_ASSERT_EQUAL(agent_stats(b).duplicates, 2);
	/* Worked on when its sender ends: the id is free again. */
	CU_ASSERT_EQUAL(send_with_id("three", 3, NULL), 0);
	CU_ASSERT_FATAL(next_message(&m));
	ahp_agent_close(a);
	agents_settle(b, b);
	CU_ASSERT_EQUAL(ahp_accept(b, &m), AVP_CLOSED);
	ahp_release(b, &m);
	a = agent_open("a", NULL);
	agents_link(a, b);
	CU_ASSERT_EQUAL(send_with_id("three", 3, &first), 0);
	CU_ASSERT_FATAL(next_message(&m));
	CU_ASSERT(is(&m, "three"));
	accept_it(&m);
	close_pair();
}

/* Waiting messages of an agent that is closed are dead, not forgotten. */
static void closed_while_waiting(void)
{
	struct grave grave = {0};

	a = agent_open("a", &reliable);
	b = NULL;
	ahp_agent_bury(a, bury, &grave);
	for (int i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(agent_say(a, "b", "never", NULL), 0);
	close_pair();
	CU_ASSERT_EQUAL(grave.count, 100);
	CU_ASSERT_EQUAL(grave.code, AVP_CLOSED);
}

/*
 * It hangs up and is back before its sender looks: the news of its name come
 * while its end is not yet entered. It must be looked for again soon.
 */
static void restarts_in_one_turn(void)
{
	struct ahp_message m;

	open_pair(&reliable);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), 0);
	CU_ASSERT_FATAL(next_message(&m));
	for (int i = 0; i < 3; i++) {
		int64_t start_ns;

		ahp_agent_close(b);
		b = agent_open("b", &careful);
		start_ns = ahp__now_ns();
		CU_ASSERT_FATAL(next_message(&m));
		CU_ASSERT(is(&m, "x") && m.redelivered);
		CU_ASSERT(ahp__now_ns() - start_ns < LOOK_NS / 2);
	}
	accept_it(&m);
	close_pair();
}

static void make_frame(struct ahp_outgoing *out, struct avp_frame_template *t,
		       const uint8_t *payload, uint32_t bytes)
{
	const struct avp_metadata metadata = {
		.model_id = {"qwen2.5-0.5b", 12},
		.hidden_dim = 896,
	};

	CU_ASSERT_EQUAL(
		avp_frame_template_init(t, &metadata, AVP_DIALECT_0_2, NULL),
		0);
	*out = (struct ahp_outgoing){
		.target = "b",
		.method = AHP_RESULT,
		.kind = AHP_FRAME,
		.frame = t,
		.body = payload,
		.body_bytes = bytes,
	};
}

static void takes_frames(bool again)
{
	uint8_t payload[300];
	struct ahp_message m;

	for (uint32_t n = 0; n < sizeof(payload); n += 3) {
		CU_ASSERT_FATAL(next_message(&m));
		if (!n || !again)
			CU_ASSERT_EQUAL(m.redelivered, again);
		CU_ASSERT_EQUAL_FATAL(m.frame.payload_bytes, n);
		CU_ASSERT_EQUAL(m.frame.metadata.hidden_dim, 896);
		pattern_fill(payload, n, n);
		CU_ASSERT(!memcmp(m.frame.payload, payload, n));
		accept_it(&m);
	}
}

/*
 * Frames of every length around what a slot holds, sent again or while nobody was
 * there: what takes the short form at first is then in the long one, or lent.
 */
static void frames_come_again(void)
{
	struct avp_frame_template template;
	struct ahp_outgoing out;
	uint8_t payload[300];
	struct grave grave = {0};

	for (int absent = 0; absent < 2; absent++) {
		struct ahp_agent_options more = reliable;

		more.window = 128;
		more.max_retries = 1;
		a = agent_open("a", &more);
		b = NULL;
		ahp_agent_bury(a, bury, &grave);
		if (!absent) {
			more = careful;
			more.window = 128;
			b = agent_open("b", &more);
			agents_link(a, b);
		}
		for (uint32_t n = 0; n < sizeof(payload); n += 3) {
			pattern_fill(payload, n, n);
			make_frame(&out, &template, payload, n);
			CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), 0);
		}
		if (!absent) { /* it has them, and ends */
			ahp_agent_close(b);
			ahp_agent_run(a, 0);
			ahp_agent_run(a, 0);
		}
		b = agent_open("b", &careful);
		takes_frames(!absent);
		CU_ASSERT_EQUAL(agent_stats(b).rejected, 0);
		close_pair();
	}
	CU_ASSERT_EQUAL(grave.count, 0);
}

/*
 * A message that is sent again carries acknowledgements in its slot, which a peer
 * that does nothing but send never reads: the ack line tells it all the same.
 */
static void acks_beside_a_retry(void)
{
	struct ahp_receipt first, second;
	struct ahp_message m;

	open_pair(&reliable);
	CU_ASSERT_EQUAL(agent_say(a, "b", "again", &first), 0);
	CU_ASSERT_FATAL(next_message(&m));
	reject_it(&m);
	CU_ASSERT_EQUAL(agent_say(b, "a", "x", &second), 0);
	CU_ASSERT(agent_hears(a, "x"));
	while (!agent_stats(a).retried)
		ahp__agent_turn(a, 0);
	ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(ahp_status(b, &second), 0);
	CU_ASSERT_FATAL(next_message(&m));
	accept_it(&m);
	close_pair();
}

/*
 * Its reader has ended, and something of that is not read yet: what was with it
 * waits for the next one all the same, and goes first.
 */
static void ended_with_words_unread(void)
{
	struct ahp_message m;

	open_pair(&reliable);
	CU_ASSERT_EQUAL(agent_say(a, "b", "0", NULL), 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "1", NULL), 0);
	CU_ASSERT_FATAL(next_message(&m));
	CU_ASSERT_EQUAL(agent_say(b, "a", "last words", NULL), 0);
	ahp_agent_close(b);
	ahp_agent_run(a, 0);
	ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "2", NULL), 0);
	CU_ASSERT_EQUAL(agent_stats(a).waiting, 3);
	CU_ASSERT(agent_hears(a, "last words"));
	b = agent_open("b", &careful);
	for (char text[] = "0"; *text < '3'; ++*text) {
		CU_ASSERT_FATAL(next_message(&m));
		CU_ASSERT(is(&m, text));
		accept_it(&m);
	}
	close_pair();
}

static int say_number(uint32_t n)
{
	const struct ahp_outgoing out = {.target = "b",
					 .method = AHP_TASK,
					 .body = &n,
					 .body_bytes = sizeof(n)};

	return ahp_send(a, &out, 0, NULL, NULL);
}

/* More than fit at once wait for it: what is sent now comes after all of them. */
static void waiting_go_first(void)
{
	uint32_t sent = 0, next = 0;
	struct ahp_message m;

	a = agent_open("a", &reliable);
	while (sent < 4 * WINDOW) {
		CU_ASSERT_EQUAL(say_number(sent), 0);
		sent++;
	}
	b = agent_open("b", &careful);
	while (next < 8 * WINDOW) {
		uint32_t n = 0;

		CU_ASSERT_FATAL(next_message(&m));
		memcpy(&n, m.body, sizeof(n));
		CU_ASSERT_EQUAL_FATAL(n, next);
		next++;
		accept_it(&m);
		if (sent < 8 * WINDOW)
			sent += !say_number(sent);
	}
	close_pair();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(backoff_grows),
		TEST(rejected_comes_again),
		TEST(bodies_stay),
		TEST(dead_after_retries),
		TEST(straggler_rejected),
		TEST(reader_restarts),
		TEST(absent_until_deadline),
		TEST(expired_in_the_ring),
		TEST(plain_is_told),
		TEST(twins),
		TEST(closed_while_waiting),
		TEST(restarts_in_one_turn),
		TEST(frames_come_again),
		TEST(acks_beside_a_retry),
		TEST(ended_with_words_unread),
		TEST(waiting_go_first),
		{0},
	};

	agents_begin();
	return test_main("retry", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lane through its public face, both ends in one process: what goes in
 * comes out, at every size and near every boundary of sequences. What a
 * hostile owner can do to its reader is in test_lane_lies.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <avp/ring.h>

#include "tests/harness.h"

/* Two lanes, and each side's view of the other's. */
struct pair {
	struct avp_lane_tx a, b;
	struct avp_lane_rx from_a, from_b;
};

static bool open_pair(struct pair *p, uint32_t slots, uint64_t first,
		      uint32_t colour)
{
	struct avp_lane_options o = {.size = sizeof(o),
				     .slots = slots,
				     .colour = colour,
				     .first_sequence = first};

	memset(p, 0, sizeof(*p));
	return !avp_lane_init(&p->a, &o, NULL) &&
	       !avp_lane_init(&p->b, &o, NULL) &&
	       !avp_lane_attach(&p->from_a, &p->b, dup(p->a.segment.fd),
				NULL) &&
	       !avp_lane_attach(&p->from_b, &p->a, dup(p->b.segment.fd), NULL);
}

static void close_pair(struct pair *p)
{
	avp_lane_detach(&p->from_a);
	avp_lane_detach(&p->from_b);
	avp_lane_fini(&p->a);
	avp_lane_fini(&p->b);
}

static int put_text(struct avp_lane_tx *tx, const char *text)
{
	struct avp_slot_put put = {.inline_data = text,
				   .inline_bytes = (uint8_t)strlen(text)};

	return avp_lane_put(tx, &put, false);
}

/* ---- what goes in comes out --------------------------------------------- */

static void all_fields(void)
{
	struct pair p;
	struct avp_slot_view v;
	struct avp_slot_put put = {.method = 3,
				   .kind = 2,
				   .token_limit = 0xfffffffe,
				   .sent_ms = 123456,
				   .expiry_ms = 0xffffffff,
				   .task = "task-1",
				   .session = "s2",
				   .task_bytes = 6,
				   .session_bytes = 2,
				   .inline_data = "{\"a\":1}",
				   .inline_bytes = 7};

	CU_ASSERT_FATAL(open_pair(&p, 16, 0, 0));
	CU_ASSERT_FALSE(avp_lane_ready(&p.from_a));
	CU_ASSERT_EQUAL(avp_lane_take(&p.from_a, &v, NULL), 0);
	avp_lane_ack_below(&p.a, 7, 5, 8);
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, true), 0);
	avp_lane_prefetch(&p.from_a);
	CU_ASSERT_TRUE(avp_lane_ready(&p.from_a));
	CU_ASSERT_EQUAL_FATAL(avp_lane_take(&p.from_a, &v, NULL), 1);
	CU_ASSERT_EQUAL(v.sequence, 1);
	CU_ASSERT_EQUAL(v.accepted, 7);
	CU_ASSERT_EQUAL(v.released, 5);
	CU_ASSERT_EQUAL(v.method, 3);
	CU_ASSERT_EQUAL(v.kind, 2);
	CU_ASSERT_EQUAL(v.token_limit, 0xfffffffe);
	CU_ASSERT_EQUAL(v.sent_ms, 123456);
	CU_ASSERT_EQUAL(v.expiry_ms, 0xffffffff);
	CU_ASSERT(v.task_bytes == 6 && !memcmp(v.task, "task-1", 6));
	CU_ASSERT(v.session_bytes == 2 && !memcmp(v.session, "s2", 2));
	CU_ASSERT(v.inline_bytes == 7 && v.body_bytes == 7);
	CU_ASSERT(!memcmp(v.inline_data, "{\"a\":1}", 7));
	CU_ASSERT(!v.redelivered && !v.prompt && !v.long_form && !v.in_arena);
	CU_ASSERT_PTR_NULL(v.message_id);
	CU_ASSERT_EQUAL(avp_lane_take(&p.from_a, &v, NULL), 0);
	close_pair(&p);
}

static void long_form_and_arena(void)
{
	struct pair p;
	struct avp_slot_view v;
	struct avp_slot_put put = {
		.redelivered = true,
		.prompt = true,
		.long_form = true,
		.task = "t",
		.task_bytes = 1,
		.message_id = "0123456789abcde",
		.inline_data = "head",
		.inline_bytes = 4,
		.segment = AVP_LANE_SEGMENT_MAX,
		.offset = AVP_LANE_OFFSET_MAX,
		.body_bytes = UINT64_MAX,
	};

	CU_ASSERT_FATAL(open_pair(&p, 16, 0, 0));
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, false), 0);
	put.in_arena = true;
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, false), 0);
	CU_ASSERT_EQUAL_FATAL(avp_lane_take(&p.from_a, &v, NULL), 1);
	CU_ASSERT(v.long_form && !v.in_arena && v.redelivered && v.prompt);
	CU_ASSERT_EQUAL(v.body_bytes, 4);
	CU_ASSERT(v.message_id && !memcmp(v.message_id, "0123456789abcde", 16));
	CU_ASSERT_EQUAL_FATAL(avp_lane_take(&p.from_a, &v, NULL), 1);
	CU_ASSERT(v.long_form && v.in_arena);
	CU_ASSERT_EQUAL(v.segment, AVP_LANE_SEGMENT_MAX);
	CU_ASSERT_EQUAL(v.offset, AVP_LANE_OFFSET_MAX);
	CU_ASSERT_EQUAL(v.body_bytes, UINT64_MAX);
	CU_ASSERT(v.inline_bytes == 4 && !memcmp(v.inline_data, "head", 4));
	close_pair(&p);
}

/* One put and take of these lengths: do all bytes arrive? */
static int exchange(struct pair *p, const uint8_t *bytes, unsigned task,
		    unsigned session, unsigned body, bool long_form)
{
	struct avp_slot_view v;
	struct avp_slot_put put = {
		.long_form = long_form,
		.task = task ? (const char *)bytes : NULL,
		.session = session ? (const char *)bytes + 1 : NULL,
		.task_bytes = (uint8_t)task,
		.session_bytes = (uint8_t)session,
		.inline_data = body ? bytes + 2 : NULL,
		.inline_bytes = (uint8_t)body,
	};
	int error = avp_lane_put(&p->a, &put, false);

	if (error)
		return error;
	if (avp_lane_take(&p->from_a, &v, NULL) != 1)
		return AVP_UNKNOWN;
	avp_lane_consumed(&p->a, p->from_a.next);
	return v.task_bytes == task && v.session_bytes == session &&
			       v.inline_bytes == body && v.body_bytes == body &&
			       !memcmp(v.task, bytes, task) &&
			       !memcmp(v.session, bytes + 1, session) &&
			       !memcmp(v.inline_data, bytes + 2, body)
		       ? 0
		       : AVP_UNKNOWN;
}

static void every_length(void)
{
	static const unsigned id[] = {0, 1, 31, 79, 80};
	uint8_t bytes[300];
	struct pair p;
	unsigned wrong = 0;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 37 + 11);
	CU_ASSERT_FATAL(open_pair(&p, 16, 0, 0));
	for (unsigned t = 0; t < 5; t++)
		for (unsigned s = 0; s < 5; s++)
			for (unsigned body = 0; body < 256; body++)
				for (int form = 0; form < 2; form++) {
					unsigned room = form ? 192 : 224;
					unsigned n = 2 + id[t] + id[s] + body;
					int got = exchange(&p, bytes, id[t],
							   id[s], body, form);

					wrong += got !=
						 (n > room ? AVP_USAGE : 0);
				}
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_EQUAL(exchange(&p, bytes, 81, 0, 0, false), AVP_USAGE);
	CU_ASSERT_EQUAL(exchange(&p, bytes, 0, 81, 0, false), AVP_USAGE);
	close_pair(&p);
}

static void puts_that_do_not_fit(void)
{
	struct pair p;
	struct avp_slot_put good = {.long_form = true,
				    .in_arena = true,
				    .segment = 1,
				    .inline_data = "abc",
				    .inline_bytes = 3,
				    .body_bytes = 3},
			    put = good;

	CU_ASSERT_FATAL(open_pair(&p, 16, 0, 0));
	put.long_form = false;
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, false), AVP_USAGE);
	put = good;
	put.segment = AVP_LANE_SEGMENT_MAX + 1;
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, false), AVP_USAGE);
	put = good;
	put.offset = AVP_LANE_OFFSET_MAX + 1;
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, false), AVP_USAGE);
	put = good;
	put.body_bytes = 2; /* less than the head that repeats it */
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &put, false), AVP_USAGE);
	CU_ASSERT_FALSE(avp_lane_ready(&p.from_a));
	CU_ASSERT_EQUAL(avp_lane_put(&p.a, &good, false), 0);
	CU_ASSERT_TRUE(avp_lane_ready(&p.from_a));
	close_pair(&p);
}

/* A view is a copy: the owner may write what it likes afterwards. */
static void views_are_private(void)
{
	struct pair p;
	struct avp_slot_view v;

	CU_ASSERT_FATAL(open_pair(&p, 16, 0, 0));
	CU_ASSERT_EQUAL(put_text(&p.a, "before"), 0);
	CU_ASSERT_EQUAL_FATAL(avp_lane_take(&p.from_a, &v, NULL), 1);
	memset(p.a.slots, 0xff, 16 * 256);
	CU_ASSERT(v.inline_bytes == 6 && !memcmp(v.inline_data, "before", 6));
	close_pair(&p);
}

/* ---- sequences, laps, room ---------------------------------------------- */

/* Three laps and a bit, in bursts that fill the ring. */
static void run_laps(uint64_t first)
{
	struct avp_slot_view v;
	struct pair p;
	uint64_t put = first, took = first;
	char text[32];

	CU_ASSERT_FATAL(open_pair(&p, 16, first, 0));
	for (int burst = 0; burst < 4; burst++) {
		for (;; put++) {
			snprintf(text, sizeof(text), "%llx",
				 (unsigned long long)put);
			if (put_text(&p.a, text))
				break;
		}
		CU_ASSERT_EQUAL(put - took, 16);
		CU_ASSERT_EQUAL(put_text(&p.a, "x"), AVP_QUEUE_FULL);
		for (int n = 0; n < 16 - burst; n++, took++) {
			snprintf(text, sizeof(text), "%llx",
				 (unsigned long long)took);
			CU_ASSERT_EQUAL(avp_lane_take(&p.from_a, &v, NULL), 1);
			CU_ASSERT_EQUAL(v.sequence, took);
			CU_ASSERT(v.inline_bytes == strlen(text) &&
				  !memcmp(v.inline_data, text, v.inline_bytes));
		}
		avp_lane_consumed(&p.a, took);
	}
	close_pair(&p);
}

static void laps_near_boundaries(void)
{
	static const uint64_t first[] = {
		1,
		2,
		15,
		16,
		17,
		UINT32_MAX - 20,
		UINT32_MAX,
		1ull << 32,
		(1ull << 40) - 5,
		(1ull << 48) - 7,
		(1ull << 56) - 20,
		INT64_MAX - 9,
		INT64_MAX,
	};

	for (unsigned i = 0; i < sizeof(first) / sizeof(*first); i++)
		run_laps(first[i]);
}

static void room_is_what_was_consumed(void)
{
	struct pair p;

	CU_ASSERT_FATAL(open_pair(&p, 16, UINT32_MAX - 7, 0));
	for (int i = 0; i < 16; i++)
		CU_ASSERT_EQUAL(put_text(&p.a, "m"), 0);
	CU_ASSERT_EQUAL(put_text(&p.a, "m"), AVP_QUEUE_FULL);
	/* News that cannot be: behind, ahead of what was sent. */
	avp_lane_consumed(&p.a, UINT32_MAX - 8);
	avp_lane_consumed(&p.a, 0);
	avp_lane_consumed(&p.a, UINT32_MAX + 10ull);
	avp_lane_consumed(&p.a, UINT64_MAX);
	CU_ASSERT_EQUAL(put_text(&p.a, "m"), AVP_QUEUE_FULL);
	/* Three were read; then, over the wrap, ten. */
	avp_lane_consumed(&p.a, UINT32_MAX - 4);
	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(put_text(&p.a, "m"), 0);
	CU_ASSERT_EQUAL(put_text(&p.a, "m"), AVP_QUEUE_FULL);
	avp_lane_consumed(&p.a, UINT32_MAX + 3ull);
	for (int i = 0; i < 7; i++)
		CU_ASSERT_EQUAL(put_text(&p.a, "m"), 0);
	CU_ASSERT_EQUAL(put_text(&p.a, "m"), AVP_QUEUE_FULL);
	close_pair(&p);
}

static void every_geometry(void)
{
	for (uint32_t slots = 16; slots <= 65536; slots *= 2)
		for (uint32_t colour = 0; colour < 130; colour += 43) {
			struct avp_slot_view v;
			struct pair p;
			uint32_t n = 0;

			CU_ASSERT_FATAL(open_pair(&p, slots, 1, colour));
			CU_ASSERT(p.a.segment.bytes >= avp_lane_bytes(slots));
			CU_ASSERT_EQUAL((uintptr_t)p.a.slots % 4096,
					(16 * slots + colour % 32 * 128) %
						4096);
			while (!put_text(&p.a, "full"))
				n++;
			CU_ASSERT_EQUAL(n, slots);
			while (n && avp_lane_take(&p.from_a, &v, NULL) == 1)
				n--;
			CU_ASSERT_EQUAL(n, 0);
			close_pair(&p);
		}
}

static int init_with(struct avp_lane_options o)
{
	struct avp_lane_tx tx = {0};
	struct avp_reason why = {0};
	int error;

	error = avp_lane_init(&tx, &o, &why);
	if (error) {
		CU_ASSERT(why.code == error && strlen(why.text) > 10);
		CU_ASSERT_PTR_NULL(tx.segment.base);
	} else {
		avp_lane_fini(&tx);
	}
	return error;
}

static void options_are_checked(void)
{
	struct avp_lane_tx tx;

	CU_ASSERT_EQUAL(avp_lane_init(&tx, NULL, NULL), 0);
	CU_ASSERT_EQUAL(tx.window, 1024);
	avp_lane_fini(&tx);
#define INIT(...) init_with((struct avp_lane_options){__VA_ARGS__})
	CU_ASSERT_EQUAL(INIT(.slots = 16, .window = 16), 0);
	CU_ASSERT_EQUAL(INIT(.size = sizeof(struct avp_lane_options)), 0);
	CU_ASSERT_EQUAL(INIT(.size = 8), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.flags = 1), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.reserved32 = 1), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.reserved[3] = 1), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.slots = 8), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.slots = 17), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.slots = 131072), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.slots = 16, .window = 17), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.window = 1025), AVP_USAGE);
	CU_ASSERT_EQUAL(INIT(.first_sequence = 1ull << 63), AVP_USAGE);
#undef INIT
}

/* ---- acknowledging ------------------------------------------------------ */

static void ack_line(void)
{
	struct avp_acks acks;
	struct pair p;

	CU_ASSERT_FATAL(open_pair(&p, 16, UINT32_MAX, 0));
	avp_lane_acks_load(&p.from_b, &acks);
	CU_ASSERT_EQUAL(acks.accepted, UINT32_MAX);
	CU_ASSERT_EQUAL(acks.released, UINT32_MAX);
	CU_ASSERT_EQUAL(acks.consumed, UINT32_MAX);
	CU_ASSERT_FALSE(avp_lane_ack_flush(&p.b));
	avp_lane_ack_below(&p.b, UINT32_MAX + 2ull, UINT32_MAX + 1ull,
			   UINT32_MAX + 3ull);
	avp_lane_acks_load(&p.from_b, &acks);
	CU_ASSERT_EQUAL(acks.accepted, UINT32_MAX);
	CU_ASSERT_TRUE(avp_lane_ack_flush(&p.b));
	CU_ASSERT_FALSE(avp_lane_ack_flush(&p.b));
	avp_lane_acks_load(&p.from_b, &acks);
	CU_ASSERT_EQUAL(acks.accepted, UINT32_MAX + 2ull);
	CU_ASSERT_EQUAL(acks.released, UINT32_MAX + 1ull);
	CU_ASSERT_EQUAL(acks.consumed, UINT32_MAX + 3ull);
	close_pair(&p);
}

/* A peer that only sends never sees the slots that acknowledgements rode in. */
static void what_rode_along_is_still_flushed(void)
{
	struct avp_acks acks;
	struct pair p;

	CU_ASSERT_FATAL(open_pair(&p, 16, 1, 0));
	avp_lane_ack_below(&p.b, 5, 5, 5);
	CU_ASSERT_EQUAL(put_text(&p.b, "reply"), 0);
	CU_ASSERT_TRUE(avp_lane_ack_flush(&p.b));
	avp_lane_acks_load(&p.from_b, &acks);
	CU_ASSERT(acks.accepted == 5 && acks.released == 5 &&
		  acks.consumed == 5);
	close_pair(&p);
}

static void ignore(void *arg, uint64_t sequence, uint64_t cookie,
		   enum avp_ack status, uint32_t count)
{
	(void)arg, (void)sequence, (void)cookie, (void)status, (void)count;
}

/* Sends one and takes it at the other end, who answers by what it sends
 * next. */
static int ping(struct avp_lane_tx *tx, struct avp_ledger *ours,
		struct avp_lane_rx *rx, struct avp_lane_tx *other,
		struct avp_ledger *others)
{
	struct avp_slot_view v;
	int bad = put_text(tx, "ping") != 0;

	avp_ledger_add(ours, tx->next - 1, 0, false);
	bad += avp_lane_take(rx, &v, NULL) != 1;
	bad += avp_ledger_acks_low(others, v.accepted, v.released) != 0;
	avp_lane_consumed(other, avp_ledger_accepted(others));
	avp_lane_ack_below(other, rx->next, rx->next, rx->next);
	return bad;
}

/* Nothing but messages both ways, no flush: the words that ride must do. */
static void ping_pong_without_flush(void)
{
	const uint64_t first = UINT32_MAX - 40;
	struct avp_ledger *a, *b;
	struct pair p;
	int bad = 0;

	CU_ASSERT_FATAL(open_pair(&p, 16, first, 0));
	CU_ASSERT_FATAL(!avp_ledger_new(&a, 16, first, ignore, NULL) &&
			!avp_ledger_new(&b, 16, first, ignore, NULL));
	for (int i = 0; i < 100; i++) {
		bad += ping(&p.a, a, &p.from_a, &p.b, b);
		bad += ping(&p.b, b, &p.from_b, &p.a, a);
	}
	CU_ASSERT_EQUAL(bad, 0);
	avp_ledger_free(a);
	avp_ledger_free(b);
	close_pair(&p);
}

/* The ack ring over more laps than its eight lap bits count. */
static void ack_ring_laps(void)
{
	uint64_t sequence = 0, wrote = 0, read = 0, bad = 0;
	enum avp_ack status;
	struct pair p;

	CU_ASSERT_FATAL(open_pair(&p, 16, 1, 0));
	CU_ASSERT_EQUAL(avp_lane_ack_take(&p.from_b, &sequence, &status), 0);
	while (wrote < 32 * 600) {
		uint64_t burst = wrote % 33;

		for (uint64_t i = 0; i < burst || !i; i++, wrote++)
			avp_lane_ack_one(&p.b, UINT64_MAX - 9000 + wrote,
					 (enum avp_ack)(1 + wrote % 4));
		while (avp_lane_ack_take(&p.from_b, &sequence, &status) == 1) {
			bad += sequence !=
			       ((UINT64_MAX - 9000 + read) & 0xffffffffffffull);
			bad += (unsigned)status != 1 + read % 4;
			read++;
		}
		bad += read != wrote;
	}
	CU_ASSERT_EQUAL(bad, 0);
	close_pair(&p);
}

static void both_ways_at_once(void)
{
	struct avp_slot_view v;
	struct pair p;

	CU_ASSERT_FATAL(open_pair(&p, 32, 1, 5));
	CU_ASSERT_NOT_EQUAL(memcmp(p.a.epoch, p.b.epoch, 16), 0);
	CU_ASSERT_EQUAL(memcmp(p.a.epoch, p.from_a.epoch, 16), 0);
	CU_ASSERT_EQUAL(p.from_a.start_ns, p.a.start_ns);
	CU_ASSERT_EQUAL(put_text(&p.a, "from a"), 0);
	CU_ASSERT_EQUAL(put_text(&p.b, "from b"), 0);
	CU_ASSERT_EQUAL_FATAL(avp_lane_take(&p.from_b, &v, NULL), 1);
	CU_ASSERT_EQUAL(memcmp(v.inline_data, "from b", 6), 0);
	CU_ASSERT_EQUAL_FATAL(avp_lane_take(&p.from_a, &v, NULL), 1);
	CU_ASSERT_EQUAL(memcmp(v.inline_data, "from a", 6), 0);
	close_pair(&p);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(all_fields),
		TEST(long_form_and_arena),
		TEST(every_length),
		TEST(puts_that_do_not_fit),
		TEST(views_are_private),
		TEST(laps_near_boundaries),
		TEST(room_is_what_was_consumed),
		TEST(every_geometry),
		TEST(options_are_checked),
		TEST(ack_line),
		TEST(what_rode_along_is_still_flushed),
		TEST(ping_pong_without_flush),
		TEST(ack_ring_laps),
		TEST(both_ways_at_once),
		{0},
	};

	return test_main("lane", tests);
}

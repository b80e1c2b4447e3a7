/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that lie in shared memory: in slots, in frames, in acknowledgements.
 * What breaks the protocol poisons that link; a message that is wrong in itself
 * is refused and the link stays. Others are served in either case.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/raw.h"

static struct ahp_agent *v, *honest; /* v for victim */
static struct agent_log seen;
static struct raw raw;
static uint64_t lies_told;

static void begin(void)
{
	const struct ahp_agent_options options = {.log = agent_log,
						  .log_arg = &seen};

	memset(&seen, 0, sizeof(seen));
	lies_told = 0;
	v = agent_open("v", &options);
	honest = agent_open("honest", NULL);
	agents_link(honest, v);
	raw_up(&raw, v, "evil");
}

static void end(void)
{
	CU_ASSERT(agents_talk(honest, v));
	raw_close(&raw);
	ahp_agent_run(v, 0);
	ahp_agent_run(v, 0);
	CU_ASSERT_EQUAL(agent_stats(v).links, 1);
	ahp_agent_close(honest);
	ahp_agent_close(v);
}

/* Nothing is delivered, the link is poisoned and closed, and the next is
 * made. */
static void expect_poison(const char *what)
{
	struct ahp_message m;
	union wire_message said;
	int kind;

	CU_ASSERT_EQUAL(ahp_receive(v, &m, 0), AVP_TIMEOUT);
	ahp_agent_run(v, 0);
	if (agent_stats(v).poisoned != ++lies_told) {
		fprintf(stderr, "not poisoned: %s\n", what);
		CU_FAIL("a lie was believed");
	}
	CU_ASSERT_EQUAL(seen.last, AVP_POISONED);
	CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), AVP_POISONED);
	CU_ASSERT_EQUAL(agent_stats(v).links, 1);
	while ((kind = raw_hear(&raw, &said)) > 0)
		continue;
	CU_ASSERT_EQUAL(kind, 0);
	CU_ASSERT(agents_talk(honest, v));
	raw_close(&raw);
	ahp_agent_run(v, 0);
	raw_up(&raw, v, "evil");
}

/* ---- slots -------------------------------------------------------------- */

static void commit_words_that_lie(void)
{
	static const uint64_t words[] = {2, 1024, 1025, -1ull, 1ull << 32};

	begin();
	for (unsigned i = 0; i < 5; i++) {
		struct slot *slot = raw_task(&raw, "{}", 2);

		atomic_store(&slot->sequence, words[i]);
		expect_poison("commit word");
	}
	end();
}

static void slots_that_lie(void)
{
	begin();
	for (unsigned flags = 1; flags < 256; flags++) {
		struct slot *slot = raw_task(&raw, "{}", 2);

		if (!(flags & ~SLOT_FLAGS) &&
		    (flags & (SLOT_LONG | SLOT_ARENA)) != SLOT_ARENA)
			continue;
		slot->flags = (uint8_t)flags;
		raw_commit(&raw, slot);
		expect_poison("flags");
	}
	for (unsigned form = 0; form <= SLOT_LONG; form++) {
		unsigned head = form ? SLOT_LONG_BYTES : SLOT_SMALL_BYTES;

		for (unsigned lie = 0; lie < 6; lie++) {
			struct slot *slot = raw_slot(&raw);
			uint8_t *p = (uint8_t *)slot + head;

			slot->flags = (uint8_t)form;
			if (lie == 0)
				p[0] = 81; /* task id too long */
			else if (lie == 1)
				p[0] = 255;
			else if (lie == 2)
				p[1] = 81;
			else if (lie == 3)
				p[0] = 80, p[81] = 255;
			else if (lie == 4)
				slot->inline_bytes = 255;
			else
				p[0] = 80, p[81] = 80,
				slot->inline_bytes = form ? 31 : 63;
			raw_commit(&raw, slot);
			expect_poison("lengths");
		}
	}
	end();
}

static void bodies_that_lie(void)
{
	static const struct {
		uint32_t segment;
		uint64_t off, bytes;
		uint8_t head;
	} lies[] = {
		{0, 0, 10, 0},
		{2, 0, 10, 0},
		{0xffffff, 0, 10, 0},
		{1, 65537, 0, 0},
		{1, 0, 65537, 0},
		{1, 1, 65536, 0},
		{1, 65536, 1, 0},
		{1, 64, -1ull, 0},
		{1, 64, -64ull, 0},
		{1, AVP_LANE_OFFSET_MAX, 64, 0},
		{1, AVP_LANE_OFFSET_MAX, -1ull, 0},
		{1, 0, 1ull << 63, 0},
		{1, 0, 3, 4},
	};

	begin();
	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct slot *slot;

		raw_segment(&raw, 1, 65536);
		slot = raw_lent(&raw, lies[i].segment, lies[i].off,
				lies[i].bytes);
		slot->inline_bytes = lies[i].head;
		memcpy(slot->rest, "\2t7", 3);
		raw_commit(&raw, slot);
		expect_poison("body");
		/* The log says whose it was, once it could be read. */
		CU_ASSERT_STRING_EQUAL(seen.warned_task,
				       lies[i].head ? "" : "t7");
	}
	end();
}

/* What is not the protocol's: the message is refused, the link stays. */
static void messages_that_are_refused(void)
{
	struct ahp_message m;

	begin();
	for (unsigned i = 0; i < 512; i++) {
		struct slot *slot = raw_task(&raw, "{}", 2);
		bool good = i < 256 ? i >= AHP_TASK && i <= AHP_TOKEN_RESPONSE
				    : i == 256;

		if (i < 256)
			slot->method = (uint8_t)i;
		else
			slot->kind = (uint8_t)i;
		raw_commit(&raw, slot);
		if (good) {
			CU_ASSERT_EQUAL_FATAL(ahp_receive(v, &m, 0), 0);
			ahp_release(v, &m);
		} else {
			CU_ASSERT_EQUAL(ahp_receive(v, &m, 0), AVP_TIMEOUT);
		}
	}
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 0);
	CU_ASSERT_EQUAL(agent_stats(v).received, 8);
	CU_ASSERT_EQUAL(seen.warnings, 504);
	/* Each was answered: refused ones in the ack ring. */
	CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), 0);
	end();
}

/* ---- frames ------------------------------------------------------------- */

static uint64_t make_frame(void *to, uint64_t room, uint64_t payload)
{
	const struct avp_metadata metadata = {
		.model_id = {"evil-model", 10},
		.hidden_dim = 896,
		.session_id = {"s", 1},
	};
	static uint8_t tensor[4096];
	uint64_t len = 0;

	CHECK(!avp_frame_encode(&metadata, AVP_DIALECT_0_2, tensor, payload, to,
				room, &len, NULL));
	return len;
}

/* A frame that was delivered lies within its body, whatever was said. */
static void check_frame(const struct ahp_message *m)
{
	const uint8_t *body = m->body, *payload = m->frame.payload;

	CU_ASSERT(payload >= body);
	CU_ASSERT(m->frame.payload_bytes <= m->body_bytes);
	CU_ASSERT(payload + m->frame.payload_bytes <= body + m->body_bytes);
}

static unsigned take_all(void)
{
	struct ahp_message m;
	unsigned n = 0;

	while (!ahp_receive(v, &m, 0)) {
		if (m.kind == AHP_FRAME)
			check_frame(&m);
		ahp_release(v, &m);
		n++;
	}
	return n;
}

static void frames_that_lie_in_slots(void)
{
	uint8_t frame[200], bad[200];
	uint8_t len = (uint8_t)make_frame(frame, sizeof(frame), 40);
	unsigned delivered = 0, sent = 0;

	begin();
	srand(11);
	for (unsigned i = 0; i < 20000; i++) {
		struct slot *slot;

		memcpy(bad, frame, len);
		for (unsigned n = (unsigned)rand() % 4; i && n-- > 0;)
			bad[(unsigned)rand() % (n % 2 ? len : 24)] ^=
				(uint8_t)(1u << rand() % 8);
		slot = raw_task(&raw, bad,
				i % 5 ? len : (uint8_t)(rand() % len + 1));
		slot->kind = AHP_FRAME;
		raw_commit(&raw, slot);
		sent++;
		delivered += take_all();
	}
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 0);
	CU_ASSERT(delivered > 1000 && delivered < sent);
	CU_ASSERT_EQUAL(delivered + seen.warnings, sent);
	end();
}

/*
 * In the arena: what the slot repeats is not what lies there; lengths reach
 * beyond the body; metadata is longer than what the slot repeats, or endless.
 */
static void frames_that_lie_in_the_arena(void)
{
	static const uint32_t lengths[] = {
		0,	 1,	  40,	   64,	0x1000, 0xffff,
		0x10000, 0x10001, 0xfffff, -1u, -12u,	0x80000000};
	enum { COUNT = sizeof(lengths) / sizeof(*lengths) };
	uint64_t len;
	uint8_t *at;

	begin();
	raw_segment(&raw, 1, 2 * MIB);
	at = raw.segment.base;
	len = make_frame(at, 4096, 1000);
	for (unsigned i = 0; i < COUNT; i++)
		for (unsigned j = 0; j < COUNT; j++)
			for (unsigned head = 0; head <= 24; head += 12) {
				struct slot *slot = raw_lent(
					&raw, 1, 0, i % 2 ? len : 2 * MIB);
				uint8_t *copy =
					(uint8_t *)slot + SLOT_LONG_BYTES + 2;

				memcpy(at + 4, &lengths[i], 4);
				memcpy(at + 8, &lengths[j], 4);
				slot->kind = AHP_FRAME;
				slot->inline_bytes = (uint8_t)head;
				memcpy(copy, at, head);
				if (head && (i + j) % 3 == 0)
					copy[8] ^= 4; /* says otherwise */
				raw_commit(&raw, slot);
				take_all();
			}
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 0);
	CU_ASSERT(seen.warnings > 100);
	end();
}

/* ---- acknowledgements --------------------------------------------------- */

static void ack_lines_that_lie(void)
{
	static const uint64_t ahead[] = {1, 2, 1000, 1ull << 32, 1ull << 62};

	begin();
	for (unsigned i = 0; i < 5; i++)
		for (unsigned word = 0; word < 2; word++) {
			struct lane_acks *acks = &raw_lane(&raw)->acks;
			struct ahp_receipt receipt;

			CU_ASSERT_EQUAL(
				agent_lend(v, "evil", 1000, 1, &receipt), 0);
			atomic_store(word ? &acks->released : &acks->accepted,
				     receipt.sequence + 1 + ahead[i]);
			CU_ASSERT_EQUAL(ahp_status(v, &receipt), AVP_CLOSED);
			expect_poison("ack line");
		}
	/* What goes back, or says that more was read than sent, is no news. */
	atomic_store(&raw_lane(&raw)->acks.accepted, 0);
	atomic_store(&raw_lane(&raw)->acks.released, -5ull);
	atomic_store(&raw_lane(&raw)->acks.consumed, 1ull << 40);
	for (int i = 0; i < 1024; i++)
		CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), 0);
	CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), AVP_QUEUE_FULL);
	end();
}

static void acks_in_slots_that_lie(void)
{
	begin();
	for (unsigned word = 0; word < 2; word++) {
		struct slot *slot = raw_task(&raw, "{}", 2);
		struct ahp_receipt receipt;

		CU_ASSERT_EQUAL(agent_say(v, "evil", "x", &receipt), 0);
		if (word)
			slot->accepted = (uint32_t)receipt.sequence + 2;
		else
			slot->released = (uint32_t)receipt.sequence + 2;
		raw_commit(&raw, slot);
		/* The message itself is right, and may be delivered. */
		take_all();
		ahp_agent_run(v, 0);
		CU_ASSERT_EQUAL(ahp_status(v, &receipt), AVP_CLOSED);
		CU_ASSERT_EQUAL(agent_stats(v).poisoned, word + 1);
		raw_close(&raw);
		ahp_agent_run(v, 0);
		raw_up(&raw, v, "evil");
	}
	end();
}

static _Atomic uint64_t *ack_ring(void)
{
	return (void *)((char *)raw.tx.segment.base + LANE_ACKS_OFF);
}

static void ack_entries_that_lie(void)
{
	static const struct {
		uint64_t status, sequence;
	} lies[] = {
		{0, 1}, {6, 1},	   {255, 1},	    {1, 0},
		{1, 2}, {4, 1000}, {2, 1ull << 47}, {3, 0xffffffffffff},
	};
	struct ahp_receipt receipt;

	begin();
	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		CU_ASSERT_EQUAL(agent_lend(v, "evil", 1000, 1, &receipt), 0);
		CU_ASSERT_EQUAL(receipt.sequence, 1);
		atomic_store(&ack_ring()[0],
			     1ull << ACK_LAP_SHIFT |
				     lies[i].status << ACK_STATUS_SHIFT |
				     lies[i].sequence);
		CU_ASSERT_EQUAL(ahp_status(v, &receipt), AVP_CLOSED);
		expect_poison("ack entry");
	}
	/* A ring full of the same true entry, twice over: counted once. */
	CU_ASSERT_EQUAL(agent_lend(v, "evil", 1000, 1, &receipt), 0);
	for (uint64_t lap = 1; lap < 4; lap++)
		for (unsigned i = 0; i < 2048; i++) {
			atomic_store(&ack_ring()[i],
				     lap << ACK_LAP_SHIFT |
					     (uint64_t)(i % 2 ? 1 : 4)
						     << ACK_STATUS_SHIFT |
					     1);
			if (i % 512 == 511)
				ahp_status(v, &receipt);
		}
	CU_ASSERT_EQUAL(ahp_status(v, &receipt), 0);
	CU_ASSERT_EQUAL(agent_stats(v).bytes_lent, 0);
	end();
}

/* What a poisoned peer was lent stays lent until it hangs up. */
static void quarantine(void)
{
	struct ahp_receipt receipt;
	struct slot *slot;

	begin();
	CU_ASSERT_EQUAL(agent_lend(v, "evil", 100000, 1, &receipt), 0);
	slot = raw_task(&raw, "{}", 2);
	slot->flags = 0x80;
	raw_commit(&raw, slot);
	CU_ASSERT_EQUAL(take_all(), 0);
	for (int i = 0; i < 3; i++)
		ahp_agent_run(v, 0);
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 1);
	CU_ASSERT(agent_stats(v).bytes_lent >= 100000);
	CU_ASSERT_EQUAL(ahp_status(v, &receipt), AVP_CLOSED);
	raw_close(&raw);
	ahp_agent_run(v, 0);
	CU_ASSERT_EQUAL(agent_stats(v).bytes_lent, 0);
	CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), AVP_AGENT_NOT_FOUND);
	raw_up(&raw, v, "evil");
	end();
}

/* Views of a poisoned peer stay valid until they are released. */
static void poisoned_while_looking(void)
{
	struct ahp_message m;
	struct slot *slot;

	begin();
	raw_segment(&raw, 1, 65536);
	pattern_fill(raw.segment.base, 5000, 9);
	raw_commit(&raw, raw_lent(&raw, 1, 0, 5000));
	CU_ASSERT_EQUAL_FATAL(ahp_receive(v, &m, 0), 0);
	slot = raw_slot(&raw);
	slot->flags = 0x40;
	raw_commit(&raw, slot);
	CU_ASSERT_EQUAL(take_all(), 0);
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 1);
	raw_close(&raw);
	ahp_agent_run(v, 0);
	CU_ASSERT(pattern_is(m.body, 5000, 9));
	CU_ASSERT(agents_talk(honest, v));
	ahp_release(v, &m);
	raw_up(&raw, v, "evil");
	end();
}

/*
 * The three worst at once: a body in a segment that was not passed, so that the
 * socket is read; a hang-up, which is found there; acknowledgements that lie,
 * which are read because of the hang-up.
 */
static void lies_and_hangs_up(void)
{
	for (int lie = 0; lie < 2; lie++) {
		begin();
		CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), 0);
		raw_segment(&raw, 1, 65536);
		raw_commit(&raw, raw_lent(&raw, lie ? 1 : 2, 0, 5000));
		atomic_store(&raw_lane(&raw)->acks.accepted, 1000);
		raw_close(&raw);
		CU_ASSERT_EQUAL(take_all(), 0);
		for (int i = 0; i < 3; i++)
			ahp_agent_run(v, 0);
		CU_ASSERT_EQUAL(agent_stats(v).poisoned, 1);
		CU_ASSERT_EQUAL(agent_stats(v).links, 1);
		raw_up(&raw, v, "evil");
		end();
	}
}

/* An agent of random bytes: nothing to expect but that the victim lives. */
static void random_lanes(void)
{
	srand(23);
	begin();
	for (unsigned round = 0; round < 300; round++) {
		uint8_t *p = raw.tx.segment.base;

		raw_segment(&raw, 1, 65536);
		for (unsigned i = 0; i < 4; i++) {
			struct slot *slot = raw_slot(&raw);
			uint8_t *bytes = (uint8_t *)slot + 8;

			for (unsigned n = 0; n < 248; n++)
				bytes[n] = (uint8_t)rand();
			slot->flags &= round % 2 ? SLOT_FLAGS : 0xff;
			slot->accepted = slot->released = 1;
			slot->expiry_ms = 0;
			bytes[SLOT_SMALL_BYTES - 8] &= 0x3f;
			slot->method = (uint8_t)(1 + rand() % 7);
			slot->kind &= 1;
			slot->where &= 0x1ffffull | 1ull << 40;
			slot->body_bytes &= 0xffff;
			raw_commit(&raw, slot);
		}
		for (unsigned n = 0; round % 3 == 0 && n < 64; n++)
			p[LANE_ACKS_OFF + (unsigned)rand() % 64] =
				(uint8_t)rand();
		agent_lend(v, "evil", 1 + (uint64_t)rand() % 9999, 1, NULL);
		take_all();
		ahp_agent_run(v, 0);
		if (round % 50 == 0)
			CU_ASSERT(agents_talk(honest, v));
		raw_close(&raw);
		ahp_agent_run(v, 0);
		raw_up(&raw, v, "evil");
	}
	ahp_agent_run(v, 0);
	CU_ASSERT(agent_stats(v).bytes_lent < 20000);
	end();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(commit_words_that_lie),
		TEST(slots_that_lie),
		TEST(bodies_that_lie),
		TEST(messages_that_are_refused),
		TEST(frames_that_lie_in_slots),
		TEST(frames_that_lie_in_the_arena),
		TEST(ack_lines_that_lie),
		TEST(acks_in_slots_that_lie),
		TEST(ack_entries_that_lie),
		TEST(quarantine),
		TEST(poisoned_while_looking),
		TEST(lies_and_hangs_up),
		TEST(random_lanes),
		{0},
	};

	agents_begin();
	return test_main("hostile_lane", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane whose owner lies: in each field of its header, of a slot, of an entry
 * of its ack ring. Every lie must be answered with AVP_POISONED and a reason,
 * or do no harm; ASan sees what reads too far.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <avp/ring.h>

#include "ring/slot.h"
#include "tests/harness.h"

#define SLOTS 16

/* The liar's lane, and the honest side: its view, and a lane of its own. */
struct scene {
	struct avp_lane_tx liar, own;
	struct avp_lane_rx view;
};

static void open_scene(struct scene *s, uint64_t first)
{
	struct avp_lane_options o = {
		.size = sizeof(o), .slots = SLOTS, .first_sequence = first};

	memset(s, 0, sizeof(*s));
	CU_ASSERT_FATAL(!avp_lane_init(&s->liar, &o, NULL) &&
			!avp_lane_init(&s->own, &o, NULL) &&
			!avp_lane_attach(&s->view, &s->own,
					 dup(s->liar.segment.fd), NULL));
}

static void close_scene(struct scene *s)
{
	avp_lane_detach(&s->view);
	avp_lane_fini(&s->liar);
	avp_lane_fini(&s->own);
}

/* ---- the header --------------------------------------------------------- */

struct lie {
	const char *field;
	size_t off, bytes;
	uint64_t value;
	int answer;
};
#define HEADER(field, value, answer)                                     \
	{                                                                \
#field, offsetof(struct lane_header, field),             \
			sizeof(((struct lane_header *)0)->field), value, \
			answer                                           \
	}
#define BAD AVP_POISONED

static int attach_with(struct scene *s, const struct lie *lie)
{
	uint8_t *at = (uint8_t *)s->liar.segment.base + lie->off, keep[8];
	struct avp_lane_rx rx = {0};
	struct avp_reason why = {0};
	int answer;

	memcpy(keep, at, lie->bytes);
	memcpy(at, &lie->value, lie->bytes);
	answer = avp_lane_attach(&rx, &s->own, dup(s->liar.segment.fd), &why);
	memcpy(at, keep, lie->bytes);
	if (answer) {
		CU_ASSERT(why.code == answer && strlen(why.text) > 10);
		CU_ASSERT_PTR_NULL(rx.segment.base);
	} else {
		avp_lane_detach(&rx);
	}
	return answer;
}

static void header_lies(void)
{
	static const struct lie lies[] = {
		HEADER(magic, 0, BAD),
		HEADER(magic, LANE_MAGIC + 1, BAD),
		HEADER(major, 0, BAD),
		HEADER(major, 2, BAD),
		HEADER(minor, 99, 0), /* a minor version only adds */
		HEADER(header_bytes, 0, BAD),
		HEADER(header_bytes, sizeof(struct lane_header) - 1, BAD),
		HEADER(header_bytes, 4096, 0),
		HEADER(slots, 0, BAD),
		HEADER(slots, 1, BAD),
		HEADER(slots, 8, BAD),
		HEADER(slots, 17, BAD),
		HEADER(slots, 32, BAD), /* acks do not agree */
		HEADER(slots, 131072, BAD),
		HEADER(slots, 0x80000000, BAD),
		HEADER(slots, 0xffffffff, BAD),
		HEADER(slot_bytes, 0, BAD),
		HEADER(slot_bytes, 255, BAD),
		HEADER(slot_bytes, 512, BAD),
		HEADER(acks, 0, BAD),
		HEADER(acks, 16, BAD),
		HEADER(acks, 64, BAD),
		HEADER(acks, 0xffffffff, BAD),
		HEADER(window, 0, BAD),
		HEADER(window, SLOTS + 1, BAD),
		HEADER(window, 0xffffffff, BAD),
		HEADER(window, 1, 0),
		HEADER(slots_off, 0, BAD),
		HEADER(slots_off, LANE_ACKS_OFF, BAD),
		HEADER(slots_off, LANE_ACKS_OFF + 8 * 2 * SLOTS - 64, BAD),
		HEADER(slots_off, LANE_ACKS_OFF + 8 * 2 * SLOTS + 8, BAD),
		HEADER(slots_off, 1ull << 20, BAD),
		HEADER(slots_off, 0ull - 64, BAD),
		HEADER(slots_off, 0ull - SLOTS * SLOT_BYTES, BAD),
		HEADER(slots_off, 0ull - SLOTS * SLOT_BYTES + 64, BAD),
		HEADER(slots_off, 1ull << 63, BAD),
		HEADER(first_sequence, 0, BAD),
		HEADER(first_sequence, 1ull << 63, BAD),
		HEADER(first_sequence, UINT64_MAX, BAD),
		HEADER(start_ns, UINT64_MAX, BAD), /* times are added to it */
		HEADER(ready, 0, BAD),
		HEADER(ready, 1, BAD),
	};
	struct scene s;

	open_scene(&s, 1);
	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		int answer = attach_with(&s, &lies[i]);

		if (answer != lies[i].answer)
			printf("%s = %#llx: %d\n", lies[i].field,
			       (unsigned long long)lies[i].value, answer);
		CU_ASSERT_EQUAL(answer, lies[i].answer);
	}
	close_scene(&s);
}

/* Two geometries that agree with themselves but not with the segment. */
static void geometry_beyond_the_segment(void)
{
	struct lane_header *h;
	struct avp_lane_rx rx;
	struct scene s;

	open_scene(&s, 1);
	h = s.liar.segment.base;
	h->slots = h->window = 65536;
	h->acks = 2 * 65536;
	h->slots_off = LANE_ACKS_OFF + 8ull * h->acks;
	CU_ASSERT_EQUAL(
		avp_lane_attach(&rx, &s.own, dup(s.liar.segment.fd), NULL),
		AVP_POISONED);
	h->slots = h->window = 32;
	h->acks = 64;
	h->slots_off = s.liar.segment.bytes - 32 * SLOT_BYTES + 64;
	CU_ASSERT_EQUAL(
		avp_lane_attach(&rx, &s.own, dup(s.liar.segment.fd), NULL),
		AVP_POISONED);
	h->slots_off -= 64; /* to the last byte */
	CU_ASSERT_EQUAL(
		avp_lane_attach(&rx, &s.own, dup(s.liar.segment.fd), NULL), 0);
	avp_lane_detach(&rx);
	close_scene(&s);
}

static bool reader_is_gone(void *writer)
{
	return write(*(int *)writer, "", 1) < 0;
}

/* Other memory than a lane, and no memory at all. */
static void not_a_lane(void)
{
	struct avp_segment small, large;
	struct avp_lane_rx rx = {0};
	struct scene s;
	int pair[2];

	open_scene(&s, 1);
	CU_ASSERT_EQUAL_FATAL(
		avp_segment_create(&small, "small", 4096, NULL, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(
		avp_segment_create(&large, "large", 24 << 20, NULL, NULL), 0);
	signal(SIGPIPE, SIG_IGN);
	CU_ASSERT_EQUAL_FATAL(pipe(pair), 0);
	CU_ASSERT_EQUAL(avp_lane_attach(&rx, &s.own, dup(small.fd), NULL),
			AVP_POISONED);
	CU_ASSERT_EQUAL(avp_lane_attach(&rx, &s.own, dup(large.fd), NULL),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(avp_lane_attach(&rx, &s.own, pair[0], NULL),
			AVP_POISONED);
	CU_ASSERT_TRUE(test_wait(reader_is_gone, &pair[1], 10));
	close(pair[1]);
	avp_segment_close(&small);
	avp_segment_close(&large);
	close_scene(&s);
}

/* ---- slots -------------------------------------------------------------- */

static struct slot *slot_of(struct scene *s, uint64_t sequence)
{
	return (struct slot *)(void *)(s->liar.slots +
				       (sequence & s->liar.slot_mask) *
					       SLOT_BYTES);
}

static int take(struct scene *s, struct avp_slot_view *v)
{
	struct avp_reason why = {0};
	int got = avp_lane_take(&s->view, v, &why);

	if (got < 0) {
		CU_ASSERT(why.code == got && strlen(why.text) > 10);
		/* And it stays so: nothing was skipped. */
		CU_ASSERT_EQUAL(avp_lane_take(&s->view, v, NULL), got);
	}
	return got;
}

/* A slot's flags and length bytes as given; what does the reader say? */
static int take_slot(unsigned flags, unsigned task, unsigned session,
		     unsigned inline_bytes)
{
	unsigned head = flags & SLOT_LONG ? SLOT_LONG_BYTES : SLOT_SMALL_BYTES;
	struct avp_slot_view v;
	struct scene s;
	struct slot *slot;
	int got;

	open_scene(&s, 1);
	slot = slot_of(&s, 1);
	memset((uint8_t *)slot + 8, 0x5a, SLOT_BYTES - 8);
	slot->flags = (uint8_t)flags;
	slot->inline_bytes = (uint8_t)inline_bytes;
	slot->body_bytes = 100;
	slot->where = UINT64_MAX;
	((uint8_t *)slot)[head] = (uint8_t)task;
	if (head + 1 + task < SLOT_BYTES)
		((uint8_t *)slot)[head + 1 + task] = (uint8_t)session;
	atomic_store(&slot->sequence, 1);
	got = take(&s, &v);
	close_scene(&s);
	return got;
}

static void slot_lies(void)
{
	CU_ASSERT_EQUAL(take_slot(0, 0, 0, 0), 1);
	for (unsigned flags = 0; flags < 256; flags++)
		CU_ASSERT_EQUAL(take_slot(flags, 0, 0, 0),
				flags > SLOT_FLAGS || (flags & 3) == SLOT_ARENA
					? BAD
					: 1);
	for (unsigned n = 79; n < 256; n++) {
		CU_ASSERT_EQUAL(take_slot(0, n, 0, 0), n > 80 ? BAD : 1);
		CU_ASSERT_EQUAL(take_slot(0, 0, n, 0), n > 80 ? BAD : 1);
		CU_ASSERT_EQUAL(take_slot(SLOT_LONG, n, 0, 0),
				n > 80 ? BAD : 1);
		CU_ASSERT_EQUAL(take_slot(SLOT_LONG, 80, n, 0),
				n > 80 ? BAD : 1);
	}
	for (unsigned n = 0; n < 256; n++) {
		CU_ASSERT_EQUAL(take_slot(0, 0, 0, n), n > 222 ? BAD : 1);
		CU_ASSERT_EQUAL(take_slot(0, 80, 80, n), n > 62 ? BAD : 1);
		CU_ASSERT_EQUAL(take_slot(SLOT_LONG, 0, 0, n),
				n > 190 ? BAD : 1);
		CU_ASSERT_EQUAL(take_slot(SLOT_LONG, 80, 80, n),
				n > 30 ? BAD : 1);
		/* The repeated head of a body of 100 bytes. */
		CU_ASSERT_EQUAL(take_slot(SLOT_LONG | SLOT_ARENA, 0, 0, n),
				n > 100 ? BAD : 1);
	}
}

/* What the first slot may hold before its message, and what in a later lap. */
static void commit_words_that_cannot_be(void)
{
	struct avp_slot_view v;
	struct scene s;

	for (uint64_t word = 0; word < 64; word++) {
		open_scene(&s, 20);
		atomic_store(&slot_of(&s, 20)->sequence, word);
		CU_ASSERT_EQUAL(take(&s, &v), !word ? 0 : word == 20 ? 1 : BAD);
		close_scene(&s);
	}
	for (uint64_t word = 0; word < 64; word++) {
		struct avp_slot_put put = {0};

		open_scene(&s, 20);
		for (int i = 0; i < SLOTS; i++) {
			avp_lane_put(&s.liar, &put, false);
			CU_ASSERT_EQUAL(take(&s, &v), 1);
		}
		atomic_store(&slot_of(&s, 36)->sequence, word);
		CU_ASSERT_EQUAL(take(&s, &v), word == 20   ? 0
					      : word == 36 ? 1
							   : BAD);
		close_scene(&s);
	}
	open_scene(&s, 1);
	atomic_store(&slot_of(&s, 1)->sequence, UINT64_MAX);
	CU_ASSERT_EQUAL(take(&s, &v), BAD);
	close_scene(&s);
}

static bool inside(const struct avp_slot_view *v, const void *p, size_t bytes)
{
	const uint8_t *at = p;

	return at >= v->copy && at + bytes <= v->copy + sizeof(v->copy);
}

/* Random bytes under a good commit word: what passes lies inside the copy. */
static void random_slots(void)
{
	struct avp_slot_view v;
	struct scene s;
	unsigned passed = 0, outside = 0;

	srand(1);
	open_scene(&s, 1);
	for (uint64_t round = 0; round < 200000; round++) {
		struct slot *slot = slot_of(&s, 1);
		uint8_t *bytes = (uint8_t *)slot;

		for (unsigned i = 8; i < SLOT_BYTES; i += 1 + round % 7)
			bytes[i] = (uint8_t)rand();
		slot->flags &= (uint8_t)(round & 16 ? 0xff : SLOT_FLAGS);
		if (round & 32)
			bytes[round & 1 ? 32 : 64] &= 0x3f;
		atomic_store(&slot->sequence, 1);
		s.view.next = 1;
		if (avp_lane_take(&s.view, &v, NULL) != 1)
			continue;
		passed++;
		outside += !inside(&v, v.task, v.task_bytes) ||
			   !inside(&v, v.session, v.session_bytes) ||
			   !inside(&v, v.inline_data, v.inline_bytes) ||
			   (v.message_id && !inside(&v, v.message_id, 16)) ||
			   v.segment > AVP_LANE_SEGMENT_MAX;
	}
	CU_ASSERT(passed > 1000);
	CU_ASSERT_EQUAL(outside, 0);
	close_scene(&s);
}

/* ---- acknowledgements --------------------------------------------------- */

static int ack_entry(uint64_t lap, uint64_t status, uint64_t sequence)
{
	struct scene s;
	_Atomic uint64_t *ring;
	uint64_t low = 77;
	enum avp_ack got_status;
	int got;

	open_scene(&s, 1);
	ring = (void *)((uint8_t *)s.liar.segment.base + LANE_ACKS_OFF);
	atomic_store(&ring[0], lap << 56 | status << 48 | sequence);
	got = avp_lane_ack_take(&s.view, &low, &got_status);
	CU_ASSERT_EQUAL(low, got == 1 ? sequence : 77);
	CU_ASSERT(got != 1 || got_status == status);
	close_scene(&s);
	return got;
}

static void ack_entries_that_lie(void)
{
	for (unsigned status = 0; status < 256; status++)
		CU_ASSERT_EQUAL(ack_entry(1, status, 5),
				status >= 1 && status <= 5 ? 1 : BAD);
	CU_ASSERT_EQUAL(ack_entry(0, 1, 5), 0);
	for (unsigned lap = 2; lap < 256; lap++)
		CU_ASSERT_EQUAL(ack_entry(lap, 1, 5), BAD);
	CU_ASSERT_EQUAL(ack_entry(1, 1, ACK_SEQUENCE_MASK), 1);
}

/* A ring that was overrun by a whole lap is the owner's violation. */
static void overrun_ack_ring(void)
{
	struct scene s;
	uint64_t low;
	enum avp_ack status;

	open_scene(&s, 1);
	for (int i = 0; i < 2 * SLOTS; i++)
		avp_lane_ack_one(&s.liar, 1, AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_lane_ack_take(&s.view, &low, &status), 1);
	avp_lane_ack_one(&s.liar, 1, AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_lane_ack_take(&s.view, &low, &status), 1);
	avp_lane_ack_one(&s.liar, 1, AVP_ACK_ACCEPTED);
	avp_lane_ack_one(&s.liar, 1, AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_lane_ack_take(&s.view, &low, &status), BAD);
	close_scene(&s);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(header_lies),
		TEST(geometry_beyond_the_segment),
		TEST(not_a_lane),
		TEST(slot_lies),
		TEST(commit_words_that_cannot_be),
		TEST(random_slots),
		TEST(ack_entries_that_lie),
		TEST(overrun_ack_ring),
		{0},
	};

	return test_main("lane_lies", tests);
}

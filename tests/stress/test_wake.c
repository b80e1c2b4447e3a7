/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sleep/wake protocol as a litmus test: in thousands of independent places,
 * which two threads pass at about the same time, one arms its word and looks,
 * the other publishes and loads the word. In no place may both miss the other.
 * With one order weakened, store buffers show within a second.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ring/wake.h"
#include "tests/harness.h"

#include <avp/ring.h>

#define PLACES 32768
#ifdef __SANITIZE_THREAD__ /* which adds fences of its own: no litmus */
#define ROUNDS 4
#else
#define ROUNDS 60
#endif

struct place {
	_Alignas(64) _Atomic uint32_t word;
	bool saw, rang;
};

static struct place place[PLACES];
static struct avp_lane_tx tx, own;
static struct avp_lane_rx rx;
static _Atomic unsigned at_gate;

/* Both threads leave together, give or take a cache miss. */
static void gate(unsigned round)
{
	atomic_fetch_add(&at_gate, 1);
	while (atomic_load(&at_gate) < 2 * round)
		;
}

static void put(struct place *p)
{
	struct avp_slot_put message = {0};
	uint32_t rung = 0;

	avp_lane_put(&tx, &message, true);
	p->rang = avp__wake_due(&p->word, &rung);
}

static void look_for_message(struct place *p)
{
	avp__wake_arm(&p->word);
	p->saw = avp_lane_ready(&rx);
	rx.next++; /* as if it was taken */
}

static void acknowledge(struct place *p)
{
	uint64_t next = tx.accepted + 1;
	uint32_t rung = 0;

	avp_lane_ack_below(&tx, next, next, next);
	avp_lane_ack_flush(&tx);
	p->rang = avp__wake_due(&p->word, &rung);
}

static void look_for_ack(struct place *p)
{
	struct avp_acks acks;

	avp__wake_arm(&p->word);
	avp_lane_acks_load(&rx, &acks);
	p->saw = acks.accepted > (uint64_t)(p - place) + 1;
}

/* A flush that only says that a slot was read: room, and nothing settled. */
static void consume(struct place *p)
{
	uint64_t next = (uint64_t)(p - place) + 2;
	uint32_t rung = 0;

	avp_lane_ack_below(&tx, 1, 1, next);
	avp_lane_ack_flush(&tx);
	p->rang = avp__wake_due(&p->word, &rung);
}

static void look_for_room(struct place *p)
{
	struct avp_acks acks;

	avp__wake_arm(&p->word);
	avp_lane_acks_load(&rx, &acks);
	p->saw = acks.consumed > (uint64_t)(p - place) + 1;
}

/* A flush of an ack ring's entry alone: the words stay as they are. */
static void acknowledge_one(struct place *p)
{
	uint32_t rung = 0;

	avp_lane_ack_one(&tx, (uint64_t)(p - place), AVP_ACK_ACCEPTED);
	avp_lane_ack_flush(&tx);
	p->rang = avp__wake_due(&p->word, &rung);
}

static void look_for_entry(struct place *p)
{
	struct avp_acks acks;
	uint64_t sequence;
	enum avp_ack status;

	avp__wake_arm(&p->word);
	avp_lane_acks_load(&rx, &acks);
	p->saw = avp_lane_ack_take(&rx, &sequence, &status) == 1;
	if (!p->saw)
		rx.ack_next++;
}

struct walk {
	void (*step)(struct place *);
	unsigned round;
};

static void *walk(void *arg)
{
	struct walk *w = arg;

	gate(w->round);
	for (unsigned i = 0; i < PLACES; i++)
		w->step(&place[i]);
	return NULL;
}

/* One pass of both over fresh places; how many missed each other? */
static unsigned missed(void (*publish)(struct place *),
		       void (*look)(struct place *), unsigned round,
		       unsigned *both)
{
	const struct avp_lane_options o = {.size = sizeof(o), .slots = PLACES};
	struct walk publisher = {publish, round}, looker = {look, round};
	struct avp_segment import;
	pthread_t thread;
	unsigned count = 0;

	memset(place, 0, sizeof(place));
	CU_ASSERT_FATAL(!avp_lane_init(&tx, &o, NULL) &&
			!avp_lane_init(&own, &o, NULL));
	CU_ASSERT_FATAL(!avp_lane_attach(&rx, &own, dup(tx.segment.fd), NULL));
	avp_lane_ack_below(&tx, 1, 1, 1);
	import = rx.segment; /* for TSan: see test_lane_threads.c */
	rx.slots = tx.slots;
	rx.acks = (const void *)((const uint8_t *)tx.segment.base +
				 ((const uint8_t *)rx.acks -
				  (const uint8_t *)import.base));
	rx.segment.base = tx.segment.base;
	pthread_create(&thread, NULL, walk, &publisher);
	walk(&looker);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < PLACES; i++) {
		count += !place[i].saw && !place[i].rang;
		*both += place[i].saw && place[i].rang;
	}
	avp_segment_close(&import);
	avp_lane_fini(&tx);
	avp_lane_fini(&own);
	return count;
}

static void litmus(void (*publish)(struct place *),
		   void (*look)(struct place *))
{
	unsigned lost = 0, both = 0;

	atomic_store(&at_gate, 0);
	for (unsigned round = 1; round <= ROUNDS; round++)
		lost += missed(publish, look, round, &both);
	printf("%u places: %u lost, %u seen from both sides\n", ROUNDS * PLACES,
	       lost, both);
	CU_ASSERT_EQUAL(lost, 0);
}

static void message(void)
{
	litmus(put, look_for_message);
}

static void ack_word(void)
{
	litmus(acknowledge, look_for_ack);
}

static void room(void)
{
	litmus(consume, look_for_room);
}

static void ack_entry(void)
{
	litmus(acknowledge_one, look_for_entry);
}

/* Arming again without disarming is a new sleep, for which a bell is due. */
static void each_arming_is_new(void)
{
	_Atomic uint32_t word = 0;
	uint32_t rung = 0;

	CU_ASSERT_FALSE(avp__wake_due(&word, &rung));
	avp__wake_arm(&word);
	CU_ASSERT_TRUE(avp__wake_due(&word, &rung));
	CU_ASSERT_FALSE(avp__wake_due(&word, &rung));
	avp__wake_arm(&word);
	CU_ASSERT_TRUE(avp__wake_due(&word, &rung));
	avp__wake_disarm(&word);
	avp__wake_disarm(&word);
	CU_ASSERT_FALSE(avp__wake_due(&word, &rung));
	atomic_store(&word, UINT32_MAX); /* asleep, and the count wraps */
	CU_ASSERT_TRUE(avp__wake_due(&word, &rung));
	avp__wake_disarm(&word);
	CU_ASSERT_FALSE(avp__wake_due(&word, &rung));
	avp__wake_arm(&word);
	CU_ASSERT_EQUAL(atomic_load(&word), 1);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(message),	 TEST(ack_word),	   TEST(room),
		TEST(ack_entry), TEST(each_arming_is_new), {0},
	};

	return test_main("wake", tests);
}

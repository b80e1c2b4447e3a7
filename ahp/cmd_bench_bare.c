/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baselines: what the machine can do with the same cache lines and no
 * library. Polling is a load and `pause`, as in the library. Every trip is timed
 * as the library's is: from one time stamp to the next.
 */
#include <avp/ring.h>

#include "ahp/cmd_bench.h"

static void wait_word(const _Atomic uint64_t *word, uint64_t value)
{
	/* acquire: pairs with the release of the side that stores it */
	while (atomic_load_explicit(word, memory_order_acquire) != value)
		__builtin_ia32_pause();
}

static void poll_word(const _Atomic uint64_t *word, uint64_t value)
{
	/* acquire: pairs with the release of the side that stores it */
	while (atomic_load_explicit(word, memory_order_acquire) != value)
		continue;
}

/*
 * Each side writes a line of its own and polls the other's; without `pause`, as
 * the published figures of bare exchanges are.
 */
void bench_two_lines(struct bench_side *me, uint64_t trips,
		     struct bench_hist *hist)
{
	_Atomic uint64_t *mine = &me->shared->ping[me->role].word;
	_Atomic uint64_t *theirs = &me->shared->ping[!me->role].word;
	uint64_t last = bench_ticks(), now;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;

		if (me->role)
			poll_word(theirs, n);
		/* release: the exchange of one word needs no more */
		atomic_store_explicit(mine, n, memory_order_release);
		if (me->role)
			continue;
		poll_word(theirs, n);
		now = bench_ticks();
		bench_hist_add(hist, now - last);
		last = now;
	}
}

unsigned bench_slot_lines(const struct bench_side *me)
{
	/* 32 bytes of header, two empty ids, the frame */
	uint64_t frame = me->template.len + me->options->size;

	if (me->loan.handle) /* handed over: a long slot, and its frame's head */
		return (unsigned)((64 + 2 + me->template.len + 63) / 64);
	if (frame + 2 <= AVP_LANE_SMALL_BYTES)
		return (unsigned)((32 + 2 + frame + 63) / 64);
	return 2 + (unsigned)((frame + 63) / 64);
}

static uint8_t *slot_at(struct bench_side *me, unsigned side, uint64_t n)
{
	return me->shared->slots[side] + n % BENCH_SLOTS * BENCH_SLOT;
}

static void send_slot(struct bench_side *me, uint64_t n, uint64_t bytes)
{
	uint8_t *slot = slot_at(me, me->role, n);

	bench_fill(slot + 8, bytes - 8, n);
	/* release: covers the slot's bytes */
	atomic_store_explicit((_Atomic uint64_t *)(void *)slot, n,
			      memory_order_release);
}

static void take_slot(struct bench_side *me, uint64_t n, uint64_t bytes)
{
	uint8_t *slot = slot_at(me, !me->role, n);

	wait_word((_Atomic uint64_t *)(void *)slot, n);
	if (!bench_check(slot + 8, bytes - 8, n))
		bench_die("slot %llu holds something else",
			  (unsigned long long)n);
}

/* As many lines of a slot as a message takes, filled and read. */
void bench_slots(struct bench_side *me, uint64_t trips,
		 struct bench_hist *hist)
{
	uint64_t bytes = bench_slot_lines(me) * 64ull;
	uint64_t last = bench_ticks(), now;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;

		if (me->role)
			take_slot(me, n, bytes);
		send_slot(me, n, bytes);
		if (me->role)
			continue;
		take_slot(me, n, bytes);
		now = bench_ticks();
		bench_hist_add(hist, now - last);
		last = now;
	}
}

/* A payload in one of several buffers, taken in turn, and a word beside. */
void bench_buffers(struct bench_side *me, uint64_t trips,
		   struct bench_hist *hist)
{
	_Atomic uint64_t *mine = &me->shared->ping[me->role].word;
	_Atomic uint64_t *theirs = &me->shared->ping[!me->role].word;
	uint64_t size = me->options->size, last = bench_ticks(), now;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;
		uint64_t at = n % me->buffer_count * me->buffer_stride;

		for (unsigned turn = 0; turn < 2; turn++) {
			if (turn == me->role) {
				bench_fill(me->buffers[me->role] + at, size, n);
				/* release: covers the buffer */
				atomic_store_explicit(mine, n,
						      memory_order_release);
				continue;
			}
			wait_word(theirs, n);
			if (!bench_check(me->buffers[!me->role] + at, size, n))
				bench_die("a buffer holds something else");
		}
		now = bench_ticks();
		if (!me->role)
			bench_hist_add(hist, now - last);
		last = now;
	}
}

/* One way, as fast as slots of that size and a window of that many allow. */
void bench_ring(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	_Atomic uint64_t *taken = &me->shared->taken.word;
	uint64_t bytes = bench_slot_lines(me) * 64ull;
	uint64_t begin = bench_ticks(), first = me->sequence + 1, free = first;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;

		if (me->role) {
			take_slot(me, n, bytes);
			/* release: the slots up to n were read */
			if (n % 32 == 0 || i + 1 == trips)
				atomic_store_explicit(taken, n,
						      memory_order_release);
			continue;
		}
		while (n - free >= BENCH_SLOTS)
			/* acquire: pairs with the release above */
			free = atomic_load_explicit(taken,
						    memory_order_acquire) +
			       1;
		send_slot(me, n, bytes);
	}
	if (me->role)
		return;
	wait_word(taken, me->sequence);
	bench_hist_add(hist, (bench_ticks() - begin) * 16 / trips);
}

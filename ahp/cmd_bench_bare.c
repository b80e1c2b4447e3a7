/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baselines: what the machine can do with the same cache lines and no
 * library. Polling is a load and `pause`, as in the library. Every trip is timed
 * as the library's is: from one time stamp to the next.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* Does the slot only tell where the payload is? */
static bool is_long(const struct bench_side *me)
{
	return me->loan.handle || me->size > BENCH_SLOT_PAYLOAD ||
	       me->kind->part[BENCH_MEASURED].run == bench_fanout;
}

/* Lines of a slot that a message of the bench's takes. */
static unsigned slot_lines(const struct bench_side *me)
{
	/* 32 bytes of header, two empty ids, the frame */
	uint64_t frame = me->template.len + me->size;

	if (is_long(me)) /* a long slot, and the frame's head */
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
	uint64_t bytes = slot_lines(me) * 64ull;
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
	uint64_t size = me->size, last = bench_ticks(), now;

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

/*
 * One way, as fast as slots of that size and a window of that many allow; a long
 * payload lies in one of several buffers, as many as may be on their way.
 */
void bench_ring(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	_Atomic uint64_t *taken = &me->shared->taken.word;
	uint64_t bytes = slot_lines(me) * 64ull;
	uint64_t body = is_long(me) ? me->size : 0;
	uint64_t window = is_long(me) && me->buffer_count < BENCH_SLOTS ?
				  me->buffer_count :
				  BENCH_SLOTS;
	uint64_t often = window < 64 ? 1 : 32;
	uint64_t begin = bench_ticks(), first = me->sequence + 1, free = first;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;
		uint8_t *p = body ? me->buffers[0] + n % me->buffer_count *
						me->buffer_stride :
				    NULL;

		if (me->role) {
			take_slot(me, n, bytes);
			if (!bench_check(p, body, n))
				bench_die("a buffer holds something else");
			/* release: the slots up to n were read */
			if (n % often == 0 || i + 1 == trips)
				atomic_store_explicit(taken, n,
						      memory_order_release);
			continue;
		}
		while (n - free >= window)
			/* acquire: pairs with the release above */
			free = atomic_load_explicit(taken,
						    memory_order_acquire) +
			       1;
		bench_fill(p, body, n);
		send_slot(me, n, bytes);
	}
	if (me->role)
		return;
	wait_word(taken, me->sequence);
	bench_hist_add(hist,
		       (bench_ticks() - begin) * BENCH_SIXTEEN / trips);
}

/* ---- asleep ------------------------------------------------------------------ */

static void sleep_until(_Atomic uint32_t *bell, uint32_t value)
{
	uint32_t now;

	/* acquire: pairs with the release in ring() */
	while ((now = atomic_load_explicit(bell, memory_order_acquire)) !=
	       value)
		syscall(SYS_futex, bell, FUTEX_WAIT, now, NULL, NULL, 0);
}

static void ring(_Atomic uint32_t *bell, uint32_t value)
{
	/* release: the exchange of one word needs no more */
	atomic_store_explicit(bell, value, memory_order_release);
	syscall(SYS_futex, bell, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Both sides sleep in the kernel until the other one wakes them. */
void bench_futex(struct bench_side *me, uint64_t trips,
		 struct bench_hist *hist)
{
	_Atomic uint32_t *bell = me->shared->bell;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t begin = bench_ticks();
		uint32_t n = (uint32_t)++me->sequence;

		if (me->role)
			sleep_until(&bell[0], n);
		ring(&bell[me->role], n);
		if (me->role)
			continue;
		sleep_until(&bell[1], n);
		bench_add_asleep(hist, bench_ticks() - begin);
	}
}

/* ---- one body, many readers ------------------------------------------------------ */

/* A slot to each reader in its own lines, the body once, a word of each back. */
void bench_fanout_bare(struct bench_side *me, uint64_t trips,
		       struct bench_hist *hist)
{
	uint64_t bytes = slot_lines(me) * 64ull;
	unsigned links = me->options->links;
	uint64_t last = bench_ticks(), now;

	for (uint64_t t = 0; t < trips; t++) {
		uint64_t n = me->sequence + 1;
		uint8_t *body = me->buffers[0] +
				n / links % me->buffer_count *
					me->buffer_stride;

		me->sequence += links;
		if (!me->role)
			bench_fill(body, me->size, n);
		for (uint64_t i = n; i < n + links; i++) {
			if (!me->role) {
				send_slot(me, i, bytes);
				continue;
			}
			take_slot(me, i, bytes);
			if (!bench_check(body, me->size, n))
				bench_die("a buffer holds something else");
			send_slot(me, i, 8);
		}
		if (me->role)
			continue;
		for (uint64_t i = n; i < n + links; i++)
			take_slot(me, i, 8);
		now = bench_ticks();
		bench_hist_add(hist, now - last);
		last = now;
	}
}

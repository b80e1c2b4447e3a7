/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sleep/wake protocol. Private to libavp.
 *
 * A waiter word belongs to the process that may sleep and lies in its page,
 * which its peers have mapped read-only. It is even while the owner is awake
 * and odd while it sleeps or is about to; each sleep has a value of its own.
 *
 *	sleeper				producer
 *	S1 word = odd	(seq_cst)	P1 commit word = sequence (seq_cst)
 *	S2 look at every lane		P2 w = word (seq_cst)
 *	S3 sleep if nothing is there	P3 if w is odd and not the one rung
 *	S4 word = even			   last: ring, remember w
 *
 * No wake-up is lost: S1, P1, P2 and the loads of S2 are sequentially
 * consistent, so in their single order either P1 precedes S2, and the sleeper
 * sees the news, or S1 precedes P2, and the producer sees the odd value and
 * rings. The bell is kept until the sleeper looks (a byte in a socket's queue,
 * a completion in its io_uring, or a futex word that has changed: bell.h), so
 * that ringing between S2 and S3 ends S3 at once. And no sleep needs two bells
 * of one producer: while the word has the value that was rung for, the sleeper
 * has not begun to sleep again, since each arming makes a value of its own; it
 * looks at everything after that.
 *
 * For a message P1 is the ordered avp_lane_put(), S2 avp_lane_ready(). For
 * acknowledgements P1 is the last store of avp_lane_ack_flush(), which covers
 * the entries of the ack ring before it, and S2 avp_lane_acks_load(), whose
 * first load is that word, then the ack ring. Fences would do the same; TSan
 * does not know them.
 *
 * The word wraps after 2^31 sleeps, and a producer that last rang just then may
 * take an old value for the one it rang for: one message in 2^31 of such a pair
 * waits for the sleeper's safety time-out.
 */
#ifndef AVP_RING_WAKE_H
#define AVP_RING_WAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* S1. Only the owner calls it; again without S4 it is a new sleep. */
static inline void avp__wake_arm(_Atomic uint32_t *word)
{
	/* relaxed: only the owner writes the word */
	uint32_t value = atomic_load_explicit(word, memory_order_relaxed);

	/* seq_cst: before the loads of S2; pairs with avp__wake_due() */
	atomic_store_explicit(word, (value + 1) | 1, memory_order_seq_cst);
}

/* S4. */
static inline void avp__wake_disarm(_Atomic uint32_t *word)
{
	/* relaxed: only the owner writes the word */
	uint32_t value = atomic_load_explicit(word, memory_order_relaxed);

	if (value & 1)
		/* relaxed: a late reader rings once in vain, no more */
		atomic_store_explicit(word, value + 1, memory_order_relaxed);
}

/* P2 and P3: must the bell be rung? *rung is the caller's, per peer and
 * word. */
static inline bool avp__wake_due(const _Atomic uint32_t *word, uint32_t *rung)
{
	/* seq_cst: pairs with the store in avp__wake_arm(); after P1 */
	uint32_t value = atomic_load_explicit(word, memory_order_seq_cst);

	if (!(value & 1) || value == *rung)
		return false;
	*rung = value;
	return true;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A doorbell through memory: a word in the ringer's own lane that it counts up
 * and wakes as a futex, and that the sleeper's io_uring waits for in its
 * read-only mapping. Private to libavp; the other doorbell, a byte on the
 * link's socket, needs nothing but a watch.
 *
 * Nothing is lost between two sleeps: the kernel compares the word with `seen`
 * when the wait begins, so that a ring which found nobody waiting ends it at
 * once. `seen` is loaded when a ring is told, before the sleeper arms its word
 * (S1 of wake.h) for the sleep that follows: what it swallows was rung for an
 * earlier sleep.
 */
#ifndef AVP_RING_BELL_H
#define AVP_RING_BELL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <avp/ring.h>

/* What one peer rings. Caller's memory, which stays where it is while added. */
struct avp__bell {
	const _Atomic uint32_t *word; /* borrowed: mapped until it is removed */
	/* Called from avp_loop_run(), as that of a watch. */
	void (*rung)(struct avp__bell *bell);
	void *arg;	/* the caller's */
	uint32_t seen;	/* the loop's; a lane's word begins with 0, as this */
	uint32_t place; /* the loop's */
};

/* Can this loop wait for words? io_uring can, from Linux 6.7 on. */
bool avp__loop_has_bells(const struct avp_loop *loop);

/*
 * From now on a change of the word is told. AVP_UNSUPPORTED where
 * avp__loop_has_bells() is false; AVP_NO_MEMORY; AVP_FORKED.
 */
int avp__loop_bell_add(struct avp_loop *loop, struct avp__bell *bell,
		       struct avp_reason *why);
/* The word may be unmapped then. */
void avp__loop_bell_remove(struct avp_loop *loop, struct avp__bell *bell);

/* Rings who waits for the word of our lane: a store and a system call. */
void avp__lane_ring(struct avp_lane_tx *tx);

/* The word of the peer's lane, for a bell. */
const _Atomic uint32_t *avp__lane_bell(const struct avp_lane_rx *rx);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The path of a message through a lane, to be inlined: lane.c makes functions of
 * it, and ahp/, which sends and receives through it, saves a call and a struct
 * in between on each side.
 */
#ifndef AVP_RING_LANE_INLINE_H
#define AVP_RING_LANE_INLINE_H

#include <string.h>

#include <avp/ring.h>

#include "ring/slot.h"

#define LANE_LIKELY(x)	 __builtin_expect(!!(x), 1)
#define LANE_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What is rare must not cost the path registers and stack. */
#define LANE_COLD __attribute__((noinline, cold))

/* ---- writing --------------------------------------------------------------- */

/* The slot of the next message, for whoever knows that the peer has read it. */
static inline struct slot *lane_slot(const struct avp_lane_tx *tx)
{
	return (struct slot *)(void *)(tx->slots +
				       (tx->next & tx->slot_mask) * SLOT_BYTES);
}

/* The slot for the next message, or NULL when the peer has read none of them. */
static inline struct slot *lane_claim(const struct avp_lane_tx *tx)
{
	if (LANE_UNLIKELY(tx->next - tx->consumed > tx->slot_mask))
		return NULL;
	return lane_slot(tx);
}

static inline uint8_t *lane_put_id(uint8_t *p, const char *id, size_t bytes)
{
	*p++ = (uint8_t)bytes;
	if (bytes)
		memcpy(p, id, bytes);
	return p + bytes;
}

/*
 * The bodies of small messages are a few dozen bytes of varying length: two
 * overlapping moves of a fixed size beat a call of memcpy with a variable one.
 */
static inline void lane_copy_short(uint8_t *to, const uint8_t *from, size_t n)
{
	if (n >= 64) {
		for (size_t at = 0; at + 64 < n; at += 64)
			memcpy(to + at, from + at, 64);
		memcpy(to + n - 64, from + n - 64, 64);
	} else if (n >= 32) {
		memcpy(to, from, 32);
		memcpy(to + n - 32, from + n - 32, 32);
	} else if (n >= 16) {
		memcpy(to, from, 16);
		memcpy(to + n - 16, from + n - 16, 16);
	} else {
		for (size_t at = 0; at < n; at++)
			to[at] = from[at];
	}
}

/*
 * Publishes a filled slot; accepted and released are stored here. release: pairs
 * with the acquire in lane_arrived(); covers the slot. seq_cst on demand: ordered
 * before the load of the sleeper's word that the caller makes next (wake.h).
 */
static inline void lane_commit(struct avp_lane_tx *tx, struct slot *slot,
			       bool ordered)
{
	uint64_t sequence = tx->next;

	slot->accepted = (uint32_t)tx->accepted;
	slot->released = (uint32_t)tx->released;
	if (ordered)
		atomic_store_explicit(&slot->sequence, sequence,
				      memory_order_seq_cst);
	else
		atomic_store_explicit(&slot->sequence, sequence,
				      memory_order_release);
	tx->next = sequence + 1;
}

/* ---- reading --------------------------------------------------------------- */

static inline const struct slot *lane_next(const struct avp_lane_rx *rx)
{
	return (const void *)(rx->slots +
			      (rx->next & rx->slot_mask) * SLOT_BYTES);
}

/* The commit word of the slot that is expected next. */
static inline uint64_t lane_arrived(const struct avp_lane_rx *rx)
{
	/* acquire: pairs with the release in lane_commit(); covers the slot */
	return atomic_load_explicit(&lane_next(rx)->sequence,
				    memory_order_acquire);
}

#define LANE_AHEAD 4 /* slots: covers a line's way between two cores */

static inline void lane_prefetch_ahead(const struct avp_lane_rx *rx)
{
	const uint8_t *slot = rx->slots + ((rx->next + LANE_AHEAD) &
					   rx->slot_mask) * SLOT_BYTES;

	__builtin_prefetch(slot);
	__builtin_prefetch(slot + LINE);
}

/* The second line of the slot that has arrived: it is on its way while the first
 * is looked at. */
static inline void lane_prefetch_rest(const struct avp_lane_rx *rx)
{
	__builtin_prefetch((const uint8_t *)lane_next(rx) + LINE);
}

/* How far a slot reaches, by what its copied first two lines say. */
static inline unsigned lane_reach(const uint8_t *copy)
{
	const struct slot *slot = (const void *)copy;
	unsigned task = copy[SLOT_SMALL_BYTES];

	if (LANE_UNLIKELY(slot->flags & SLOT_LONG))
		return SLOT_BYTES;
	if (LANE_UNLIKELY(task > AVP_LANE_ID_BYTES))
		return 0; /* lane_parse() refuses it */
	return SLOT_SMALL_BYTES + 2 + task +
	       copy[SLOT_SMALL_BYTES + 1 + task] + slot->inline_bytes;
}

/* The first half of the slot that has arrived, and the second, into 256 bytes of
 * private memory. */
static inline void lane_copy_half(const struct avp_lane_rx *rx, uint8_t *copy)
{
	memcpy(copy, lane_next(rx), 2 * LINE);
}

static inline void lane_copy_rest(const struct avp_lane_rx *rx, uint8_t *copy)
{
	memcpy(copy + 2 * LINE, (const uint8_t *)lane_next(rx) + 2 * LINE,
	       2 * LINE);
}

/* As much of it as is used. */
static inline void lane_copy(const struct avp_lane_rx *rx, uint8_t *copy)
{
	lane_copy_half(rx, copy);
	if (LANE_UNLIKELY(lane_reach(copy) > 2 * LINE))
		lane_copy_rest(rx, copy);
}

/* What lane_parse() found wrong. */
enum lane_fault {
	LANE_OK,
	LANE_BAD_FLAGS,
	LANE_BAD_TASK,
	LANE_BAD_SESSION,
	LANE_BAD_INLINE,
	LANE_BAD_BODY
};

/* Checks a private copy and points the view's members into it. */
static inline enum lane_fault lane_parse(const uint8_t *copy,
					 struct avp_slot_view *v)
{
	const struct slot *slot = (const void *)copy;
	uint8_t flags = slot->flags;
	unsigned head = flags & SLOT_LONG ? SLOT_LONG_BYTES : SLOT_SMALL_BYTES;
	unsigned task = copy[head], session;

	if (LANE_UNLIKELY(flags & ~SLOT_FLAGS) ||
	    LANE_UNLIKELY((flags & (SLOT_LONG | SLOT_ARENA)) == SLOT_ARENA))
		return LANE_BAD_FLAGS;
	if (LANE_UNLIKELY(task > AVP_LANE_ID_BYTES))
		return LANE_BAD_TASK;
	session = copy[head + 1 + task];
	if (LANE_UNLIKELY(session > AVP_LANE_ID_BYTES))
		return LANE_BAD_SESSION;
	if (LANE_UNLIKELY(head + 2 + task + session + slot->inline_bytes >
			  SLOT_BYTES))
		return LANE_BAD_INLINE;
	v->task = (const char *)copy + head + 1;
	v->task_bytes = (uint8_t)task;
	v->session = v->task + task + 1;
	v->session_bytes = (uint8_t)session;
	v->inline_data = (const uint8_t *)v->session + session;
	v->inline_bytes = slot->inline_bytes;
	v->long_form = flags & SLOT_LONG;
	v->in_arena = flags & SLOT_ARENA;
	v->redelivered = flags & SLOT_REDELIVERED;
	v->prompt = flags & SLOT_PROMPT;
	v->message_id = v->long_form ? slot->message_id : NULL;
	v->body_bytes = slot->inline_bytes;
	v->accepted = slot->accepted;
	v->released = slot->released;
	v->sent_ms = slot->sent_ms;
	v->expiry_ms = slot->expiry_ms;
	v->token_limit = slot->token_limit;
	v->method = slot->method;
	v->kind = slot->kind;
	v->segment = 0;
	v->offset = 0;
	if (!v->in_arena)
		return LANE_OK;
	v->segment = (uint32_t)(slot->where >> 40);
	v->offset = slot->where & AVP_LANE_OFFSET_MAX;
	v->body_bytes = slot->body_bytes;
	return v->inline_bytes > v->body_bytes ? LANE_BAD_BODY : LANE_OK;
}

/*
 * AVP_POISONED with what is wrong; and 0 for a commit word that is only old.
 * Both are in lane.c, off the path.
 */
int avp__lane_fault(const struct avp_lane_rx *rx, enum lane_fault fault,
		    const uint8_t *copy, struct avp_reason *why);
int avp__lane_not_ready(const struct avp_lane_rx *rx, uint64_t found,
			struct avp_reason *why);

#endif

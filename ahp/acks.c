/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Acknowledgements of a link, both ways: what the peer says of our messages, and
 * what we owe it for its own.
 *
 * What is owed is kept in two lists in order of sequence, one for acceptance and
 * one for release. The heads of the lists are the cumulative words; paying a debt
 * that is not at the head writes an entry into the ack ring. While nothing is
 * owed, which is the rule for short messages, the lists are not touched.
 */
#include <stdlib.h>

#include "ahp/agent_internal.h"
#include "ring/lane_inline.h"
#include "ring/ledger_inline.h"
#include "ring/wake.h"

/* ---- the peer's acknowledgements ----------------------------------------- */

static bool poisoned(struct ahp__link *link, const char *what)
{
	struct avp_reason why;

	avp__fail(&why, AVP_POISONED, "it acknowledges %s", what);
	ahp__link_poison(link, &why);
	return false;
}

static bool drain_ring(struct ahp__link *link)
{
	uint64_t sequence;
	enum avp_ack status;
	int got;

	/* Bounded: a cell is taken once a lap, and only the peer can fill it;
	 * one that writes for ever is cut off after a lap. */
	for (uint64_t n = 0; n <= link->rx.ack_mask; n++) {
		got = avp_lane_ack_take(&link->rx, &sequence, &status);
		if (!got)
			return true;
		if (got < 0 ||
		    avp_ledger_ack_one(link->ledger, sequence, status))
			return poisoned(link, "what was not sent");
	}
	return true;
}

void ahp__acks_room(struct ahp__link *link)
{
	uint64_t room = 0, next = link->tx.next, oldest = link->tx.consumed;
	const struct avp_ledger *l = link->ledger;

	if (link->state == LINK_UP && !link->keeps_out && !link->queued && l) {
		/* Slots of reliable messages are kept until these are settled:
		 * ahp__retry_before(). */
		if (link->deadline_ms && l->accepted < oldest)
			oldest = l->accepted;
		if (next - oldest <= link->tx.slot_mask)
			room = link->tx.slot_mask + 1 - (next - oldest);
		if (room > ledger_plain_room(l))
			room = ledger_plain_room(l);
	}
	link->plain_room = (uint32_t)room;
}

bool ahp__acks_enter(struct ahp__link *link)
{
	if (!link->heard)
		return true;
	link->heard = false;
	if (!link->ledger)
		return true; /* it has hung up, and that was entered then */
	if (!drain_ring(link))
		return false;
	if (avp_ledger_acks_low(link->ledger, link->heard_accepted,
				link->heard_released))
		return poisoned(link, "more than was sent");
	avp_lane_consumed(&link->tx, avp_ledger_accepted(link->ledger));
	ahp__acks_room(link);
	return true;
}

bool ahp__acks_read(struct ahp__link *link)
{
	struct avp_acks acks;

	/* The words first, then the ring: what they pass is then in it. */
	avp_lane_acks_load(&link->rx, &acks);
	if (!ahp__acks_enter(link) || !drain_ring(link))
		return false;
	if (avp_ledger_acks(link->ledger, acks.accepted, acks.released))
		return poisoned(link, "more than was sent");
	avp_lane_consumed(&link->tx, avp_ledger_accepted(link->ledger));
	avp_lane_consumed(&link->tx, acks.consumed);
	ahp__acks_room(link);
	return true;
}

/* ---- ours ------------------------------------------------------------------ */

void ahp__acks_flush(struct ahp__link *link)
{
	link->unflushed = 0;
	if (!avp_lane_ack_flush(&link->tx) || !link->peer_sleeps)
		return;
	if (avp__wake_due(&link->page->space, &link->rung_space))
		ahp__link_ring(link);
}

static bool nothing_owed(const struct ahp__link *link, unsigned owed)
{
	return !link->held || !link->held[0].next[owed];
}

/* The lists' heads, as cumulative words. */
static void move_words(struct ahp__link *link)
{
	uint64_t next = link->rx.next, word[2];

	for (unsigned owed = 0; owed < 2; owed++)
		word[owed] = nothing_owed(link, owed) ?
				     next :
				     link->held[link->held[0].next[owed]]
					     .sequence;
	avp_lane_ack_below(&link->tx, word[OWED_ACCEPT], word[OWED_RELEASE],
			   next);
}

/* The free ones are chained by next[0]; 0 ends the chain and heads the lists. */
static bool more_held(struct ahp__link *link)
{
	uint32_t room = link->held_room ? 2 * link->held_room : 64;
	struct ahp__held *held;

	if (link->held_room > link->rx.window)
		return false; /* more than may be outstanding */
	held = realloc(link->held, room * sizeof(*held));
	if (!held)
		return false;
	if (!link->held)
		held[0] = (struct ahp__held){ 0 };
	for (uint32_t i = link->held_room ? link->held_room : 1; i < room; i++)
		held[i].next[0] = i + 1 < room ? i + 1 : 0;
	link->held_free = link->held_room ? link->held_room : 1;
	link->held = held;
	link->held_room = room;
	return true;
}

static void append(struct ahp__held *held, uint32_t i, unsigned owed)
{
	uint32_t last = held[0].before[owed];

	held[i].before[owed] = last;
	held[i].next[owed] = 0;
	held[last].next[owed] = i;
	held[0].before[owed] = i;
}

static void unlink_held(struct ahp__held *held, uint32_t i, unsigned owed)
{
	held[held[i].before[owed]].next[owed] = held[i].next[owed];
	held[held[i].next[owed]].before[owed] = held[i].before[owed];
}

static inline void owe(struct ahp__link *link, uint32_t i, unsigned owed)
{
	append(link->held, i, owed);
	link->owed[owed]++;
}

/* A free place, of which there is one. */
static inline uint32_t take_place(struct ahp__link *link, uint64_t sequence,
				  bool accept, bool release)
{
	uint32_t i = link->held_free;
	struct ahp__held *held = &link->held[i];

	link->held_free = held->next[0];
	held->sequence = sequence;
	held->accept = accept;
	held->release = release;
	held->twin = 0;
	return i;
}

static int hold(struct ahp__link *link, uint64_t sequence, bool accept,
		bool release, uint32_t *out)
{
	if (!link->held_free && !more_held(link))
		return AVP_NO_MEMORY;
	*out = take_place(link, sequence, accept, release);
	if (accept)
		owe(link, *out, OWED_ACCEPT);
	if (release)
		owe(link, *out, OWED_RELEASE);
	return 0;
}

static void give_back(struct ahp__link *link, uint32_t i)
{
	link->held[i].next[0] = link->held_free;
	link->held_free = i;
}

uint32_t ahp__acks_lent(struct ahp__link *link, uint64_t sequence)
{
	uint32_t i = take_place(link, sequence, false, true);

	owe(link, i, OWED_RELEASE);
	return i;
}

bool ahp__acks_return(struct ahp__link *link, uint32_t i)
{
	struct ahp__held *held = link->held;
	uint32_t next = held[i].next[OWED_RELEASE];

	if (link->state != LINK_UP || held[i].accept || !held[i].release ||
	    held[0].next[OWED_RELEASE] != i)
		return false;
	held[0].next[OWED_RELEASE] = next;
	held[next].before[OWED_RELEASE] = 0;
	held[i].release = false;
	give_back(link, i);
	link->owed[OWED_RELEASE]--;
	link->views--;
	link->tx.released = next ? held[next].sequence : link->rx.next;
	link->unflushed++;
	ahp__unsettle(link);
	if (link->unflushed >= link->flush_every)
		ahp__acks_flush(link);
	return true;
}

int ahp__acks_take(struct ahp__link *link, uint64_t sequence, bool accept,
		   bool release, uint32_t *held)
{
	*held = 0;
	if (!accept && !nothing_owed(link, OWED_ACCEPT))
		avp_lane_ack_one(&link->tx, sequence, AVP_ACK_ACCEPTED);
	if (accept || release) {
		int error = hold(link, sequence, accept, release, held);

		if (error)
			return error;
	}
	move_words(link);
	link->unflushed++;
	ahp__unsettle(link);
	return 0;
}

void ahp__acks_pay(struct ahp__link *link, uint32_t i, unsigned owed,
		   enum avp_ack status)
{
	struct ahp__held *held = link->held;
	bool first = held[0].next[owed] == i;
	bool up = link->state == LINK_UP; /* else nobody reads it any more */

	if (up && (!first || (owed == OWED_ACCEPT &&
			      status != AVP_ACK_ACCEPTED)))
		avp_lane_ack_one(&link->tx, held[i].sequence, status);
	unlink_held(held, i, owed);
	link->owed[owed]--;
	if (owed == OWED_ACCEPT)
		held[i].accept = false;
	else
		held[i].release = false;
	if (!held[i].accept && !held[i].release)
		give_back(link, i);
	if (!up)
		return;
	move_words(link);
	link->unflushed++;
	ahp__unsettle(link);
}

void ahp__acks_refuse(struct ahp__link *link, uint64_t sequence,
		      enum avp_ack status, bool lent)
{
	avp_lane_ack_one(&link->tx, sequence, status);
	if (lent && !nothing_owed(link, OWED_RELEASE))
		avp_lane_ack_one(&link->tx, sequence, AVP_ACK_RELEASED);
	move_words(link);
	link->unflushed++;
	ahp__unsettle(link);
}

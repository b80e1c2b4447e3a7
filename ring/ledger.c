/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of outstanding messages: what the sender knows, against which the
 * peer's acknowledgements are checked.
 *
 * Entries lie in a ring, by sequence. A message that is still outstanding when
 * its place is needed again (its reader works on it for minutes while thousands
 * of others pass) moves to the list of stragglers; there are at most `window` of
 * both together.
 *
 * Plain messages, which are most, have no entry: what is not below `accepted`,
 * and has neither entry nor straggler, is plain and outstanding. So one costs two
 * increments when it is added, and a run of them a few instructions when a
 * cumulative word passes it. A plain message gets an entry when it is settled out
 * of order, and becomes a straggler as the others do.
 */
#include <stdlib.h>

#include <avp/ring.h>

#include "ring/ledger_inline.h"
#include "ring/slot.h"

enum {
	LIVE = LEDGER_LIVE,
	FREED = LEDGER_FREED,
	GONE = 0x40,   /* was outstanding when its link ended */
	STATUS = 0x0f, /* enum avp_ack once settled */
};

int avp_ledger_new(struct avp_ledger **out, uint32_t window,
		   uint64_t first_sequence, avp_ledger_news *news, void *arg)
{
	struct avp_ledger *l;
	uint64_t size = 16;

	if (!window || window > LANE_MAX_SLOTS || !first_sequence ||
	    first_sequence > LANE_MAX_FIRST)
		return AVP_USAGE;
	while (size < 2ull * window)
		size *= 2;
	l = calloc(1, sizeof(*l) + size * sizeof(*l->ring));
	if (!l)
		return AVP_NO_MEMORY;
	l->straggler = calloc(window, sizeof(*l->straggler));
	if (!l->straggler) {
		free(l);
		return AVP_NO_MEMORY;
	}
	l->mask = size - 1;
	l->window = window;
	l->first = l->next = l->accepted = l->released = first_sequence;
	l->entries_end = first_sequence;
	l->news = news;
	l->arg = arg;
	*out = l;
	return 0;
}

void avp_ledger_free(struct avp_ledger *l)
{
	if (l)
		free(l->straggler);
	free(l);
}

bool avp_ledger_has_room(const struct avp_ledger *l)
{
	return l->live < l->window;
}

uint32_t avp_ledger_outstanding(const struct avp_ledger *l)
{
	return l->live;
}

uint64_t avp_ledger_accepted(const struct avp_ledger *l)
{
	return l->accepted;
}

static struct avp__ledger_entry *place(const struct avp_ledger *l,
				       uint64_t sequence)
{
	return (struct avp__ledger_entry *)&l->ring[sequence & l->mask];
}

static struct avp__ledger_entry *find_in_ring(const struct avp_ledger *l,
					      uint64_t sequence)
{
	struct avp__ledger_entry *e = place(l, sequence);

	return e->sequence == sequence && e->state ? e : NULL;
}

static struct avp__ledger_entry *find(const struct avp_ledger *l,
				      uint64_t sequence)
{
	struct avp__ledger_entry *e = find_in_ring(l, sequence);

	for (uint32_t i = 0; !e && i < l->stragglers; i++)
		if (l->straggler[i].sequence == sequence)
			e = &l->straggler[i];
	return e;
}

/* Sent, and not so long ago that its place was needed again. */
static bool in_ring(const struct avp_ledger *l, uint64_t sequence)
{
	uint64_t back = l->next - sequence;

	return back && back <= l->mask + 1 && back <= l->next - l->first;
}

/* Of a message in the ring without an entry: is it outstanding? */
static bool plain_is_live(const struct avp_ledger *l, uint64_t sequence)
{
	return sequence - l->accepted < l->next - l->accepted && !l->drained;
}

/* The place that the next message takes. */
static void make_place(struct avp_ledger *l)
{
	uint64_t old = l->next - l->mask - 1;
	struct avp__ledger_entry *e = place(l, l->next);

	if (!in_ring(l, old))
		return;
	if (e->sequence != old || !e->state) {
		if (!plain_is_live(l, old))
			return;
		*e = (struct avp__ledger_entry){old, 0, LIVE | FREED};
	}
	if (e->state & LIVE)
		l->straggler[l->stragglers++] = *e;
	e->state = 0;
}

void avp_ledger_add_plain(struct avp_ledger *l)
{
	if (l->next - ledger_low(l) > l->mask)
		make_place(l);
	ledger_add_plain(l, 1);
}

void avp_ledger_add(struct avp_ledger *l, uint64_t sequence, uint64_t cookie,
		    bool lent)
{
	avp_ledger_add_plain(l);
	*place(l, sequence) = (struct avp__ledger_entry){
		sequence, cookie, lent ? LIVE : LIVE | FREED};
	l->entries_end = l->next;
}

uint64_t *avp_ledger_cookie(struct avp_ledger *l, uint64_t sequence)
{
	struct avp__ledger_entry *e = find(l, sequence);

	return e && e->state & LIVE && !(e->state & STATUS) ? &e->cookie : NULL;
}

static bool is_straggler(const struct avp_ledger *l,
			 const struct avp__ledger_entry *e)
{
	return e >= l->straggler && e < l->straggler + l->window;
}

static void finish(struct avp_ledger *l, struct avp__ledger_entry *e)
{
	l->live--;
	e->state &= ~(uint64_t)LIVE;
	if (is_straggler(l, e)) {
		struct avp__ledger_entry *end = l->straggler + --l->stragglers;

		l->late[l->late_count++ % LEDGER_LATE] = *e;
		for (; e < end; e++)
			*e = e[1];
	}
}

static void settle(struct avp_ledger *l, struct avp__ledger_entry *e,
		   enum avp_ack status)
{
	if (e->state & STATUS)
		return;
	e->state |= status;
	l->news(l->arg, e->sequence, e->cookie, status, 1);
	if (e->state & FREED)
		finish(l, e);
}

static void release(struct avp_ledger *l, struct avp__ledger_entry *e)
{
	if (e->state & FREED)
		return;
	e->state |= FREED;
	l->news(l->arg, e->sequence, e->cookie, AVP_ACK_RELEASED, 1);
	if (e->state & STATUS)
		finish(l, e);
}

static void sweep_stragglers(struct avp_ledger *l, uint64_t from, uint64_t upto,
			     bool released)
{
	for (uint32_t i = 0; i < l->stragglers;) {
		struct avp__ledger_entry *e = &l->straggler[i];
		uint32_t before = l->stragglers;

		if (e->sequence - from < upto - from) {
			if (released)
				release(l, e);
			else
				settle(l, e, AVP_ACK_ACCEPTED);
		}
		i += before == l->stragglers;
	}
}

/*
 * Everything from `from` to below `upto` has happened. What is older than the
 * ring can only be a straggler, so the walk is bounded by ring and stragglers,
 * whatever a peer claims.
 */
static void sweep(struct avp_ledger *l, uint64_t from, uint64_t upto,
		  bool released)
{
	uint64_t oldest = l->next - l->mask - 1, plain = 0;

	if (l->stragglers)
		sweep_stragglers(l, from, upto, released);
	if (l->next - from > l->mask + 1)
		from = l->next - upto > l->mask + 1 ? upto : oldest;
	for (; from != upto && l->next - from > l->next - l->entries_end;
	     from++) {
		struct avp__ledger_entry *e = find_in_ring(l, from);

		if (!e)
			plain++;
		else if (e->state & LIVE && released)
			release(l, e);
		else if (e->state & LIVE)
			settle(l, e, AVP_ACK_ACCEPTED);
	}
	plain += upto - from;
	if (released || !plain)
		return;
	l->live -= (uint32_t)plain;
	l->news(l->arg, upto - 1, 0, AVP_ACK_ACCEPTED, (uint32_t)plain);
}

int avp_ledger_acks(struct avp_ledger *l, uint64_t accepted, uint64_t released)
{
	int64_t accepts = (int64_t)(accepted - l->accepted);
	int64_t releases = (int64_t)(released - l->released);

	if (accepts > (int64_t)(l->next - l->accepted) ||
	    releases > (int64_t)(l->next - l->released))
		return AVP_POISONED;
	if (accepts > 0) {
		l->accepted = accepted;
		sweep(l, accepted - (uint64_t)accepts, accepted, false);
	}
	if (releases > 0) {
		l->released = released;
		sweep(l, released - (uint64_t)releases, released, true);
	}
	return 0;
}

/*
 * A low word is a distance of less than 2^31 ahead of what we know, or nothing:
 * when a straggler has held the word back for longer, the ack line tells.
 */
static uint64_t widen(uint64_t known, uint32_t low)
{
	uint32_t ahead = low - (uint32_t)known;

	return ahead < 1u << 31 ? known + ahead : known;
}

int avp_ledger_acks_low(struct avp_ledger *l, uint32_t accepted,
			uint32_t released)
{
	return avp_ledger_acks(l, widen(l->accepted, accepted),
			       widen(l->released, released));
}

int avp_ledger_ack_one(struct avp_ledger *l, uint64_t sequence_low,
		       enum avp_ack status)
{
	uint64_t back = (l->next - 1 - sequence_low) & ACK_SEQUENCE_MASK;
	uint64_t sequence = l->next - 1 - back;
	struct avp__ledger_entry *e;

	if (back >= l->next - l->first)
		return AVP_POISONED;
	e = find(l, sequence);
	if (!e && in_ring(l, sequence) && plain_is_live(l, sequence)) {
		if (status == AVP_ACK_RELEASED)
			return 0;
		e = place(l, sequence);
		*e = (struct avp__ledger_entry){sequence, 0, LIVE | FREED};
		if (l->next - sequence <= l->next - l->entries_end)
			l->entries_end = sequence + 1;
	}
	if (!e || !(e->state & LIVE))
		return 0; /* overtaken by a cumulative word */
	if (status == AVP_ACK_RELEASED)
		release(l, e);
	else
		settle(l, e, status);
	return 0;
}

int avp_ledger_status(const struct avp_ledger *l, uint64_t sequence)
{
	const struct avp__ledger_entry *e = find(l, sequence);

	if (!e && in_ring(l, sequence))
		return sequence - l->accepted < l->next - l->accepted
			       ? 0
			       : AVP_ACK_ACCEPTED;
	for (uint32_t i = 0; !e && i < LEDGER_LATE; i++)
		if (l->late[i].state && l->late[i].sequence == sequence)
			e = &l->late[i];
	return e ? (int)(e->state & STATUS) : AVP_UNKNOWN;
}

static void visit_one(struct avp_ledger *l, struct avp__ledger_entry *e,
		      avp_ledger_visit *visit, void *arg)
{
	visit(arg, e->sequence, e->cookie, e->state & STATUS,
	      e->state & FREED);
	/* Still there to be asked for, by ahp_status() for one. */
	e->state = (e->state & ~(uint64_t)LIVE) | GONE;
	l->live--;
}

void avp_ledger_drain(struct avp_ledger *l, avp_ledger_visit *visit, void *arg)
{
	uint64_t count = l->next - l->first, at;

	if (l->drained)
		return;
	for (uint32_t i = 0; i < l->stragglers; i++)
		if (l->straggler[i].state & LIVE)
			visit_one(l, &l->straggler[i], visit, arg);
	at = l->next - (count < l->mask + 1 ? count : l->mask + 1);
	for (; at != l->next; at++) {
		struct avp__ledger_entry *e = find_in_ring(l, at);

		if (e && e->state & LIVE) {
			visit_one(l, e, visit, arg);
		} else if (!e && plain_is_live(l, at)) {
			visit(arg, at, 0, false, true);
			l->live--;
		}
	}
	l->drained = true;
}
